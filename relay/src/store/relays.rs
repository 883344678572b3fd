//! Runs of relay processes, and whether they still live.

use std::time::Duration;

use super::{Store, StoreError, Tx};
use crate::clock::Timestamp;
use crate::state::random_bytes;
use crate::store::backend::sql;

/// A relay without a heartbeat for so long is dead, and so are its tunnels. Heartbeats come every few
/// seconds; one may be late on a busy disk.
pub(crate) const RELAY_HEARTBEAT_STALE: Duration = Duration::from_secs(10);

/// One run of one relay process: a restart is another one, so that the tunnels of a run that was
/// killed never look alive because its successor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RelayId(pub [u8; 16]);

const BEAT: &str = "INSERT INTO relays (id, heartbeat) VALUES ($1, $2)
    ON CONFLICT (id) DO UPDATE SET heartbeat = excluded.heartbeat, stopped = NULL";
const STOP: &str = "UPDATE relays SET stopped = $2 WHERE id = $1";
const CLOSE_TUNNELS: &str =
    "UPDATE tunnels SET closed = $2, connection_id = NULL WHERE relay = $1 AND closed IS NULL";
// The later of the two: the run lived at its last heartbeat, and when it last heard the device.
const CLOSE_OTHERS: &str = "UPDATE tunnels SET closed = COALESCE(
        (SELECT r.heartbeat FROM relays r WHERE r.id = tunnels.relay AND r.heartbeat > last_heard),
        last_heard)
    WHERE relay <> $1 AND closed IS NULL";
// Their leases and live sessions go with them.
const FORGET_OTHERS: &str = "DELETE FROM relays WHERE id <> $1";
const END_LEASES: &str = "DELETE FROM leases WHERE relay = $1";
const END_SESSIONS: &str = "DELETE FROM sessions WHERE relay = $1";
const SEEN: &str = "UPDATE relays SET seen = $2 WHERE id = $1 AND seen < $2";
// A heartbeat from the future is a clock that was set back, and no sign of life.
const BEHIND: &str = "SELECT COUNT(*) FROM relays
    WHERE stopped IS NULL AND heartbeat BETWEEN $2 AND $3 AND seen < $1";

const LIVING: &str = "SELECT EXISTS (SELECT 1 FROM relays
    WHERE stopped IS NULL AND heartbeat BETWEEN $1 AND $2)";

const NOTE_REFUSALS: &str = "UPDATE relays
    SET refused_connections = $2, refused_sessions = $3, refused_channels = $4 WHERE id = $1";
const REFUSALS: &str = "SELECT CAST(COALESCE(SUM(refused_connections), 0) AS BIGINT),
    CAST(COALESCE(SUM(refused_sessions), 0) AS BIGINT),
    CAST(COALESCE(SUM(refused_channels), 0) AS BIGINT) FROM relays WHERE stopped IS NULL";

impl RelayId {
    /// Creates a new one, for a process that starts.
    ///
    /// # Errors
    /// [`StoreError::Random`] if the system gives no random numbers.
    pub(crate) fn random() -> Result<Self, StoreError> {
        random_bytes().map(Self).map_err(|_| StoreError::Random)
    }
}

impl Store {
    /// Returns how often quotas have refused since the relays that run now began: connections, sessions, channels.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn refusals(&self) -> Result<[i64; 3], StoreError> {
        let counts = sql::query_as(REFUSALS).fetch_one(self.reads()).await?;
        let (connections, sessions, channels) = counts;
        Ok([connections, sessions, channels])
    }

    /// Checks whether a relay serves on this store, as far as its heartbeats tell.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn relay_serves(&self, now: Timestamp) -> Result<bool, StoreError> {
        let living = sql::query_scalar(LIVING)
            .bind(now.before(RELAY_HEARTBEAT_STALE).0)
            .bind(now.after(RELAY_HEARTBEAT_STALE).0);
        living.fetch_one(self.reads()).await
    }

    /// Returns the number of living relays that have not acted on this version of access yet.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn relays_behind(
        &self,
        version: i64,
        now: Timestamp,
    ) -> Result<u32, StoreError> {
        let behind: i64 = sql::query_scalar(BEHIND)
            .bind(version)
            .bind(now.before(RELAY_HEARTBEAT_STALE).0)
            .bind(now.after(RELAY_HEARTBEAT_STALE).0)
            .fetch_one(self.reads())
            .await?;
        Ok(u32::try_from(behind).unwrap_or(u32::MAX))
    }
}

impl Tx {
    /// Says that this run begins and that all earlier ones are over: the state's lock, which the caller
    /// holds, proves it. Their tunnels count as closed when they were last heard of.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn relay_started(
        &mut self,
        relay: RelayId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for sql in [CLOSE_OTHERS, FORGET_OTHERS] {
            let query = sql::query(sql).bind(relay.0.as_slice());
            query.execute(&mut *self.connection().await?).await?;
        }
        let beat = sql::query(BEAT).bind(relay.0.as_slice()).bind(now.0);
        beat.execute(&mut *self.connection().await?).await?;
        Ok(())
    }

    /// Notes that a run lives: call it every few seconds, well within [`RELAY_HEARTBEAT_STALE`].
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn heartbeat(
        &mut self,
        relay: RelayId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let beat = sql::query(BEAT).bind(relay.0.as_slice()).bind(now.0);
        beat.execute(&mut *self.connection().await?).await?;
        Ok(())
    }

    /// Returns how often this run's quotas have refused so far: connections, sessions, channels.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn note_refusals(
        &mut self,
        relay: RelayId,
        counts: [u64; 3],
    ) -> Result<(), StoreError> {
        let mut note = sql::query(NOTE_REFUSALS).bind(relay.0.as_slice());
        for count in counts {
            note = note.bind(i64::try_from(count).unwrap_or(i64::MAX));
        }
        note.execute(&mut *self.connection().await?).await?;
        Ok(())
    }

    /// Notes that the run ends: all its tunnels are closed from `now` on.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn relay_stopped(
        &mut self,
        relay: RelayId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for sql in [STOP, CLOSE_TUNNELS] {
            let query = sql::query(sql).bind(relay.0.as_slice()).bind(now.0);
            query.execute(&mut *self.connection().await?).await?;
        }
        for sql in [END_LEASES, END_SESSIONS] {
            let query = sql::query(sql).bind(relay.0.as_slice());
            query.execute(&mut *self.connection().await?).await?;
        }
        Ok(())
    }

    /// Notes that this run has acted on everything up to this version of access: what was taken away reaches nothing
    /// through it any more.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn relay_confirms(
        &mut self,
        relay: RelayId,
        version: i64,
    ) -> Result<(), StoreError> {
        let seen = sql::query(SEEN).bind(relay.0.as_slice()).bind(version);
        seen.execute(&mut *self.connection().await?).await?;
        Ok(())
    }
}
