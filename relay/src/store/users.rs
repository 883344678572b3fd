//! Operators, their roles and their keys.

use holdfast_protocol::ids::UserName;
use thiserror::Error;

use super::{Store, StoreError, Survive, Write, meta};
use crate::clock::Timestamp;

/// An operator, as the access decision needs one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Who.
    pub name: UserName,
    /// The names of the roles, in order.
    pub roles: Vec<String>,
    /// Whether nothing is allowed, whatever the roles say.
    pub disabled: bool,
}

/// A public key of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserKey {
    /// `SHA256:…`, as OpenSSH prints it.
    pub fingerprint: String,
    /// The key as in a `.pub` file: type and base64, without the comment.
    pub public_key: String,
    /// The comment: from outside, so escape it.
    pub comment: String,
}

/// An operator, as a listing shows one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    /// Name, roles, whether disabled.
    pub user: User,
    /// When added.
    pub created: Timestamp,
    /// The keys, in the order in which they came.
    pub keys: Vec<UserKey>,
}

/// What adding a user did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedUser {
    /// Whether the user is new.
    pub new_user: bool,
    /// How many roles are new.
    pub new_roles: usize,
}

/// Why a user's keys were not changed.
#[derive(Debug, Error)]
pub enum KeyError {
    /// A key belongs to one user only.
    #[error(
        "key {fingerprint} belongs to user \"{owner}\": a key is one user's; remove it there first (`relay user key rm {owner} {fingerprint}`)"
    )]
    Taken {
        /// The key.
        fingerprint: String,
        /// Whose it is.
        owner: String,
    },
    /// A user of that name has other keys already.
    #[error(
        "user \"{0}\" is there already and does not have this key: add it with `relay user key add {0} --key FILE`"
    )]
    Exists(UserName),
    /// There is no such user.
    #[error("no user \"{0}\": see `relay user ls`")]
    UnknownUser(UserName),
    /// The user has no such key.
    #[error("user \"{user}\" has no key {fingerprint}: see `relay user show {user}`")]
    UnknownKey {
        /// Who.
        user: UserName,
        /// Which.
        fingerprint: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for KeyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

const BY_KEY: &str = "SELECT u.name, u.disabled FROM users u
    JOIN user_keys k ON k.user_name = u.name WHERE k.fingerprint = $1";
const BY_NAME: &str = "SELECT name, disabled FROM users WHERE name = $1";
const ALL: &str = "SELECT name, disabled, created FROM users ORDER BY name";
const ROLES: &str = "SELECT role FROM user_roles WHERE user_name = $1 ORDER BY role";
const KEYS: &str = "SELECT fingerprint, public_key, comment FROM user_keys
    WHERE user_name = $1 ORDER BY added, fingerprint";
const ADD_USER: &str = "INSERT INTO users (name, created) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const ADD_ROLE: &str =
    "INSERT INTO user_roles (user_name, role) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const OWNER: &str = "SELECT user_name FROM user_keys WHERE fingerprint = $1";
const ADD_KEY: &str = "INSERT INTO user_keys (fingerprint, user_name, public_key, comment, added)
    VALUES ($1, $2, $3, $4, $5)";
const REMOVE_KEY: &str = "DELETE FROM user_keys WHERE user_name = $1 AND fingerprint = $2";
const REMOVE_USER: &str = "DELETE FROM users WHERE name = $1";

impl Store {
    /// Whose key that is. The fingerprint is `SHA256:…`, as OpenSSH prints it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user_by_key(&self, fingerprint: &str) -> Result<Option<User>, StoreError> {
        let row = sqlx::query_as(BY_KEY).bind(fingerprint);
        let row = row.fetch_optional(&self.readers).await?;
        self.with_roles(row).await
    }

    /// The user of that name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user(&self, name: &UserName) -> Result<Option<User>, StoreError> {
        let row = sqlx::query_as(BY_NAME).bind(name.as_str());
        let row = row.fetch_optional(&self.readers).await?;
        self.with_roles(row).await
    }

    /// All users by name, with their keys.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn users(&self) -> Result<Vec<UserRow>, StoreError> {
        let rows: Vec<(String, bool, i64)> = sqlx::query_as(ALL).fetch_all(&self.readers).await?;
        let mut users = Vec::with_capacity(rows.len());
        for (name, disabled, created) in rows {
            let Some(user) = self.with_roles(Some((name, disabled))).await? else {
                continue;
            };
            users.push(UserRow {
                keys: self.user_keys(&user.name).await?,
                created: Timestamp(created),
                user,
            });
        }
        Ok(users)
    }

    /// Adds a user with keys and roles. If there is one of that name with all these keys, only roles are
    /// added: a key that is meant for a new user never opens an old one's door by a clash of names.
    ///
    /// # Errors
    /// [`KeyError::Taken`] and [`KeyError::Exists`]; nothing was changed then.
    pub async fn add_user(
        &self,
        name: &UserName,
        keys: &[UserKey],
        roles: &[String],
        now: Timestamp,
    ) -> Result<AddedUser, KeyError> {
        let mut write = self.write(Survive::PowerCut).await?;
        let add = sqlx::query(ADD_USER).bind(name.as_str()).bind(now.0);
        let new_user = add.execute(&mut *write).await?.rows_affected() > 0;
        let mut new_roles = 0;
        for role in roles {
            let add = sqlx::query(ADD_ROLE).bind(name.as_str()).bind(role);
            new_roles += usize::from(add.execute(&mut *write).await?.rows_affected() > 0);
        }
        let new_keys = insert_keys(&mut write, name, keys, now).await?;
        if !new_user && new_keys > 0 {
            return Err(KeyError::Exists(name.clone()));
        }
        if !new_user && new_roles == 0 {
            write.unchanged();
        }
        meta::access_changed(&mut write).await?;
        write.commit().await?;
        Ok(AddedUser {
            new_user,
            new_roles,
        })
    }

    /// Adds keys to a user; says how many are new.
    ///
    /// # Errors
    /// [`KeyError`]; nothing was changed then.
    pub async fn add_keys(
        &self,
        name: &UserName,
        keys: &[UserKey],
        now: Timestamp,
    ) -> Result<usize, KeyError> {
        let mut write = self.write(Survive::PowerCut).await?;
        if !exists(&mut write, name).await? {
            return Err(KeyError::UnknownUser(name.clone()));
        }
        let added = insert_keys(&mut write, name, keys, now).await?;
        if added == 0 {
            write.unchanged();
        }
        meta::access_changed(&mut write).await?;
        write.commit().await?;
        Ok(added)
    }

    /// Takes a key from a user.
    ///
    /// # Errors
    /// [`KeyError`] if there is no such user, or the key is not this user's.
    pub async fn remove_key(&self, name: &UserName, fingerprint: &str) -> Result<(), KeyError> {
        let mut write = self.write(Survive::PowerCut).await?;
        if !exists(&mut write, name).await? {
            return Err(KeyError::UnknownUser(name.clone()));
        }
        let remove = sqlx::query(REMOVE_KEY)
            .bind(name.as_str())
            .bind(fingerprint);
        if remove.execute(&mut *write).await?.rows_affected() == 0 {
            return Err(KeyError::UnknownKey {
                user: name.clone(),
                fingerprint: fingerprint.to_owned(),
            });
        }
        meta::access_changed(&mut write).await?;
        Ok(write.commit().await?)
    }

    /// Removes a user with keys and roles; says whether there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_user(&self, name: &UserName) -> Result<bool, StoreError> {
        let mut write = self.write(Survive::PowerCut).await?;
        let remove = sqlx::query(REMOVE_USER).bind(name.as_str());
        let removed = remove.execute(&mut *write).await?.rows_affected() > 0;
        if !removed {
            write.unchanged();
        }
        meta::access_changed(&mut write).await?;
        write.commit().await?;
        Ok(removed)
    }

    async fn with_roles(&self, row: Option<(String, bool)>) -> Result<Option<User>, StoreError> {
        let Some((name, disabled)) = row else {
            return Ok(None);
        };
        let roles = sqlx::query_scalar(ROLES).bind(&name);
        Ok(Some(User {
            roles: roles.fetch_all(&self.readers).await?,
            name: UserName::new(&name).map_err(|_| StoreError::Corrupt("a user's name"))?,
            disabled,
        }))
    }

    async fn user_keys(&self, name: &UserName) -> Result<Vec<UserKey>, StoreError> {
        let rows = sqlx::query_as(KEYS).bind(name.as_str());
        let rows: Vec<(String, String, String)> = rows.fetch_all(&self.readers).await?;
        let key = |(fingerprint, public_key, comment)| UserKey {
            fingerprint,
            public_key,
            comment,
        };
        Ok(rows.into_iter().map(key).collect())
    }
}

