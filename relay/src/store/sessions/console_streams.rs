//! Console commands that stream, as their relays publish them.

use std::net::SocketAddr;

use holdfast_protocol::ids::{SessionId, UserName};

use crate::clock::Timestamp;
use crate::store::backend::sql;
use crate::store::sessions::column;
use crate::store::{RELAY_HEARTBEAT_STALE, RelayId, Store, StoreError, Traffic, Tx, UserId};

/// A console command that streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConsoleRow {
    /// Its identifier.
    pub id: SessionId,
    /// The user who runs it.
    pub user: UserName,
    /// The id of that user; `None`: that name belongs to another user now, or to none.
    pub user_id: Option<UserId>,
    /// The beginning of its line: from outside, so escape it.
    pub command: String,
    /// The operator's address.
    pub client: SocketAddr,
    /// The time of its start.
    pub started: Timestamp,
    /// The traffic since then.
    pub traffic: Traffic,
}

const BEGIN: &str = "INSERT INTO console_streams
        (id, relay, user_name, command, client, started, active, bytes_in, bytes_out)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
const MOVE: &str =
    "UPDATE console_streams SET active = $2, bytes_in = $3, bytes_out = $4 WHERE id = $1";
const END: &str = "DELETE FROM console_streams WHERE id = $1";
// A stream that is older than the user of its name belongs to the user who had the name before.
const LIVE: &str =
    "SELECT s.id, s.relay, s.user_name, u.id AS user_id, s.command, s.client, s.started, s.active,
        s.bytes_in, s.bytes_out
    FROM console_streams s JOIN relays r ON r.id = s.relay
    LEFT JOIN users u ON u.name = s.user_name AND u.created <= s.started
    WHERE r.stopped IS NULL AND r.heartbeat > $1 ORDER BY s.started, s.id";

/// Publishes one that began.
pub(crate) async fn begin(tx: &mut Tx, relay: RelayId, row: &ConsoleRow) -> Result<(), StoreError> {
    let begin = sql::query(BEGIN)
        .bind(row.id.0.as_slice())
        .bind(relay.0.as_slice())
        .bind(row.user.as_str())
        .bind(&row.command)
        .bind(row.client.to_string())
        .bind(row.started.0)
        .bind(row.traffic.active.0)
        .bind(column(row.traffic.bytes_in))
        .bind(column(row.traffic.bytes_out));
    begin.execute(&mut *tx.connection().await?).await?;
    Ok(())
}

/// Publishes what moved through one.
pub(crate) async fn moved(tx: &mut Tx, id: SessionId, traffic: Traffic) -> Result<(), StoreError> {
    let moved = sql::query(MOVE)
        .bind(id.0.as_slice())
        .bind(traffic.active.0)
        .bind(column(traffic.bytes_in))
        .bind(column(traffic.bytes_out));
    moved.execute(&mut *tx.connection().await?).await?;
    Ok(())
}

/// Publishes the end of one.
pub(crate) async fn end(tx: &mut Tx, id: SessionId) -> Result<(), StoreError> {
    let end = sql::query(END).bind(id.0.as_slice());
    end.execute(&mut *tx.connection().await?).await?;
    Ok(())
}

impl Store {
    /// Returns the console streams of all living relays, oldest first, each with the run that has it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn console_streams(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(RelayId, ConsoleRow)>, StoreError> {
        let rows: Vec<Row> = sql::query_as(LIVE)
            .bind(now.before(RELAY_HEARTBEAT_STALE).0)
            .fetch_all(self.reads())
            .await?;
        let corrupt = || StoreError::Corrupt("a console stream");
        rows.into_iter()
            .map(|row| row.read().ok_or_else(corrupt))
            .collect()
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Vec<u8>,
    relay: Vec<u8>,
    user_name: String,
    user_id: Option<i64>,
    command: String,
    client: String,
    started: i64,
    active: i64,
    bytes_in: i64,
    bytes_out: i64,
}

impl Row {
    fn read(self) -> Option<(RelayId, ConsoleRow)> {
        let row = ConsoleRow {
            id: SessionId(self.id.try_into().ok()?),
            user: UserName::new(&self.user_name).ok()?,
            user_id: self.user_id.map(UserId),
            command: self.command,
            client: self.client.parse().ok()?,
            started: Timestamp(self.started),
            traffic: Traffic {
                bytes_in: u64::try_from(self.bytes_in).ok()?,
                bytes_out: u64::try_from(self.bytes_out).ok()?,
                active: Timestamp(self.active),
            },
        };
        Some((RelayId(self.relay.try_into().ok()?), row))
    }
}
