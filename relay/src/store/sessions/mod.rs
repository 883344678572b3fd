//! Live sessions, as their relays publish them: for listings, and to find the relay that can end one.

pub(crate) mod console_streams;
pub(crate) mod facts;
pub(crate) mod leases;

use holdfast_protocol::ids::SessionId;

use super::{RELAY_HEARTBEAT_STALE, RelayId, Store, StoreError, Tx};
use crate::clock::Timestamp;
use crate::store::backend::sql;
use crate::store::sessions::console_streams::ConsoleRow;
use crate::store::sessions::facts::{FactsRow, SessionFacts};

/// A live session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionRow {
    /// The session's facts.
    pub session: SessionFacts,
    /// The traffic since its start.
    pub traffic: Traffic,
}

/// The traffic of a session, and the time of its operator's last activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Bytes from the operator.
    pub bytes_in: u64,
    /// Bytes to the operator.
    pub bytes_out: u64,
    /// The last activity that counts against the idle timeout.
    pub active: Timestamp,
}

/// The changes of a relay's live-session registry since it was published last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BoardChange {
    /// Sessions that began.
    pub begun: Vec<SessionRow>,
    /// Console streams that began.
    pub consoles: Vec<ConsoleRow>,
    /// Those of either whose traffic grew.
    pub moved: Vec<(SessionId, Traffic)>,
    /// Those of either that ended.
    pub ended: Vec<SessionId>,
}

const BEGIN: &str = "INSERT INTO sessions (id, relay, user_name, device, device_name, login, kind,
        command, client, started, user_id, active, bytes_in, bytes_out)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
const MOVE: &str = "UPDATE sessions SET active = $2, bytes_in = $3, bytes_out = $4 WHERE id = $1";
const END: &str = "DELETE FROM sessions WHERE id = $1";
const LIVE: &str =
    "SELECT s.id, s.relay, s.user_name, s.user_id, s.device, s.device_name, s.login, s.kind,
        s.command, s.client, s.started, s.active, s.bytes_in, s.bytes_out
    FROM sessions s JOIN relays r ON r.id = s.relay
    WHERE r.stopped IS NULL AND r.heartbeat > $1 ORDER BY s.started, s.id";

impl Store {
    /// Returns the live sessions of all living relays, oldest first, each with the run that has it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn sessions(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(RelayId, SessionRow)>, StoreError> {
        let rows: Vec<Row> = sql::query_as(LIVE)
            .bind(now.before(RELAY_HEARTBEAT_STALE).0)
            .fetch_all(self.reads())
            .await?;
        let corrupt = || StoreError::Corrupt("a session");
        rows.into_iter()
            .map(|row| row.read().ok_or_else(corrupt))
            .collect()
    }
}

impl Tx {
    /// Publishes what changed in this run's registry, in one transaction.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was published.
    pub(crate) async fn publish_sessions(
        &mut self,
        relay: RelayId,
        change: &BoardChange,
    ) -> Result<(), StoreError> {
        for row in &change.begun {
            let begin = row.session.bind(sql::query(BEGIN), relay);
            begin
                .bind(row.traffic.active.0)
                .bind(column(row.traffic.bytes_in))
                .bind(column(row.traffic.bytes_out))
                .execute(&mut *self.connection().await?)
                .await?;
        }
        for row in &change.consoles {
            console_streams::begin(self, relay, row).await?;
        }
        for (id, traffic) in &change.moved {
            console_streams::moved(self, *id, *traffic).await?;
            sql::query(MOVE)
                .bind(id.0.as_slice())
                .bind(traffic.active.0)
                .bind(column(traffic.bytes_in))
                .bind(column(traffic.bytes_out))
                .execute(&mut *self.connection().await?)
                .await?;
        }
        for id in &change.ended {
            console_streams::end(self, *id).await?;
            let end = sql::query(END).bind(id.0.as_slice());
            end.execute(&mut *self.connection().await?).await?;
        }
        Ok(())
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    #[sqlx(flatten)]
    session: FactsRow,
    relay: Vec<u8>,
    active: i64,
    bytes_in: i64,
    bytes_out: i64,
}

impl Row {
    fn read(self) -> Option<(RelayId, SessionRow)> {
        let row = SessionRow {
            session: self.session.read()?,
            traffic: Traffic {
                bytes_in: u64::try_from(self.bytes_in).ok()?,
                bytes_out: u64::try_from(self.bytes_out).ok()?,
                active: Timestamp(self.active),
            },
        };
        Some((RelayId(self.relay.try_into().ok()?), row))
    }
}

pub(super) fn column(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
