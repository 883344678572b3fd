//! Locks, and requests to end a session.

use holdfast_protocol::ids::{DeviceId, Login, SessionId, UserName};
use thiserror::Error;

use crate::clock::Timestamp;
use crate::model::lock::{Lock, LockTarget, network};
use crate::model::role::RoleName;
use crate::store::backend::connection::StoreConnection;
use crate::store::backend::sql;
use crate::store::limits::MAX_LOCKS;
use crate::store::meta::AccessPart;
use crate::store::{RelayId, Store, StoreError, Tx};

/// The fields of a new lock.
#[derive(Clone, Debug)]
pub(crate) struct NewLock {
    /// The subject that it shuts out.
    pub target: LockTarget,
    /// The reason; may be empty.
    pub message: String,
    /// The user who makes it; `None`: a command at the relay itself.
    pub by: Option<UserName>,
    /// The expiry time.
    pub expires: Option<Timestamp>,
}

/// The reason why a lock was not made.
#[derive(Debug, Error)]
pub(crate) enum LockError {
    /// There are too many.
    #[error(
        "there are {MAX_LOCKS} locks, which is the maximum: remove some (`relay lock ls`), or lock a role or a network"
    )]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A session that is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    /// The session.
    pub session: SessionId,
    /// The reason; may be empty.
    pub message: String,
    /// The user who wants it; `None`: a command at the relay itself.
    pub by: Option<UserName>,
}

const FORGET_EXPIRED: &str = "DELETE FROM locks WHERE expires <= $1";
const COUNT: &str = "SELECT COUNT(*) FROM locks";
const ADD: &str = "INSERT INTO locks (target, value, message, by_user, created, expires)
    VALUES ($1, $2, $3, $4, $5, $6) RETURNING id";
const ALL: &str =
    "SELECT id, target, value, message, by_user, created, expires FROM locks ORDER BY id";
const VALID: &str = "SELECT id, target, value, message, by_user, created, expires FROM locks
    WHERE expires IS NULL OR expires > $1 ORDER BY id";
const REMOVE: &str = "DELETE FROM locks WHERE id = $1";
const KILL: &str = "INSERT INTO kills (session, message, by_user)
    SELECT id, $2, $3 FROM sessions WHERE id = $1
    ON CONFLICT (session) DO NOTHING";
const KILL_STREAM: &str = "UPDATE console_streams SET killed = 1, message = $2, by_user = $3
    WHERE id = $1 AND killed = 0";
const KILLS: &str = "SELECT k.session, k.message, k.by_user FROM kills k
    JOIN sessions s ON s.id = k.session WHERE s.relay = $1
    UNION ALL SELECT id, message, by_user FROM console_streams WHERE relay = $1 AND killed = 1";

impl Store {
    /// Returns the locks that stand, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn locks(&self, now: Timestamp) -> Result<Vec<Lock>, StoreError> {
        let rows: Vec<Row> = sql::query_as(VALID)
            .bind(now.0)
            .fetch_all(self.reads())
            .await?;
        rows.into_iter().map(lock).collect()
    }

    /// Returns the sessions of this run that are to end.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn kills(&self, relay: RelayId) -> Result<Vec<Kill>, StoreError> {
        let rows: Vec<(Vec<u8>, String, Option<String>)> = sql::query_as(KILLS)
            .bind(relay.0.as_slice())
            .fetch_all(self.reads())
            .await?;
        let kill = |(session, message, by): (Vec<u8>, String, Option<String>)| {
            let id = session.try_into();
            Ok(Kill {
                session: SessionId(id.map_err(|_| StoreError::Corrupt("a session's id"))?),
                message,
                by: user(by)?,
            })
        };
        rows.into_iter().map(kill).collect()
    }
}

impl Tx {
    /// Makes a lock and gives its number. It survives a power cut.
    ///
    /// # Errors
    /// [`LockError`].
    pub(crate) async fn add_lock(
        &mut self,
        new: NewLock,
        now: Timestamp,
    ) -> Result<i64, LockError> {
        let forget = sql::query(FORGET_EXPIRED).bind(now.0);
        forget.execute(&mut *self.connection().await?).await?;
        let count: i64 = sql::query_scalar(COUNT)
            .fetch_one(&mut *self.connection().await?)
            .await?;
        if count >= i64::from(MAX_LOCKS) {
            return Err(LockError::TooMany);
        }
        let id: i64 = sql::query_scalar(ADD)
            .bind(new.target.kind())
            .bind(new.target.value())
            .bind(new.message)
            .bind(new.by.as_ref().map(UserName::as_str))
            .bind(now.0)
            .bind(new.expires.map(|time| time.0))
            .fetch_one(&mut *self.connection().await?)
            .await?;
        self.fact("lock", id);
        self.fact("expires", new.expires.map(Timestamp::rfc3339));
        self.access_changed(AccessPart::Other).await?;
        Ok(id)
    }

    /// Removes a lock; says whether there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn remove_lock(&mut self, id: i64) -> Result<bool, StoreError> {
        let remove = sql::query(REMOVE).bind(id);
        let removed = remove
            .execute(&mut *self.connection().await?)
            .await?
            .rows_affected()
            > 0;
        if !removed {
            self.unchanged();
        }
        self.access_changed(AccessPart::Other).await?;
        Ok(removed)
    }

    /// Asks the relay that runs a session to end it; false if there is no such session any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn kill_session(&mut self, kill: &Kill) -> Result<bool, StoreError> {
        let query = sql::query(KILL)
            .bind(kill.session.0.as_slice())
            .bind(&kill.message)
            .bind(kill.by.as_ref().map(UserName::as_str));
        let mut asked = query
            .execute(&mut *self.connection().await?)
            .await?
            .rows_affected()
            > 0;
        let query = sql::query(KILL_STREAM)
            .bind(kill.session.0.as_slice())
            .bind(&kill.message)
            .bind(kill.by.as_ref().map(UserName::as_str));
        asked |= query
            .execute(&mut *self.connection().await?)
            .await?
            .rows_affected()
            > 0;
        self.access_changed(AccessPart::Other).await?;
        Ok(asked)
    }
}

/// Reads all locks, those that have expired too, inside a transaction.
pub(super) async fn all(read: &mut StoreConnection) -> Result<Vec<Lock>, StoreError> {
    let rows: Vec<Row> = sql::query_as(ALL).fetch_all(read).await?;
    rows.into_iter().map(lock).collect()
}

type Row = (
    i64,
    String,
    String,
    String,
    Option<String>,
    i64,
    Option<i64>,
);

fn lock((id, kind, value, message, by, created, expires): Row) -> Result<Lock, StoreError> {
    Ok(Lock {
        id,
        target: target(&kind, &value).ok_or(StoreError::Corrupt("a lock"))?,
        message,
        by: user(by)?,
        created: Timestamp(created),
        expires: expires.map(Timestamp),
    })
}

fn target(kind: &str, value: &str) -> Option<LockTarget> {
    match kind {
        "user" => UserName::new(value).ok().map(LockTarget::User),
        "role" => RoleName::new(value).ok().map(LockTarget::Role),
        "login" => Login::new(value).ok().map(LockTarget::Login),
        "device" => DeviceId::from_hex(value).map(LockTarget::Device),
        "address" => network(value).map(LockTarget::Address),
        _ => None,
    }
}

fn user(name: Option<String>) -> Result<Option<UserName>, StoreError> {
    let name = name.map(|name| UserName::new(&name)).transpose();
    name.map_err(|_| StoreError::Corrupt("a user's name"))
}
