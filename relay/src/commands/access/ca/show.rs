//! Authorities and revocations as they are shown.

use serde::Serialize;

use super::list;
use crate::clock::Timestamp;
use crate::commands::answer::table::{Narrow, count, narrowed, or_dash, table};
use crate::commands::limits::MIN_TABLE_COLUMN;
use crate::commands::{Context, Failure, json};
use crate::store::{Authority, Prints, Revocation, RevocationChange, RevokedThing};

/// The way in which the table of authorities gives way in a narrow terminal: half a fingerprint is none.
const NARROW: Narrow<'static> = Narrow {
    left_out: &[4, 2, 1],
    kept: &[(0, MIN_TABLE_COLUMN), (3, 50)],
};

/// An authority, for machines. These names are relied upon: they may be added to, never changed.
#[derive(Serialize)]
pub(super) struct AuthorityJson {
    name: String,
    fingerprint: String,
    public_key: String,
    comment: String,
    added: String,
    revoked: bool,
}

/// A revocation, for machines; what does not apply is `null`.
#[derive(Serialize)]
struct RevocationJson {
    id: i64,
    kind: &'static str,
    fingerprint: Option<String>,
    first: Option<u64>,
    last: Option<u64>,
    key_id: Option<String>,
    /// The fingerprint of the authority whose certificates it is about; `null`: whichever it is.
    authority: Option<String>,
    added: String,
}

impl RevocationJson {
    fn of(revocation: &Revocation) -> Self {
        let mut row = Self {
            id: revocation.id,
            kind: "key",
            fingerprint: None,
            first: None,
            last: None,
            key_id: None,
            authority: None,
            added: Timestamp::rfc3339(revocation.added),
        };
        match &revocation.thing {
            RevokedThing::Key(fingerprint) => row.fingerprint = Some(fingerprint.clone()),
            RevokedThing::Serials { authority, serials } => {
                row.kind = "serial";
                (row.first, row.last) = (Some(*serials.start()), Some(*serials.end()));
                row.authority.clone_from(authority);
            }
            RevokedThing::KeyId { authority, id } => {
                row.kind = "key-id";
                row.key_id = Some(id.clone());
                row.authority.clone_from(authority);
            }
        }
        row
    }
}

/// The result of a change to the list, for machines.
#[derive(Serialize)]
struct ChangeJson {
    added: usize,
    removed: usize,
    total: usize,
}

/// Returns the table of the authorities.
pub(super) async fn authorities(context: &Context, as_json: bool) -> Result<String, Failure> {
    let mut rows = Vec::new();
    for authority in context.store.authorities().await? {
        rows.push(authority_json(context, &authority).await?);
    }
    if as_json {
        return json(&rows);
    }
    let row = |row: &AuthorityJson| {
        let kind = row.public_key.split(' ').next().unwrap_or_default();
        let state = if row.revoked { "revoked" } else { "trusted" };
        let added = row.added.get(..10).unwrap_or_default();
        [&row.name, state, kind, &row.fingerprint, added].map(str::to_owned)
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    let head = ["NAME", "STATE", "TYPE", "FINGERPRINT", "ADDED"];
    Ok(narrowed(context.width, head, &rows, NARROW))
}

/// Returns what is shown of an authority.
pub(super) async fn authority_json(
    context: &Context,
    authority: &Authority,
) -> Result<AuthorityJson, Failure> {
    let key = Prints {
        sha256: authority.fingerprint.clone(),
        sha1: list::sha1_of_line(&authority.public_key),
    };
    Ok(AuthorityJson {
        name: authority.name.clone(),
        fingerprint: authority.fingerprint.clone(),
        public_key: authority.public_key.clone(),
        comment: authority.comment.clone(),
        added: authority.added.rfc3339(),
        revoked: context.store.policy().await?.is_key_revoked(&key),
    })
}

/// Returns the table of what is revoked.
pub(super) async fn revoked(context: &Context, as_json: bool) -> Result<String, Failure> {
    let revocations = context.store.revocations().await?;
    if as_json {
        return json(
            &revocations
                .iter()
                .map(RevocationJson::of)
                .collect::<Vec<_>>(),
        );
    }
    let authorities = context.store.authorities().await?;
    let called = |fingerprint: &Option<String>| match fingerprint {
        None => "any".to_owned(),
        Some(fingerprint) => {
            let known = authorities.iter().find(|a| a.fingerprint == *fingerprint);
            known.map_or_else(|| fingerprint.clone(), |authority| authority.name.clone())
        }
    };
    let row = |revocation: &Revocation| {
        let (what, of) = match &revocation.thing {
            RevokedThing::Key(fingerprint) => (format!("key {fingerprint}"), or_dash("")),
            RevokedThing::Serials { authority, serials } => {
                let (first, last) = (serials.start(), serials.end());
                let what = if first == last {
                    format!("serial {first}")
                } else {
                    format!("serials {first}-{last}")
                };
                (what, called(authority))
            }
            RevokedThing::KeyId { authority, id } => (format!("key id {id}"), called(authority)),
        };
        [
            revocation.id.to_string(),
            what,
            of,
            revocation.added.to_string(),
        ]
    };
    let rows: Vec<_> = revocations.iter().map(row).collect();
    let head = ["ID", "REVOKED", "AUTHORITY", "SINCE"];
    Ok(table(context.width, head, &rows))
}

/// Returns what a change did to the list.
pub(super) fn changed(change: RevocationChange, as_json: bool) -> Result<String, Failure> {
    let RevocationChange {
        added,
        removed,
        total,
    } = change;
    if as_json {
        return json(&ChangeJson {
            added,
            removed,
            total,
        });
    }
    let new = count(added, "new revocation");
    Ok(format!("{new}, {removed} removed, {total} in all\n"))
}
