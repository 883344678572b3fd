//! Runs of relay processes, and whether they still live.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::state::random_bytes;
use crate::store::backend::sql;
use crate::store::{MemberId, Store, StoreError, Tx};

/// A relay without a heartbeat for so long is dead, and so are its tunnels. Heartbeats come every few
/// seconds; one may be late on a busy disk.
pub(crate) const RELAY_HEARTBEAT_STALE: Duration = Duration::from_secs(10);

/// The version of this program, as the other members see it.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One run of one relay process: a restart is another one, so that the tunnels of a run that was
/// killed never look alive because its successor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RelayId(pub [u8; 16]);

/// A run that was declared dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadRun {
    /// The run.
    pub run: RelayId,
    /// The name of the member whose run it was; empty if it is no member any more.
    pub member: String,
    /// Its last heartbeat.
    pub heartbeat: Timestamp,
}

const START: &str = "INSERT INTO relays (id, member, version, heartbeat) VALUES ($1, $2, $3, $4)";
// A run that has ended stays so.
const BEAT: &str = "UPDATE relays SET heartbeat = $2 WHERE id = $1 AND stopped IS NULL";
const CLOCK_OFFSET: &str = "UPDATE relays SET clock_offset = $2 WHERE id = $1";
const STALE: &str =
    "SELECT id FROM relays WHERE id <> $1 AND stopped IS NULL AND heartbeat < $2 ORDER BY id";
const STALE_RUNS: &str = "SELECT r.id, m.name, r.heartbeat
    FROM relays r LEFT JOIN members m ON m.id = r.member
    WHERE r.id <> $1 AND r.stopped IS NULL AND r.heartbeat < $2 ORDER BY r.id";
const LIVES: &str = "SELECT EXISTS (SELECT 1 FROM relays
    WHERE id = $1 AND stopped IS NULL AND heartbeat >= $2)";
const STOP: &str = "UPDATE relays SET stopped = $2 WHERE id = $1";
const CLOSE_TUNNELS: &str =
    "UPDATE tunnels SET closed = $2, connection_id = NULL WHERE relay = $1 AND closed IS NULL";
// The later of the two: the run lived at its last heartbeat, and when it last heard the device.
const CLOSE_OF_MEMBER: &str = "UPDATE tunnels SET closed = COALESCE(
        (SELECT r.heartbeat FROM relays r WHERE r.id = tunnels.relay AND r.heartbeat > last_heard),
        last_heard)
    WHERE member = $1 AND closed IS NULL";
const CLOSE_OF_RUN: &str = "UPDATE tunnels SET closed = COALESCE(
        (SELECT r.heartbeat FROM relays r WHERE r.id = tunnels.relay AND r.heartbeat > last_heard),
        last_heard)
    WHERE relay = $1 AND closed IS NULL";
// Their leases and live sessions go with them.
const FORGET_OF_MEMBER: &str = "DELETE FROM relays WHERE member = $1";
const FORGET_RUN: &str = "DELETE FROM relays WHERE id = $1";
const END_LEASES: &str = "DELETE FROM leases WHERE relay = $1";
const END_SESSIONS: &str = "DELETE FROM sessions WHERE relay = $1";
const SEEN: &str = "UPDATE relays SET seen = $2 WHERE id = $1 AND seen < $2";
// A heartbeat from the future is a clock that was set back, and no sign of life.
const BEHIND: &str = "SELECT COUNT(*) FROM relays
    WHERE stopped IS NULL AND heartbeat BETWEEN $2 AND $3 AND seen < $1";

