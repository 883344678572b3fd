//! An entry of the audit log as the store keeps it, and how a transaction appends it.

use serde_json::{Map, Value};

use super::StoreError;
use crate::clock::Timestamp;
use crate::store::backend::connection::StoreConnection;
use crate::store::backend::sql;

const APPEND: &str = "INSERT INTO audit (time, event, user_name, key, email, client, relay, device,
        device_id, device_address, login, session, outcome, reason, more)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AuditEntry {
    /// Its place in the log; 0 before it has one.
    pub id: i64,
    /// The time at which it happened.
    pub time: Timestamp,
    /// The name of an `EventKind`, possibly of another version.
    pub event: String,
    /// The user.
    pub user: Option<String>,
    /// The fingerprint of the key that proved it.
    pub key: Option<String>,
    /// The e-mail address, if it is known.
    pub email: Option<String>,
    /// The client's address.
    pub client: Option<String>,
    /// The relay that tells it.
    pub relay: Option<String>,
    /// The device's name then.
    pub device: Option<String>,
    /// Its identifier.
    pub device_id: Option<String>,
    /// Its own address.
    pub device_address: Option<String>,
    /// The account there.
    pub login: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// The outcome.
    pub outcome: String,
    /// The reason.
    pub reason: Option<String>,
    /// The attributes that the event adds.
    pub more: Map<String, Value>,
}

/// A position in the log in the order of time: the entry before the next page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AuditKey(pub Timestamp, pub i64);

impl AuditKey {
    /// Before everything.
    pub(crate) const START: Self = Self(Timestamp(i64::MIN), i64::MIN);
}

impl AuditEntry {
    /// Returns its place.
    #[must_use]
    pub(crate) fn key(&self) -> AuditKey {
        AuditKey(self.time, self.id)
    }
}

/// Appends entries within a transaction.
pub(super) async fn append(
    write: &mut StoreConnection,
    entries: &[AuditEntry],
) -> Result<(), StoreError> {
    for entry in entries {
        let more = serde_json::to_string(&entry.more);
        sql::query(APPEND)
            .bind(entry.time.0)
            .bind(&entry.event)
            .bind(&entry.user)
            .bind(&entry.key)
            .bind(&entry.email)
            .bind(&entry.client)
            .bind(&entry.relay)
            .bind(&entry.device)
            .bind(&entry.device_id)
            .bind(&entry.device_address)
            .bind(&entry.login)
            .bind(&entry.session)
            .bind(&entry.outcome)
            .bind(&entry.reason)
            .bind(more.map_err(|_| StoreError::Corrupt("an event's facts"))?)
            .execute(&mut *write)
            .await?;
    }
    Ok(())
}
