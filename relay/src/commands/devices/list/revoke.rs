//! `devices revoke`: the end of a device, and of what is left of the token that it enrolled with. Who has the device
//! may have the token as well (an image, a provisioning script), and would enrol again with it under a new key.

use holdfast_protocol::count::Count;
use holdfast_protocol::ids::DeviceName;
use serde::Serialize;

use super::Row;
use crate::clock::{Coarse, Timestamp};
use crate::commands::{Caller, Context, Failure, json};
use crate::store::TokenLeft;

/// The answer, for machines.
#[derive(Serialize)]
struct RevokeAnswer {
    #[serde(flatten)]
    device: Row,
    /// The token that it enrolled with, if uses of it were left.
    leftover_token: Option<LeftoverToken>,
}

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

pub(crate) async fn run(
    caller: &Caller,
    context: &Context,
    name: &DeviceName,
    end_token: bool,
    as_json: bool,
) -> Result<String, Failure> {
    let (sentence, token) = revoke(context, name, end_token).await?;
    if as_json {
        return json(&RevokeAnswer {
            device: Row::of(&super::find(caller, context, name).await?),
            leftover_token: token.map(|token| LeftoverToken::of(token, end_token)),
        });
    }
    let token = token.map(|token| about_token(&token, context.now, end_token));
    Ok(sentence + &token.unwrap_or_default())
}

async fn revoke(
    context: &Context,
    name: &DeviceName,
    end_token: bool,
) -> Result<(String, Option<TokenLeft>), Failure> {
    let store = &context.store;
    // Asked for twice, the answer to the second is that it is so.
    if let Some(device) = store.device_by_name(name).await?
        && let Some(when) = device.revoked
    {
        let token = store.token_left_of(device.id, context.now).await?;
        if let Some(token) = &token
            && end_token
        {
            let mut tx = context.begin().await?;
            tx.remove_token(&token.id).await?;
            tx.commit().await?;
        }
        let id = device.id;
        let sentence = format!("device {name} ({id}) was revoked already, {when}\n");
        return Ok((sentence, token));
    }
    let mut tx = context.begin().await?;
    let revoked = tx.revoke_device(name, context.now, end_token).await?;
    tx.commit().await?;
    let id = revoked.id;
    let sentence =
        format!("device {name} ({id}) revoked: its key is refused from now on, its name is free\n");
    Ok((sentence, revoked.token))
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
