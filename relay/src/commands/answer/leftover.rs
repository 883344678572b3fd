//! The sentence about the uses that are left of the token that a device enrolled with, in the answers of commands that
//! end or lock the device.

use holdfast_protocol::count::Count;
use serde::Serialize;

use crate::clock::{Coarse, Timestamp};
use crate::store::TokenLeft;

/// A token that a device enrolled with and that has uses left, for machines.
#[derive(Serialize)]
pub(in crate::commands) struct LeftoverToken {
    id: String,
    uses_left: i64,
    expires: String,
    removed: bool,
}

impl LeftoverToken {
    pub(in crate::commands) fn of(token: TokenLeft, removed: bool) -> Self {
        Self {
            id: token.id,
            uses_left: token.uses_left,
            expires: token.expires.rfc3339(),
            removed,
        }
    }
}

/// Returns a sentence about the rest of the token that a device enrolled with, and what to do about it.
pub(in crate::commands) fn about_token(token: &TokenLeft, now: Timestamp, ended: bool) -> String {
    let TokenLeft {
        id,
        uses_left,
        expires,
    } = token;
    if ended {
        return format!(
            "token {id}, which it enrolled with, removed: it had {} left\n",
            Count(uses_left.unsigned_abs(), "use")
        );
    }
    let left = Coarse(expires.since(now));
    format!(
        "warning: it enrolled with token {id}, with which {uses_left} more may join until {expires} (in {left}): if the token may be in wrong hands, `relay token rm {id}`\n"
    )
}
