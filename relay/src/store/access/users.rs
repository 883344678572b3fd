//! Operators. Their changes are in `user_changes`.

use std::collections::BTreeMap;

use holdfast_protocol::ids::UserName;

use crate::clock::Timestamp;
use crate::store::backend::connection::StoreConnection;
use crate::store::backend::sql;
use crate::store::{Store, StoreError, User, UserId};

/// A public key of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserKey {
    /// `SHA256:…`, as OpenSSH prints it.
    pub fingerprint: String,
    /// The key as in a `.pub` file: type and base64, without the comment.
    pub public_key: String,
    /// The comment: from outside, so escape it.
    pub comment: String,
}

/// An operator, as a listing shows one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserRow {
    /// Name, e-mail address, roles, whether disabled.
    pub user: User,
    /// The time at which it was added.
    pub created: Timestamp,
    /// The keys, in the order in which they came.
    pub keys: Vec<UserKey>,
    /// The names by which a certificate may refer to the user, in order.
    pub principals: Vec<String>,
}

const BY_NAME: &str = "SELECT id, name, disabled, email FROM users WHERE name = $1";
const ROLES: &str = "SELECT role FROM user_roles WHERE user_name = $1 ORDER BY role";
const ALL: &str = "SELECT id, name, created, disabled, email FROM users ORDER BY name";
const ALL_ROLES: &str = "SELECT user_name, role FROM user_roles ORDER BY role";
const ALL_PRINCIPALS: &str = "SELECT user_name, principal FROM user_principals ORDER BY principal";
const ALL_KEYS: &str = "SELECT user_name, fingerprint, public_key, comment FROM user_keys
    ORDER BY added, fingerprint";

/// Id, name, whether disabled, e-mail address.
pub(super) type Head = (i64, String, bool, Option<String>);

impl Store {
    /// Returns the user of that name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn user(&self, name: &UserName) -> Result<Option<User>, StoreError> {
        let row = sql::query_as(BY_NAME).bind(name.as_str());
        let row = row.fetch_optional(self.reads()).await?;
        self.with_roles(row).await
    }

    /// Returns the user that a text from outside names: of what cannot be a name, none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn user_of(&self, text: &str) -> Result<Option<User>, StoreError> {
        match UserName::new(text) {
            Ok(name) => self.user(&name).await,
            Err(_) => Ok(None),
        }
    }

    /// Returns all users by name, with their keys and principals.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn users(&self) -> Result<Vec<UserRow>, StoreError> {
        // A transaction, so that all tables are of one moment.
        let mut read = self.reads().snapshot().await?;
        all(&mut read).await
    }

    async fn with_roles(&self, row: Option<Head>) -> Result<Option<User>, StoreError> {
        let Some(head) = row else { return Ok(None) };
        let roles = sql::query_scalar(ROLES).bind(&head.1);
        let roles = roles.fetch_all(self.reads()).await?;
        user(head, roles).map(Some)
    }
}

/// Returns all users by name, as they are for this connection.
pub(crate) async fn all(from: &mut StoreConnection) -> Result<Vec<UserRow>, StoreError> {
    let heads: Vec<(i64, String, i64, bool, Option<String>)> =
        sql::query_as(ALL).fetch_all(&mut *from).await?;
    let mut roles = lists(sql::query_as(ALL_ROLES).fetch_all(&mut *from).await?);
    let mut principals = lists(sql::query_as(ALL_PRINCIPALS).fetch_all(&mut *from).await?);
    let keys: Vec<(String, String, String, String)> =
        sql::query_as(ALL_KEYS).fetch_all(&mut *from).await?;
    let key = |(user, fingerprint, public_key, comment)| {
        let key = UserKey {
            fingerprint,
            public_key,
            comment,
        };
        (user, key)
    };
    let mut keys = lists(keys.into_iter().map(key).collect());
    let row = |(id, name, created, disabled, email): (i64, String, i64, bool, Option<String>)| {
        Ok(UserRow {
            created: Timestamp(created),
            keys: keys.remove(&name).unwrap_or_default(),
            principals: principals.remove(&name).unwrap_or_default(),
            user: {
                let roles = roles.remove(&name).unwrap_or_default();
                user((id, name, disabled, email), roles)?
            },
        })
    };
    heads.into_iter().map(row).collect()
}

pub(super) fn user(
    (id, name, disabled, email): Head,
    roles: Vec<String>,
) -> Result<User, StoreError> {
    Ok(User {
        id: UserId(id),
        name: UserName::new(&name).map_err(|_| StoreError::Corrupt("a user's name"))?,
        email,
        roles,
        disabled,
    })
}

/// Returns what belongs to each user, in the order in which it came.
fn lists<T>(rows: Vec<(String, T)>) -> BTreeMap<String, Vec<T>> {
    let mut lists: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for (user, thing) in rows {
        lists.entry(user).or_default().push(thing);
    }
    lists
}
