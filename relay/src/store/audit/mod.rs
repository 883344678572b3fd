//! The audit log's rows: read in pages, and removed only when they are old.

use super::entry::{AuditEntry, AuditKey, append};
use super::meta::{AUDIT_FILE, of_member};
use super::{Durability, MemberId, Store, StoreError, Tx};
use crate::clock::Timestamp;
use crate::store::backend::sql::{self, Statement};

/// The last entry that the file of the log holds.
const WRITTEN: &str = "audit_written";
/// The name of the fact that [`Tx::probe_audit`] writes.
const PROBE: &str = "audit_probe";

/// A filter for entries: all that fit each condition that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuditFilter {
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// The user.
    pub user: Option<String>,
    /// A device's name.
    pub device: Option<String>,
    /// A device's identifier.
    pub device_id: Option<String>,
    /// An event's name.
    pub event: Option<String>,
    /// A session's identifier.
    pub session: Option<String>,
}

const SELECT: &str =
    "SELECT id, time, event, user_name, key, email, client, relay, device, device_id,
    device_address, login, session, outcome, reason, more FROM audit WHERE ";
const SESSIONS: &str = "SELECT DISTINCT session FROM audit
    WHERE session >= $1 AND session < $2 ORDER BY session LIMIT $3";
const HEAD: &str = "SELECT COALESCE(MAX(id), 0) FROM audit";
const ALLOW_REMOVAL: &str = "UPDATE meta SET value = $1 WHERE key = 'audit_removed_before'";
const OLD: &str = "SELECT COUNT(*), MIN(id), MAX(id), MIN(time), MAX(time) FROM
    (SELECT id, time FROM audit WHERE time < $1 AND id <= $2 ORDER BY time, id LIMIT $3) AS old";
const REMOVE: &str = "DELETE FROM audit WHERE id IN
    (SELECT id FROM audit WHERE time < $1 AND id <= $2 ORDER BY time, id LIMIT $3)";

/// The result of one pass of retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AuditRemoved {
    /// The number of entries.
    pub count: i64,
    /// The lowest and the highest id among them.
    pub ids: (i64, i64),
    /// The earliest and the latest time among them.
    pub times: (Timestamp, Timestamp),
}

impl Store {
    /// Returns the id of the newest entry; 0 for an empty log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn audit_head(&self) -> Result<i64, StoreError> {
        sql::query_scalar(HEAD).fetch_one(self.reads()).await
    }

    /// Returns at most `limit` entries behind `after` in the order of time, up to the id `head`, so that a reader
    /// of the whole log comes to an end.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn audit_page(
        &self,
        filter: &AuditFilter,
        after: AuditKey,
        head: i64,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let mut query = sql::query(SELECT);
        query.push("id <= ").push_bind(head);
        if after != AuditKey::START {
            query.push(" AND (time, id) > (").push_bind(after.0.0);
            query.push(", ").push_bind(after.1).push(")");
        }
        push_filter(&mut query, filter);
        query.push(" ORDER BY time, id LIMIT ").push_bind(limit);
        self.fetch(query).await
    }

    /// Returns the place before the newest `count` entries up to `head`: where to begin, to read just those.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn audit_newest(
        &self,
        filter: &AuditFilter,
        head: i64,
        count: u32,
    ) -> Result<AuditKey, StoreError> {
        let mut query = sql::query("SELECT time, id FROM audit WHERE ");
        query.push("id <= ").push_bind(head);
        push_filter(&mut query, filter);
        query.push(" ORDER BY time DESC, id DESC LIMIT 1 OFFSET ");
        query.push_bind(count);
        let place: Option<(i64, i64)> = query.select().fetch_optional(self.reads()).await?;
        Ok(place.map_or(AuditKey::START, |(time, id)| AuditKey(Timestamp(time), id)))
    }

    /// Returns at most `limit` entries with an id above `after`, in the order in which they were written: for who
    /// follows the log, because an entry may be written later than its time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn audit_after(
        &self,
        filter: &AuditFilter,
        after: i64,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let mut query = sql::query(SELECT);
        query.push("id > ").push_bind(after);
        push_filter(&mut query, filter);
        query.push(" ORDER BY id LIMIT ").push_bind(limit);
        self.fetch(query).await
    }

    /// Returns the identifiers that begin with these hexadecimal digits of at most `limit` sessions in the log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn audit_sessions(
        &self,
        digits: &str,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        // Behind all that begin so: `g` sorts behind every digit.
        let behind = format!("{digits}g");
        let query = sql::query_scalar(SESSIONS);
        let query = query.bind(digits).bind(behind).bind(limit);
        query.fetch_all(self.reads()).await
    }

    /// Returns the last entry that this member's file of the log holds; `None` if there never was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn audit_written(&self) -> Result<Option<i64>, StoreError> {
        self.audit_written_by(self.member).await
    }

    /// Returns the last entry that the files of all other members hold which have one; `None` if none of them has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn audit_written_by_others(&self) -> Result<Option<i64>, StoreError> {
        let members = self.members().await?.into_iter();
        let others = members.filter(|other| other.is_present() && other.id != self.member);
        let mut least = None;
        for other in others {
            let file = self.meta_get(&of_member(AUDIT_FILE, other.id)).await?;
            if file.is_some_and(|file| !file.is_empty()) {
                let written = self.audit_written_by(other.id).await?.unwrap_or(0);
                least = Some(least.map_or(written, |least: i64| least.min(written)));
            }
        }
        Ok(least)
    }

    async fn audit_written_by(&self, member: MemberId) -> Result<Option<i64>, StoreError> {
        let written = self.meta_get(&of_member(WRITTEN, member)).await?;
        let number = |text: String| text.parse().map_err(|_| StoreError::Corrupt(WRITTEN));
        written.map(number).transpose()
    }

    /// Notes the last entry that this member's file of the log holds, which may be lost with the power.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn set_audit_written(&self, id: i64) -> Result<(), StoreError> {
        let mut tx = self.begin(Durability::Process).await?;
        let key = of_member(WRITTEN, self.member);
        tx.meta_set(&key, &id.to_string()).await?;
        tx.commit().await
    }

    async fn fetch(&self, query: Statement) -> Result<Vec<AuditEntry>, StoreError> {
        let rows: Vec<Row> = query.select().fetch_all(self.reads()).await?;
        rows.into_iter().map(Row::entry).collect()
    }
}

