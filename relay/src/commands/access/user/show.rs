//! Users as they are listed and shown.

use serde::Serialize;

use crate::commands::answer::table::{card, count, or_dash, table};
use crate::commands::{Failure, json};
use crate::store::{UserKey, UserRow};

/// A user, for machines.
#[derive(Serialize)]
pub(crate) struct Row {
    name: String,
    email: Option<String>,
    roles: Vec<String>,
    disabled: bool,
    created: String,
    keys: Vec<KeyRow>,
    principals: Vec<String>,
}

#[derive(Serialize)]
struct KeyRow {
    fingerprint: String,
    public_key: String,
    comment: String,
}

pub(crate) fn list(
    users: &[UserRow],
    as_json: bool,
    width: Option<usize>,
) -> Result<String, Failure> {
    if as_json {
        return json(&users.iter().map(Row::of).collect::<Vec<_>>());
    }
    let row = |row: &UserRow| {
        let state = if row.user.disabled {
            "disabled"
        } else {
            "enabled"
        };
        [
            row.user.name.to_string(),
            or_dash(&row.user.roles.join(",")),
            row.keys.len().to_string(),
            state.to_owned(),
            row.created.to_string(),
        ]
    };
    let rows: Vec<_> = users.iter().map(row).collect();
    let head = ["NAME", "ROLES", "KEYS", "STATE", "ADDED"];
    Ok(table(width, head, &rows))
}

pub(crate) fn card_of(row: &UserRow) -> String {
    let mut lines = vec![
        ("name", row.user.name.to_string()),
        ("roles", or_dash(&row.user.roles.join(", "))),
        ("added", row.created.to_string()),
    ];
    if let Some(email) = &row.user.email {
        lines.insert(1, ("e-mail", email.clone()));
    }
    if row.user.disabled {
        lines.push(("state", "disabled: may do nothing".to_owned()));
    }
    for principal in &row.principals {
        lines.push(("principal", principal.clone()));
    }
    for key in &row.keys {
        let kind = key.public_key.split(' ').next().unwrap_or_default();
        let text = format!("{} {kind} {}", key.fingerprint, key.comment);
        lines.push(("key", text.trim_end().to_owned()));
    }
    card(&lines)
}

pub(crate) fn summary(row: &UserRow, verb: &str) -> String {
    let roles = match row.user.roles.as_slice() {
        [] => "no role: may do nothing yet".to_owned(),
        roles => format!("roles {}", roles.join(", ")),
    };
    let keys = match row.keys.as_slice() {
        [] => "no key".to_owned(),
        keys => format!("{} ({})", count(keys.len(), "key"), fingerprints(keys)),
    };
    format!("user {} {verb}: {keys}, {roles}\n", row.user.name)
}

pub(crate) fn fingerprints(keys: &[UserKey]) -> String {
    let all: Vec<&str> = keys.iter().map(|key| key.fingerprint.as_str()).collect();
    all.join(", ")
}

impl Row {
    pub(crate) fn of(row: &UserRow) -> Self {
        let key = |key: &UserKey| KeyRow {
            fingerprint: key.fingerprint.clone(),
            public_key: key.public_key.clone(),
            comment: key.comment.clone(),
        };
        Self {
            name: row.user.name.to_string(),
            email: row.user.email.clone(),
            roles: row.user.roles.clone(),
            disabled: row.user.disabled,
            created: row.created.rfc3339(),
            keys: row.keys.iter().map(key).collect(),
            principals: row.principals.clone(),
        }
    }
}
