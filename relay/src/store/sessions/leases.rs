//! Slots of quotas that are in use: counted and taken in one transaction.

use std::num::NonZeroU32;

use holdfast_protocol::ids::UserName;

use crate::clock::Timestamp;
use crate::model::quota::{Full, Quota};
use crate::store::backend::sql;
use crate::store::{RELAY_HEARTBEAT_STALE, RelayId, Store, StoreError, Tx};

/// One slot, held by a run of a relay under a number of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaseRow {
    /// The relay run that holds it.
    pub relay: RelayId,
    /// The number that the run has for it.
    pub number: i64,
    /// The quota.
    pub quota: Quota,
    /// The user.
    pub user: UserName,
}

/// The number of slots a user has in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InUse {
    /// Connections.
    pub connections: u32,
    /// Sessions.
    pub sessions: u32,
}

const TAKE: &str = "INSERT INTO leases (relay, number, kind, user_name, taken)
    VALUES ($1, $2, $3, $4, $5)";
// The count and the slot in one statement. Leases of a run count until it is noted that it ended, however late its
// heartbeat is: where the store was away, all are late, and none has ended. The limit bounds the count: whether there are a million more makes no
// difference.
const TAKE_WITHIN: &str = "INSERT INTO leases (relay, number, kind, user_name, taken)
    SELECT $1, $2, $3, $4, $5 WHERE $6 > (SELECT COUNT(*) FROM (SELECT 1 FROM leases l
        JOIN relays r ON r.id = l.relay
    WHERE l.user_name = $4 AND l.kind = $3 AND r.stopped IS NULL LIMIT $6) AS taken)";
const RELEASE: &str = "DELETE FROM leases WHERE relay = $1 AND number = $2";
const IN_USE: &str = "SELECT l.kind, COUNT(*) FROM leases l JOIN relays r ON r.id = l.relay
    WHERE l.user_name = $1 AND r.stopped IS NULL AND r.heartbeat > $2 GROUP BY l.kind";

impl Store {
    /// Returns what a user has in use on all living relays.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn leases_in_use(
        &self,
        user: &UserName,
        now: Timestamp,
    ) -> Result<InUse, StoreError> {
        let rows: Vec<(String, i64)> = sql::query_as(IN_USE)
            .bind(user.as_str())
            .bind(now.before(RELAY_HEARTBEAT_STALE).0)
            .fetch_all(self.reads())
            .await?;
        let of = |quota: Quota| {
            let row = rows.iter().find(|(kind, _)| kind == word(quota));
            row.map_or(0, |(_, count)| u32::try_from(*count).unwrap_or(u32::MAX))
        };
        Ok(InUse {
            connections: of(Quota::Connections),
            sessions: of(Quota::Sessions),
        })
    }
}

impl Tx {
    /// Takes a slot if the limit admits one more. The outer result is the store's, the inner one the rule's.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::RunOver`] if the run was declared dead, and has not noticed it yet.
    pub(crate) async fn take_lease(
        &mut self,
        lease: &LeaseRow,
        limit: Option<NonZeroU32>,
        now: Timestamp,
    ) -> Result<Result<(), Full>, StoreError> {
        let max = limit.map(|max| i64::from(max.get()));
        let take = sql::query(if max.is_some() { TAKE_WITHIN } else { TAKE })
            .bind(lease.relay.0.as_slice())
            .bind(lease.number)
            .bind(word(lease.quota))
            .bind(lease.user.as_str())
            .bind(now.0);
        let take = match max {
            Some(max) => take.bind(max),
            None => take,
        };
        let taken = take.execute(&mut *self.connection().await?).await;
        let taken = taken.map_err(of_a_run)?.rows_affected() > 0;
        // With a limit, nothing was inserted exactly if as many are in use.
        if !taken && let Err(full) = lease.quota.admit(limit, u32::MAX, &lease.user) {
            return Ok(Err(full));
        }
        Ok(Ok(()))
    }

    /// Gives slots back, all in one transaction. One that is not there is no error.
    ///
    /// # Errors
    /// [`StoreError`]; then none was given back.
    pub(crate) async fn release_leases(
        &mut self,
        relay: RelayId,
        numbers: impl IntoIterator<Item = i64> + Send,
    ) -> Result<(), StoreError> {
        let numbers: Vec<i64> = numbers.into_iter().collect();
        for number in numbers {
            let release = sql::query(RELEASE).bind(relay.0.as_slice()).bind(number);
            release.execute(&mut *self.connection().await?).await?;
        }
        Ok(())
    }
}

/// Returns an error of a row that belongs to a run: without the run there is no such row.
fn of_a_run(error: StoreError) -> StoreError {
    match &error {
        StoreError::Database(sqlx::Error::Database(why)) if why.is_foreign_key_violation() => {
            StoreError::RunOver
        }
        _ => error,
    }
}

/// Returns the column's word. Channels of one connection are counted where the connection is.
const fn word(quota: Quota) -> &'static str {
    match quota {
        Quota::Connections => "connection",
        Quota::Sessions => "session",
        Quota::Channels => "channel",
    }
}