impl Tx {
    /// Appends entries of their own, which describe no change, in their order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn append_audit(&mut self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        append(&mut *self.connection().await?, entries).await
    }

    /// Finds out whether the log can be written now: a write like an entry's, which the commit makes last.
    ///
    /// # Errors
    /// [`StoreError`]: why not.
    pub(crate) async fn probe_audit(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.meta_set(PROBE, &now.0.to_string()).await
    }

    /// Removes at most `limit` of the oldest entries from before `before` with ids up to `up_to`. The removal has to be
    /// in the log: [`Tx::audit`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn remove_old_audit(
        &mut self,
        before: Timestamp,
        up_to: i64,
        limit: u32,
    ) -> Result<Option<AuditRemoved>, StoreError> {
        let old = sql::query_as(OLD).bind(before.0).bind(up_to).bind(limit);
        let old: (i64, Option<i64>, Option<i64>, Option<i64>, Option<i64>) =
            old.fetch_one(&mut *self.connection().await?).await?;
        let (count, Some(low), Some(high), Some(earliest), Some(latest)) = old else {
            return Ok(None);
        };
        let allow = sql::query(ALLOW_REMOVAL).bind(before.0.to_string());
        allow.execute(&mut *self.connection().await?).await?;
        let remove = sql::query(REMOVE).bind(before.0).bind(up_to).bind(limit);
        remove.execute(&mut *self.connection().await?).await?;
        Ok(Some(AuditRemoved {
            count,
            ids: (low, high),
            times: (Timestamp(earliest), Timestamp(latest)),
        }))
    }
}

fn push_filter(query: &mut Statement, filter: &AuditFilter) {
    let equal = [
        (" AND session = ", &filter.session),
        (" AND device_id = ", &filter.device_id),
        (" AND device = ", &filter.device),
        (" AND user_name = ", &filter.user),
        (" AND event = ", &filter.event),
    ];
    for (condition, value) in equal {
        if let Some(value) = value {
            query.push(condition).push_bind(value.clone());
        }
    }
    if let Some(since) = filter.since {
        query.push(" AND time >= ").push_bind(since.0);
    }
    if let Some(until) = filter.until {
        query.push(" AND time < ").push_bind(until.0);
    }
}

/// An entry as it is in the table.
#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    time: i64,
    event: String,
    user_name: Option<String>,
    key: Option<String>,
    email: Option<String>,
    client: Option<String>,
    relay: Option<String>,
    device: Option<String>,
    device_id: Option<String>,
    device_address: Option<String>,
    login: Option<String>,
    session: Option<String>,
    outcome: String,
    reason: Option<String>,
    more: String,
}

impl Row {
    fn entry(self) -> Result<AuditEntry, StoreError> {
        let more = serde_json::from_str(&self.more);
        Ok(AuditEntry {
            id: self.id,
            time: Timestamp(self.time),
            event: self.event,
            user: self.user_name,
            key: self.key,
            email: self.email,
            client: self.client,
            relay: self.relay,
            device: self.device,
            device_id: self.device_id,
            device_address: self.device_address,
            login: self.login,
            session: self.session,
            outcome: self.outcome,
            reason: self.reason,
            more: more.map_err(|_| StoreError::Corrupt("an event's facts"))?,
        })
    }
}