async fn exists(write: &mut Write, name: &UserName) -> Result<bool, StoreError> {
    let user = sqlx::query(BY_NAME).bind(name.as_str());
    Ok(user.fetch_optional(&mut **write).await?.is_some())
}

async fn insert_keys(
    write: &mut Write,
    name: &UserName,
    keys: &[UserKey],
    now: Timestamp,
) -> Result<usize, KeyError> {
    let fingerprints: Vec<&str> = keys.iter().map(|key| key.fingerprint.as_str()).collect();
    write.fact("keys", fingerprints);
    let mut added = 0;
    for key in keys {
        let owner = sqlx::query_scalar(OWNER).bind(&key.fingerprint);
        let owner: Option<String> = owner.fetch_optional(&mut **write).await?;
        match owner {
            Some(owner) if owner == name.as_str() => continue,
            Some(owner) => {
                let fingerprint = key.fingerprint.clone();
                return Err(KeyError::Taken { fingerprint, owner });
            }
            None => {}
        }
        sqlx::query(ADD_KEY)
            .bind(&key.fingerprint)
            .bind(name.as_str())
            .bind(&key.public_key)
            .bind(&key.comment)
            .bind(now.0)
            .execute(&mut **write)
            .await?;
        added += 1;
    }
    Ok(added)
}