const LIVING: &str = "SELECT EXISTS (SELECT 1 FROM relays
    WHERE member = $3 AND stopped IS NULL AND heartbeat BETWEEN $1 AND $2)";

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

    /// Checks whether a member serves, as far as its heartbeats tell.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn relay_serves(
        &self,
        member: MemberId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let living = sql::query_scalar(LIVING)
            .bind(now.before(RELAY_HEARTBEAT_STALE).0)
            .bind(now.after(RELAY_HEARTBEAT_STALE).0)
            .bind(member.0.as_slice());
        living.fetch_one(self.reads()).await
    }

    /// Returns whether a run other than `relay` has had no heartbeat for [`RELAY_HEARTBEAT_STALE`]. A cheap look before
    /// [`Tx::end_stale_runs`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn has_stale_runs(
        &self,
        relay: RelayId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let stale = sql::query_scalar(STALE).bind(relay.0.as_slice());
        let stale = stale.bind(now.before(RELAY_HEARTBEAT_STALE).0);
        let stale: Option<Vec<u8>> = stale.fetch_optional(self.reads()).await?;
        Ok(stale.is_some())
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
    /// Says that this run begins and that all earlier ones of the same member are over: the state's lock, which the
    /// caller holds, proves it. Their tunnels count as closed when they were last heard of.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn relay_started(
        &mut self,
        relay: RelayId,
        member: MemberId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for sql in [CLOSE_OF_MEMBER, FORGET_OF_MEMBER] {
            let query = sql::query(sql).bind(member.0.as_slice());
            query.execute(&mut *self.connection().await?).await?;
        }
        let start = sql::query(START).bind(relay.0.as_slice());
        let start = start.bind(member.0.as_slice()).bind(VERSION).bind(now.0);
        start.execute(&mut *self.connection().await?).await?;
        Ok(())
    }

    /// Declares the runs dead whose heartbeat has not come for [`RELAY_HEARTBEAT_STALE`], if `relay` itself lives: their
    /// tunnels are closed, and their leases and sessions end. Returns them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn end_stale_runs(
        &mut self,
        relay: RelayId,
        now: Timestamp,
    ) -> Result<Vec<DeadRun>, StoreError> {
        let fresh = now.before(RELAY_HEARTBEAT_STALE).0;
        let lives = sql::query_scalar(LIVES).bind(relay.0.as_slice());
        let lives = lives.bind(fresh);
        let lives: bool = lives.fetch_one(&mut *self.connection().await?).await?;
        if !lives {
            return Ok(Vec::new());
        }
        let stale = sql::query_as(STALE_RUNS).bind(relay.0.as_slice());
        let stale = stale.bind(fresh);
        let stale: Vec<(Vec<u8>, Option<String>, i64)> =
            stale.fetch_all(&mut *self.connection().await?).await?;
        let mut dead = Vec::new();
        for (run, member, heartbeat) in stale {
            for sql in [CLOSE_OF_RUN, FORGET_RUN] {
                let query = sql::query(sql).bind(run.as_slice());
                query.execute(&mut *self.connection().await?).await?;
            }
            dead.push(DeadRun {
                run: relay_id(run)?,
                member: member.unwrap_or_default(),
                heartbeat: Timestamp(heartbeat),
            });
        }
        Ok(dead)
    }

    /// Notes that a run lives: call it every few seconds, well within [`RELAY_HEARTBEAT_STALE`].
    ///
    /// # Errors
    /// [`StoreError::RunOver`] if it was declared dead, or has stopped: it must not go on.
    pub(crate) async fn heartbeat(
        &mut self,
        relay: RelayId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let beat = sql::query(BEAT).bind(relay.0.as_slice()).bind(now.0);
        let beat = beat.execute(&mut *self.connection().await?).await?;
        match beat.rows_affected() {
            0 => Err(StoreError::RunOver),
            _ => Ok(()),
        }
    }

    /// Notes by how many microseconds the clock of a run's machine is ahead of the store's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn note_clock_offset(
        &mut self,
        relay: RelayId,
        offset: i64,
    ) -> Result<(), StoreError> {
        let note = sql::query(CLOCK_OFFSET).bind(relay.0.as_slice());
        let note = note.bind(offset);
        note.execute(&mut *self.connection().await?).await?;
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

fn relay_id(column: Vec<u8>) -> Result<RelayId, StoreError> {
    let id = column.try_into().map(RelayId);
    id.map_err(|_| StoreError::Corrupt("a run of a relay"))
}
