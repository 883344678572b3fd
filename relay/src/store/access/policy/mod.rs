//! A policy document's roles and users, put into the store in one transaction: as it is now, as it shall
//! be, the difference, and then only the difference is written.

mod diff;
mod plan;

use std::collections::BTreeMap;

use holdfast_protocol::ids::UserName;
use thiserror::Error;

use super::roles::holders_text;
use super::{roles, users};
use crate::clock::Timestamp;
use crate::model::form::RoleForm;
use crate::model::presets;
use crate::model::role::Ability;
use crate::model::role::{Role, RoleName};
use crate::model::user::Subject;
use crate::store::backend::connection::StoreConnection;
use crate::store::backend::sql;
use crate::store::limits::MAX_AUDIT_TEXT;
use crate::store::meta::AccessPart;
use crate::store::{StoreError, Tx, UserKey};
use crate::store::{User, UserId};

pub(crate) use diff::Change;

/// The contents of a document. What it does not name stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Roles, each as a whole.
    pub roles: Vec<Role>,
    /// Users, each as far as the document names something of it.
    pub users: Vec<UserPolicy>,
}

/// The entry of a user in a document; `None`: nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserPolicy {
    /// The user.
    pub name: UserName,
    /// The e-mail address, or that there is none.
    pub email: Option<Option<String>>,
    /// True if nothing is allowed.
    pub disabled: Option<bool>,
    /// The names of all roles.
    pub roles: Option<Vec<RoleName>>,
    /// All keys.
    pub keys: Option<Vec<UserKey>>,
    /// All principals.
    pub principals: Option<Vec<String>>,
}

/// The options of applying a document.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Apply {
    /// Roles and users that it does not name are removed, of each of the two kinds that it names any of.
    pub prune: bool,
    /// Nothing is changed: only the difference is given.
    pub dry_run: bool,
}

/// The reason why a document was not applied. Nothing was changed then.
#[derive(Debug, Error)]
pub(crate) enum ApplyError {
    /// A user has a role that there is not, or not any more.
    #[error(
        "no role \"{role}\", and {holders} would have it: name it in the file, or remove it from them",
        holders = holders_text(.holders)
    )]
    UnknownRole {
        /// The role.
        role: String,
        /// The users that have it.
        holders: Vec<String>,
    },
    /// A key would be two users'.
    #[error(
        "key {fingerprint} belongs to user \"{owner}\", and user \"{other}\" would have it too: a key is one user's"
    )]
    KeyTaken {
        /// The key.
        fingerprint: String,
        /// The user who has it.
        owner: String,
        /// The user who would have it too.
        other: String,
    },
    /// A principal would be two users'.
    #[error(
        "principal \"{principal}\" belongs to user \"{owner}\", and user \"{other}\" would have it too: a principal is one user's"
    )]
    PrincipalTaken {
        /// The principal.
        principal: String,
        /// The user who has it.
        owner: String,
        /// The user who would have it too.
        other: String,
    },
    /// There is an admin, and there would be none.
    #[error(
        "no user could administer the relay over ssh any more: keep a user with a key and a role with the ability admin"
    )]
    LastAdmin,
    /// The audit log uses the name for the relay's own shell.
    #[error("user name \"{0}\" is that of the relay's own shell in the audit log: choose another")]
    ReservedUser(UserName),
    /// There would be too many roles.
    #[error(
        "there would be {found} roles; the maximum is {most}: remove some with --prune or `relay role rm`"
    )]
    TooManyRoles {
        /// The number that was found.
        found: usize,
        /// The maximum.
        most: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Everything that a document can change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Snapshot {
    roles: BTreeMap<RoleName, Role>,
    users: BTreeMap<UserName, UserState>,
}

/// A user as the tables have one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct UserState {
    email: Option<String>,
    disabled: bool,
    /// The names of the roles, in order.
    roles: Vec<String>,
    keys: Vec<UserKey>,
    /// The principals, in order.
    principals: Vec<String>,
}

const PUT_ROLE: &str = "INSERT INTO roles (name, body, changed) VALUES ($1, $2, $3)
    ON CONFLICT (name) DO UPDATE SET body = excluded.body, changed = excluded.changed";
const REMOVE_ROLE: &str = "DELETE FROM roles WHERE name = $1";
const PUT_USER: &str = "INSERT INTO users (name, created, disabled, email) VALUES ($1, $2, $3, $4)
    ON CONFLICT (name) DO UPDATE SET disabled = excluded.disabled, email = excluded.email";
const REMOVE_USER: &str = "DELETE FROM users WHERE name = $1";
const CLEAR: [&str; 3] = [
    "DELETE FROM user_roles WHERE user_name = $1",
    "DELETE FROM user_principals WHERE user_name = $1",
    "DELETE FROM user_keys WHERE user_name = $1",
];
const ADD_ROLE: &str = "INSERT INTO user_roles (user_name, role) VALUES ($1, $2)";
const ADD_PRINCIPAL: &str = "INSERT INTO user_principals (user_name, principal) VALUES ($1, $2)";
const ADD_KEY: &str = "INSERT INTO user_keys (fingerprint, user_name, public_key, comment, added)
    VALUES ($1, $2, $3, $4, $5)";

