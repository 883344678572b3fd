//! Adds, changes and removes operators. Each change is one transaction, and grows the number that makes relays look
//! again.

mod lists;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::UserName;
use thiserror::Error;

use crate::clock::Timestamp;
use crate::model::role::RoleName;
use crate::model::user::LOCAL_USER;
use crate::store::backend::sql;
use crate::store::meta::AccessPart;
use crate::store::{StoreError, Tx, UserKey};
use lists::{insert_keys, insert_principals, insert_roles};

/// The attributes of a user to add, merged with what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NewUser {
    /// Keys that prove the user.
    pub keys: Vec<UserKey>,
    /// Names of roles, which there must be.
    pub roles: Vec<String>,
    /// The e-mail address.
    pub email: Option<String>,
    /// The names by which a certificate may refer to the user.
    pub principals: Vec<String>,
}

/// The result of adding a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddedUser {
    /// True if the user is new.
    pub new_user: bool,
    /// The number of roles are new.
    pub new_roles: usize,
    /// True if the e-mail address or a principal is new.
    pub new_facts: bool,
}

/// The reason why a user was not changed.
#[derive(Debug, Error)]
pub(crate) enum KeyError {
    /// A key belongs to one user only.
    #[error(
        "key {fingerprint} belongs to user \"{owner}\": a key is one user's; remove it there first (`relay user key rm {owner} {fingerprint}`)"
    )]
    Taken {
        /// The key.
        fingerprint: String,
        /// The user who has it.
        owner: String,
    },
    /// So does a principal.
    #[error(
        "principal \"{principal}\" belongs to user \"{owner}\": a principal is one user's; remove it there first (`relay user principal rm {owner} {principal}`)"
    )]
    PrincipalTaken {
        /// The principal.
        principal: String,
        /// The user who has it.
        owner: String,
    },
    /// A user of that name has other keys already.
    #[error(
        "user \"{0}\" is there already and does not have this key: add it with `relay user key add {0} --key FILE`"
    )]
    Exists(UserName),
    /// The audit log uses the name for the relay's own shell.
    #[error("user name \"{0}\" is that of the relay's own shell in the audit log: choose another")]
    Reserved(UserName),
    /// There is no such user.
    #[error("no user \"{0}\": see `relay user ls`")]
    UnknownUser(UserName),
    /// The user has no such key.
    #[error("user \"{user}\" has no key {}: see `relay user show {user}`", Escaped(.fingerprint))]
    UnknownKey {
        /// The user.
        user: UserName,
        /// The fingerprint.
        fingerprint: String,
    },
    /// The user has no such role, or principal.
    #[error("user \"{user}\" has no {what} \"{name}\": see `relay user show {user}`")]
    HasNot {
        /// The user.
        user: UserName,
        /// A role, or a principal.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// There is no such role.
    #[error("no role \"{}\": see `relay get roles`; without a role a user may do nothing yet", Escaped(.0))]
    UnknownRole(String),
    /// There would be too many.
    #[error("user \"{user}\" would have {found} {what}; the maximum is {most}")]
    TooMany {
        /// The user.
        user: UserName,
        /// Roles, or principals.
        what: &'static str,
        /// The number that was found.
        found: i64,
        /// The maximum.
        most: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const BY_NAME: &str = "SELECT name FROM users WHERE name = $1";
const ADD_USER: &str = "INSERT INTO users (name, created) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const REMOVE_ROLE: &str = "DELETE FROM user_roles WHERE user_name = $1 AND role = $2";
const REMOVE_KEY: &str = "DELETE FROM user_keys WHERE user_name = $1 AND fingerprint = $2";
const REMOVE_PRINCIPAL: &str =
    "DELETE FROM user_principals WHERE user_name = $1 AND principal = $2";
const SET_EMAIL: &str = "UPDATE users SET email = $2 WHERE name = $1 AND email IS DISTINCT FROM $2";
const SET_DISABLED: &str = "UPDATE users SET disabled = $2 WHERE name = $1 AND disabled <> $2";
const REMOVE_USER: &str = "DELETE FROM users WHERE name = $1";

impl Tx {
    /// Adds a user. If there is one of that name with all these keys, what is new is added: a key that is
    /// meant for a new user never logs in as an old one by a clash of names.
    ///
    /// # Errors
    /// [`KeyError`]; nothing was changed then.
    pub(crate) async fn add_user(
        &mut self,
        name: &UserName,
        user: &NewUser,
        now: Timestamp,
    ) -> Result<AddedUser, KeyError> {
        if name.as_str().eq_ignore_ascii_case(LOCAL_USER) {
            return Err(KeyError::Reserved(name.clone()));
        }
        let add = sql::query(ADD_USER).bind(name.as_str()).bind(now.0);
        let new_user = add
            .execute(&mut *self.connection().await?)
            .await?
            .rows_affected()
            > 0;
        let new_keys = insert_keys(self, name, &user.keys, now).await?;
        if !new_user && new_keys > 0 {
            return Err(KeyError::Exists(name.clone()));
        }
        let new_roles = insert_roles(self, name, &user.roles).await?;
        let new_principals = insert_principals(self, name, &user.principals).await?;
        let new_email = match &user.email {
            Some(email) => set_email(self, name, Some(email)).await?,
            None => false,
        };
        let new_facts = new_email || new_principals > 0;
        if !new_user && new_roles == 0 && !new_facts {
            self.unchanged();
        }
        self.access_changed(AccessPart::People).await?;
        Ok(AddedUser {
            new_user,
            new_roles,
            new_facts,
        })
    }

    /// Adds keys to a user; says how many are new.
    ///
    /// # Errors
    /// [`KeyError`]; nothing was changed then.
    pub(crate) async fn add_keys(
        &mut self,
        name: &UserName,
        keys: &[UserKey],
        now: Timestamp,
    ) -> Result<usize, KeyError> {
        self.user_changes(name).await?;
        let added = insert_keys(self, name, keys, now).await?;
        if added == 0 {
            self.unchanged();
        }
        Ok(added)
    }

    /// Takes a key from a user.
    ///
    /// # Errors
    /// [`KeyError`] if there is no such user, or the key is not this user's.
    pub(crate) async fn remove_key(
        &mut self,
        name: &UserName,
        fingerprint: &str,
    ) -> Result<(), KeyError> {
        self.user_changes(name).await?;
        if !delete(self, REMOVE_KEY, name, fingerprint).await? {
            return Err(KeyError::UnknownKey {
                user: name.clone(),
                fingerprint: fingerprint.to_owned(),
            });
        }
        Ok(())
    }

    /// Gives a user roles; says how many are new.
    ///
    /// # Errors
    /// [`KeyError`] if there is no such user, or no such role.
    pub(crate) async fn add_roles(
        &mut self,
        name: &UserName,
        roles: &[String],
    ) -> Result<usize, KeyError> {
        self.user_changes(name).await?;
        let added = insert_roles(self, name, roles).await?;
        if added == 0 {
            self.unchanged();
        }
        Ok(added)
    }

    /// Takes a role from a user, also one that there is not any more.
    ///
    /// # Errors
    /// [`KeyError`] if there is no such user, or the user does not have it.
    pub(crate) async fn take_role(
        &mut self,
        name: &UserName,
        role: &RoleName,
    ) -> Result<(), KeyError> {
        self.user_changes(name).await?;
        if !delete(self, REMOVE_ROLE, name, role.as_str()).await? {
            return Err(has_not(name, "role", role.as_str()));
        }
        Ok(())
    }

    /// Gives a user principals; says how many are new.
    ///
    /// # Errors
    /// [`KeyError`] if there is no such user, or a principal is another's.
    pub(crate) async fn add_principals(
        &mut self,
        name: &UserName,
        principals: &[String],
    ) -> Result<usize, KeyError> {
        self.user_changes(name).await?;
        let added = insert_principals(self, name, principals).await?;
        if added == 0 {
            self.unchanged();
        }
        Ok(added)
    }

    /// Takes a principal from a user.
    ///
    /// # Errors
    /// [`KeyError`] if there is no such user, or the principal is not this user's.
    pub(crate) async fn remove_principal(
        &mut self,
        name: &UserName,
        principal: &str,
    ) -> Result<(), KeyError> {
        self.user_changes(name).await?;
        if !delete(self, REMOVE_PRINCIPAL, name, principal).await? {
            return Err(has_not(name, "principal", principal));
        }
        Ok(())
    }

    /// Notes a user's e-mail address, or that there is none; says whether that is new.
    ///
    /// # Errors
    /// [`KeyError`] if there is no such user.
    pub(crate) async fn set_email(
        &mut self,
        name: &UserName,
        email: Option<&str>,
    ) -> Result<bool, KeyError> {
        self.user_changes(name).await?;
        let changed = set_email(self, name, email).await?;
        if !changed {
            self.unchanged();
        }
        Ok(changed)
    }

    /// Disables a user, so that nothing is allowed, or enables one again; says whether that is new.
    ///
    /// # Errors
    /// [`KeyError`] if there is no such user.
    pub(crate) async fn set_disabled(
        &mut self,
        name: &UserName,
        disabled: bool,
    ) -> Result<bool, KeyError> {
        self.user_changes(name).await?;
        let set = sql::query(SET_DISABLED).bind(name.as_str()).bind(disabled);
        let changed = set
            .execute(&mut *self.connection().await?)
            .await?
            .rows_affected()
            > 0;
        if !changed {
            self.unchanged();
        }
        Ok(changed)
    }

    /// Removes a user with keys, principals and roles; says whether there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn remove_user(&mut self, name: &UserName) -> Result<bool, StoreError> {
        let remove = sql::query(REMOVE_USER).bind(name.as_str());
        let removed = remove
            .execute(&mut *self.connection().await?)
            .await?
            .rows_affected()
            > 0;
        if !removed {
            self.unchanged();
        }
        self.access_changed(AccessPart::People).await?;
        Ok(removed)
    }

    /// Notes a change of a user who must exist.
    async fn user_changes(&mut self, name: &UserName) -> Result<(), KeyError> {
        let user = sql::query_scalar(BY_NAME).bind(name.as_str());
        let user: Option<String> = user.fetch_optional(&mut *self.connection().await?).await?;
        if user.is_none() {
            return Err(KeyError::UnknownUser(name.clone()));
        }
        self.access_changed(AccessPart::People).await?;
        Ok(())
    }
}

fn has_not(user: &UserName, what: &'static str, name: &str) -> KeyError {
    KeyError::HasNot {
        user: user.clone(),
        what,
        name: name.to_owned(),
    }
}

async fn delete(
    tx: &mut Tx,
    sql: &'static str,
    name: &UserName,
    thing: &str,
) -> Result<bool, KeyError> {
    let remove = sql::query(sql).bind(name.as_str()).bind(thing);
    Ok(remove
        .execute(&mut *tx.connection().await?)
        .await?
        .rows_affected()
        > 0)
}

async fn set_email(tx: &mut Tx, name: &UserName, email: Option<&str>) -> Result<bool, KeyError> {
    let set = sql::query(SET_EMAIL).bind(name.as_str()).bind(email);
    Ok(set
        .execute(&mut *tx.connection().await?)
        .await?
        .rows_affected()
        > 0)
}
