//! Roles, as they are stored.

use crate::store::backend::sql;
use thiserror::Error;

use crate::model::form::RoleForm;
use crate::model::presets;
use crate::model::role::{Role, RoleName};
use crate::store::meta::AccessPart;
use crate::store::{Store, StoreError, Tx};

/// The number of users a sentence names before it only counts them.
const NAMED_USERS: usize = 5;

/// The reason why a role was not removed.
#[derive(Debug, Error)]
pub(crate) enum RoleError {
    /// There is no such role.
    #[error("no role \"{0}\": see `relay get roles`")]
    Unknown(RoleName),
    /// It is not the admin's.
    #[error("role \"{0}\" is a preset and cannot be removed")]
    Preset(RoleName),
    /// Users have it.
    #[error(
        "role \"{role}\" is assigned to {holders}: remove it there first (`relay user role rm NAME {role}`)",
        holders = holders_text(.holders)
    )]
    Held {
        /// The role.
        role: RoleName,
        /// The users that have it.
        holders: Vec<String>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns `user "alice"`, `users "alice", "bob"`, at most a few of them.
pub(crate) fn holders_text(holders: &[String]) -> String {
    let shown: Vec<String> = holders
        .iter()
        .take(NAMED_USERS)
        .map(|name| format!("\"{name}\""))
        .collect();
    let more = holders.len().saturating_sub(NAMED_USERS);
    let users = if holders.len() == 1 {
        "user"
    } else {
        "each of users"
    };
    match more {
        0 => format!("{users} {}", shown.join(", ")),
        _ => format!("{users} {} and {more} more", shown.join(", ")),
    }
}

const ALL: &str = "SELECT name, body FROM roles ORDER BY name";
const EXISTS: &str = "SELECT COUNT(*) FROM roles WHERE name = $1";
const HOLDERS: &str = "SELECT user_name FROM user_roles WHERE role = $1 ORDER BY user_name";
const REMOVE: &str = "DELETE FROM roles WHERE name = $1";

impl Store {
    /// Returns all roles by name, without the presets.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn roles(&self) -> Result<Vec<Role>, StoreError> {
        let rows: Vec<(String, String)> = sql::query_as(ALL).fetch_all(self.reads()).await?;
        rows.iter()
            .map(|(name, body)| role_of(name, body))
            .collect()
    }
}

impl Tx {
    /// Removes a role that no user has.
    ///
    /// # Errors
    /// [`RoleError`].
    pub(crate) async fn remove_role(&mut self, name: &RoleName) -> Result<(), RoleError> {
        if presets::is_preset(name.as_str()) {
            return Err(RoleError::Preset(name.clone()));
        }
        let holders = sql::query_scalar(HOLDERS).bind(name.as_str());
        let holders: Vec<String> = holders.fetch_all(&mut *self.connection().await?).await?;
        let remove = sql::query(REMOVE).bind(name.as_str());
        let removed = remove.execute(&mut *self.connection().await?).await;
        if removed?.rows_affected() == 0 {
            return Err(RoleError::Unknown(name.clone()));
        }
        if !holders.is_empty() {
            let role = name.clone();
            return Err(RoleError::Held { role, holders });
        }
        self.access_changed(AccessPart::People).await?;
        Ok(())
    }
}

/// Checks whether there is a role of that name, inside a transaction.
pub(crate) async fn exists(tx: &mut Tx, name: &str) -> Result<bool, StoreError> {
    let found = sql::query_scalar(EXISTS).bind(name);
    let found: i64 = found.fetch_one(&mut *tx.connection().await?).await?;
    Ok(found > 0 || presets::is_preset(name))
}

/// Returns all roles, inside a transaction.
pub(crate) async fn all(tx: &mut Tx) -> Result<Vec<Role>, StoreError> {
    let rows: Vec<(String, String)> = sql::query_as(ALL)
        .fetch_all(&mut *tx.connection().await?)
        .await?;
    rows.iter()
        .map(|(name, body)| role_of(name, body))
        .collect()
}

pub(super) fn role_of(name: &str, body: &str) -> Result<Role, StoreError> {
    let corrupt = || StoreError::Corrupt("a role");
    let name = RoleName::new(name).map_err(|_| corrupt())?;
    let form: RoleForm = serde_json::from_str(body).map_err(|_| corrupt())?;
    form.role(name).map_err(|_| corrupt())
}