impl Tx {
    /// Applies a document, or says what that would change. The same a second time changes nothing, and
    /// gives no change.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing was changed then.
    pub(crate) async fn apply(
        &mut self,
        policy: &Policy,
        how: Apply,
        now: Timestamp,
    ) -> Result<Vec<Change>, ApplyError> {
        let before = snapshot(self).await?;
        let after = plan::plan(&before, policy, how.prune)?;
        let changes = diff::diff(&before, &after);
        if how.dry_run || changes.is_empty() {
            self.unchanged();
            return Ok(changes);
        }
        let mut connection = self.connection().await?;
        let written = async {
            put_roles(&mut connection, &before, &after, now).await?;
            put_users(&mut connection, &before, &after, now).await
        };
        written.await?;
        drop(connection);
        self.access_changed(AccessPart::People).await?;
        note_changes(self, &changes);
        Ok(changes)
    }
}

/// Adds what is changed to the audit rows: as much of it as a row may hold, and how much it is.
fn note_changes(tx: &mut Tx, changes: &[Change]) {
    let mut room = MAX_AUDIT_TEXT;
    let lines = changes.iter().map(Change::to_string);
    let listed = lines.take_while(|line| match room.checked_sub(line.len()) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    });
    tx.fact("changes", listed.collect::<Vec<_>>());
    tx.fact("count", changes.len());
}

async fn snapshot(tx: &mut Tx) -> Result<Snapshot, StoreError> {
    let roles = roles::all(tx).await?;
    let state = |row: crate::store::UserRow| {
        let state = UserState {
            email: row.user.email,
            disabled: row.user.disabled,
            roles: row.user.roles,
            keys: row.keys,
            principals: row.principals,
        };
        (row.user.name, state)
    };
    Ok(Snapshot {
        roles: roles
            .into_iter()
            .map(|role| (role.name.clone(), role))
            .collect(),
        users: users::all(&mut *tx.connection().await?)
            .await?
            .into_iter()
            .map(state)
            .collect(),
    })
}

async fn put_roles(
    to: &mut StoreConnection,
    before: &Snapshot,
    after: &Snapshot,
    now: Timestamp,
) -> Result<(), StoreError> {
    for name in before.roles.keys() {
        if !after.roles.contains_key(name) {
            let remove = sql::query(REMOVE_ROLE).bind(name.as_str());
            remove.execute(&mut *to).await?;
        }
    }
    for (name, role) in &after.roles {
        if before.roles.get(name) == Some(role) {
            continue;
        }
        // A form of texts, numbers and lists always encodes.
        let body = serde_json::to_string(&RoleForm::of(role)).unwrap_or_default();
        let put = sql::query(PUT_ROLE)
            .bind(name.as_str())
            .bind(body)
            .bind(now.0);
        put.execute(&mut *to).await?;
    }
    Ok(())
}

async fn put_users(
    to: &mut StoreConnection,
    before: &Snapshot,
    after: &Snapshot,
    now: Timestamp,
) -> Result<(), StoreError> {
    for name in before.users.keys() {
        if !after.users.contains_key(name) {
            let remove = sql::query(REMOVE_USER).bind(name.as_str());
            remove.execute(&mut *to).await?;
        }
    }
    let changed: Vec<_> = after
        .users
        .iter()
        .filter(|(name, state)| before.users.get(*name) != Some(*state))
        .collect();
    // First everything goes, then everything comes: a key may move from one user to another.
    for (name, _) in &changed {
        for sql in CLEAR {
            sql::query(sql)
                .bind(name.as_str())
                .execute(&mut *to)
                .await?;
        }
    }
    for (name, state) in changed {
        let put = sql::query(PUT_USER)
            .bind(name.as_str())
            .bind(now.0)
            .bind(state.disabled)
            .bind(&state.email);
        put.execute(&mut *to).await?;
        put_lists(to, name, state, now).await?;
    }
    Ok(())
}

async fn put_lists(
    to: &mut StoreConnection,
    name: &UserName,
    state: &UserState,
    now: Timestamp,
) -> Result<(), StoreError> {
    for (sql, texts) in [(ADD_ROLE, &state.roles), (ADD_PRINCIPAL, &state.principals)] {
        for text in texts {
            let add = sql::query(sql).bind(name.as_str()).bind(text);
            add.execute(&mut *to).await?;
        }
    }
    for (place, key) in (0_i64..).zip(&state.keys) {
        let add = sql::query(ADD_KEY)
            .bind(&key.fingerprint)
            .bind(name.as_str())
            .bind(&key.public_key)
            .bind(&key.comment)
            // They are listed in this order, which is that of the document.
            .bind(now.0.saturating_add(place));
        add.execute(&mut *to).await?;
    }
    Ok(())
}

impl Snapshot {
    /// Returns whether a user can log in who may administer the relay.
    fn has_admin(&self) -> bool {
        self.users.iter().any(|(name, state)| {
            let provable = !state.keys.is_empty() || !state.principals.is_empty();
            provable && self.subject(name, state).may(Ability::Admin)
        })
    }

    fn subject(&self, name: &UserName, state: &UserState) -> Subject {
        let role = |wanted: &String| {
            let own = RoleName::new(wanted).ok();
            let own = own.and_then(|wanted| self.roles.get(&wanted).cloned());
            own.or_else(|| presets::preset(wanted))
        };
        Subject {
            elsewhere: None,
            user: User {
                // Nothing that belongs to a user is asked for here.
                id: UserId(0),
                name: name.clone(),
                email: state.email.clone(),
                roles: state.roles.clone(),
                disabled: state.disabled,
            },
            roles: state.roles.iter().filter_map(role).collect(),
        }
    }
}
