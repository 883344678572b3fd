//! Reads recordings: for listings, for work that goes on with one, and for what is to be done.

use holdfast_protocol::ids::{DeviceId, SessionId};
use holdfast_protocol::limits::MAX_SEGMENTS;
use holdfast_protocol::recording::chain::{ChainKey, SeenForwards};
use holdfast_protocol::recording::ingest::MISSING_SEGMENT;

use super::facts::{RecordingFacts, RecordingRow};
use super::rows::{Row, Whole};
use super::{RecordingState, corrupt, unpacked};
use crate::clock::Timestamp;
use crate::model::role::Ability;
use crate::store::backend::sql;
use crate::store::limits::MAX_AMBIGUOUS;
use crate::store::{RelayId, Store, StoreError, UserId};

/// The filter of a listing.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordingFilter {
    /// Those of this user.
    pub user: Option<String>,
    /// Those of this user, who may see no others.
    pub own: Option<UserId>,
    /// Those on the device that had this name then, or that has this identifier.
    pub device: Option<String>,
    /// Begun at or after.
    pub since: Option<Timestamp>,
    /// Those in this state.
    pub state: Option<RecordingState>,
    /// Those of this kind.
    pub kind: Option<Ability>,
    /// Only with a terminal.
    pub interactive: bool,
}

const COLUMNS: &str = "SELECT r.id, r.user_name, r.user_id, r.device, r.device_name, r.login, r.kind, r.command,
        r.client, r.started, r.ended, r.state, r.reason, r.offered, r.verified, r.verdict, r.signature,
        r.hold_since, r.hold_by, r.hold_reason, COALESCE(r.terminal, r.kind = 'shell') AS terminal,
        (SELECT m.name FROM members m WHERE m.id = r.member) AS relay,
        (SELECT CAST(COALESCE(SUM(s.length), 0) AS BIGINT) FROM recording_segments s
            WHERE s.recording = r.id) AS bytes";
const REST: &str = ", r.refused, r.expected, r.chain_key, r.seen, r.report, r.begun, r.control,
        r.closing, r.unfollowed, r.booked, r.forwards, r.content, r.files";
const FROM: &str = " FROM recordings r WHERE ";
const SEGMENTS: &str = "SELECT segment, length, hash FROM recording_segments WHERE recording = $1
    ORDER BY segment";
const FORWARDS: &str = "SELECT number, seen FROM recording_forwards WHERE recording = $1";
// A session that the device refused has left nothing, as a rule; what has left something is shown.
const SHOWN: &str = "(NOT r.refused OR EXISTS
        (SELECT 1 FROM recording_segments s WHERE s.recording = r.id))";
const RUNS_ELSEWHERE: &str = "SELECT EXISTS (SELECT 1 FROM recordings
    WHERE id = $1 AND ended IS NULL AND relay <> $2)";
const DUE: &str = "SELECT id FROM recordings WHERE chain_key IS NOT NULL AND ended IS NOT NULL
        AND (expected <= $1 OR state NOT IN ('recording', 'uploading') OR report IS NOT NULL)
    ORDER BY expected NULLS FIRST LIMIT $2";
// Of a device that is two machines, neither says what the other holds.
const EXPECTED: &str = "SELECT r.id FROM recordings r WHERE r.device = $1 AND r.started < $2
        AND r.state IN ('recording', 'uploading') AND r.chain_key IS NOT NULL AND NOT r.refused
        AND NOT EXISTS (SELECT 1 FROM devices d WHERE d.id = r.device AND d.cloned IS NOT NULL)
    ORDER BY r.started LIMIT $3";
const OLD: &str = "SELECT id FROM recordings WHERE started < $1 AND ended IS NOT NULL
        AND hold_since IS NULL
    ORDER BY started LIMIT $2";

// What was offered counts: a part of it may lie here.
const RECORDED_BYTES: &str = "SELECT sizes.device, CAST(
        SUM(CASE WHEN sizes.offered > sizes.stored THEN sizes.offered ELSE sizes.stored END) AS BIGINT)
    FROM (SELECT r.device, r.offered,
        (SELECT CAST(COALESCE(SUM(s.length), 0) AS BIGINT) FROM recording_segments s
            WHERE s.recording = r.id) AS stored
        FROM recordings r) AS sizes GROUP BY sizes.device";

impl Store {
    /// Returns the bytes that each device's recordings take.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recorded_bytes(&self) -> Result<Vec<(DeviceId, u64)>, StoreError> {
        let rows: Vec<(Vec<u8>, i64)> = sql::query_as(RECORDED_BYTES)
            .fetch_all(self.reads())
            .await?;
        let read = |(device, bytes): (Vec<u8>, i64)| {
            let device = device.try_into().map_err(|_| corrupt())?;
            Ok((DeviceId(device), u64::try_from(bytes).unwrap_or(0)))
        };
        rows.into_iter().map(read).collect()
    }

    /// Returns the recordings that `filter` picks, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recordings(
        &self,
        filter: &RecordingFilter,
    ) -> Result<Vec<RecordingRow>, StoreError> {
        self.picked(filter, None, None).await
    }

    /// Returns the same, but only the next so many behind `last`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recordings_page(
        &self,
        filter: &RecordingFilter,
        last: Option<&RecordingRow>,
        most: u32,
    ) -> Result<Vec<RecordingRow>, StoreError> {
        self.picked(filter, last, Some(most)).await
    }

    /// Returns the recordings whose id begins with these hexadecimal digits: no more than are named in a
    /// refusal, and one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recordings_named(
        &self,
        digits: &str,
        own: Option<UserId>,
    ) -> Result<Vec<RecordingRow>, StoreError> {
        let bound = |rest: &str| {
            let digits = format!(
                "{digits}{}",
                rest.repeat(32_usize.checked_sub(digits.len())?)
            );
            SessionId::from_hex(&digits)
        };
        let (Some(first), Some(last), false) = (bound("0"), bound("f"), digits.is_empty()) else {
            return Ok(Vec::new());
        };
        let mut query = sql::query(COLUMNS);
        query.push(FROM).push(SHOWN);
        query.push(" AND r.id BETWEEN ").push_bind(first.0.to_vec());
        query.push(" AND ").push_bind(last.0.to_vec());
        if let Some(own) = own {
            query.push(" AND r.user_id = ").push_bind(own.0);
        }
        query
            .push(" ORDER BY r.id LIMIT ")
            .push_bind(MAX_AMBIGUOUS + 1);
        let rows: Vec<Row> = query.select().fetch_all(self.reads()).await?;
        rows.into_iter().map(Row::read).collect()
    }

    async fn picked(
        &self,
        filter: &RecordingFilter,
        last: Option<&RecordingRow>,
        most: Option<u32>,
    ) -> Result<Vec<RecordingRow>, StoreError> {
        let mut query = sql::query(COLUMNS);
        query.push(FROM).push(SHOWN);
        if let Some(own) = filter.own {
            query.push(" AND r.user_id = ").push_bind(own.0);
        }
        if let Some(user) = &filter.user {
            query.push(" AND r.user_name = ").push_bind(user.clone());
        }
        if let Some(device) = &filter.device {
            query
                .push(" AND (r.device_name = ")
                .push_bind(device.clone());
            if let Some(id) = DeviceId::from_hex(device) {
                query.push(" OR r.device = ").push_bind(id.0.to_vec());
            }
            query.push(")");
        }
        if let Some(since) = filter.since {
            query.push(" AND r.started >= ").push_bind(since.0);
        }
        if let Some(state) = filter.state {
            query.push(" AND r.state = ").push_bind(state.as_str());
        }
        if let Some(kind) = filter.kind {
            query.push(" AND r.kind = ").push_bind(kind.as_str());
        }
        if filter.interactive {
            query.push(" AND COALESCE(r.terminal, r.kind = 'shell')");
        }
        if let Some(last) = last {
            query
                .push(" AND (r.started < ")
                .push_bind(last.session.started.0);
            query
                .push(" OR (r.started = ")
                .push_bind(last.session.started.0);
            query
                .push(" AND r.id > ")
                .push_bind(last.session.id.0.to_vec());
            query.push("))");
        }
        query.push(" ORDER BY r.started DESC, r.id");
        if let Some(most) = most {
            query.push(" LIMIT ").push_bind(i64::from(most));
        }
        let rows: Vec<Row> = query.select().fetch_all(self.reads()).await?;
        rows.into_iter().map(Row::read).collect()
    }

    /// Returns one recording, with all that the relay needs to go on with it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recording(
        &self,
        id: SessionId,
    ) -> Result<Option<RecordingFacts>, StoreError> {
        let mut query = sql::query(COLUMNS);
        query.push(REST).push(FROM).push("r.id = ");
        query.push_bind(id.0.to_vec());
        let query = query.select();
        let Some(Whole { row, rest }) = query.fetch_optional(self.reads()).await? else {
            return Ok(None);
        };
        let segments = sql::query_as(SEGMENTS).bind(id.0.as_slice());
        let rows: Vec<(i64, i64, Vec<u8>)> = segments.fetch_all(self.reads()).await?;
        let mut segments = Vec::new();
        for (segment, length, hash) in rows {
            let segment = u32::try_from(segment).ok().filter(|at| *at < MAX_SEGMENTS);
            let place = usize::try_from(segment.ok_or_else(corrupt)?).map_err(|_| corrupt())?;
            segments.resize(place, MISSING_SEGMENT);
            let length = u64::try_from(length).map_err(|_| corrupt())?;
            segments.push((length, unpacked(&hash)?));
        }
        let forwards = match rest.forwards {
            Some(given) if row.session.is_of_forwards() && rest.chain_key.is_some() => {
                let given = rest.closing.is_some().then_some(given);
                Some(self.forwards_of(id, given).await?)
            }
            _ => None,
        };
        let key = rest.chain_key.map(|key| key.try_into().map(ChainKey));
        Ok(Some(RecordingFacts {
            row: row.read()?,
            segments,
            report: rest.report.as_deref().map(unpacked).transpose()?,
            key: key.transpose().map_err(|_| corrupt())?,
            seen: unpacked(&rest.seen)?,
            begun: rest.begun.as_deref().map(unpacked).transpose()?,
            control: rest.control.as_deref().map(unpacked).transpose()?,
            content: rest.content.as_deref().map(unpacked).transpose()?,
            closing: rest.closing.as_deref().map(unpacked).transpose()?,
            booked: u64::try_from(rest.booked).map_err(|_| corrupt())?,
            forwards,
            files: rest.files.as_deref().map(unpacked).transpose()?,
            refused: rest.refused,
            expected: rest.expected.map(Timestamp),
            unfollowed: rest.unfollowed,
        }))
    }

    async fn forwards_of(
        &self,
        id: SessionId,
        given: Option<i64>,
    ) -> Result<SeenForwards, StoreError> {
        let rows = sql::query_as(FORWARDS).bind(id.0.as_slice());
        let rows: Vec<(i64, Vec<u8>)> = rows.fetch_all(self.reads()).await?;
        let number = |number: i64| u32::try_from(number).map_err(|_| corrupt());
        let ended = rows
            .into_iter()
            .map(|(at, seen)| Ok((number(at)?, unpacked(&seen)?)));
        Ok(SeenForwards {
            given: given.map(number).transpose()?,
            ended: ended.collect::<Result<_, StoreError>>()?,
        })
    }

    /// Returns whether the session of a recording goes on, in a run that is not this one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recording_runs_elsewhere(
        &self,
        id: SessionId,
        relay: RelayId,
    ) -> Result<bool, StoreError> {
        let runs = sql::query_scalar(RUNS_ELSEWHERE).bind(id.0.as_slice());
        let runs = runs.bind(relay.0.as_slice());
        runs.fetch_one(self.reads()).await
    }

    /// Returns some recordings that wait for their check, their verdict or, at `now`, in vain.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recordings_due(
        &self,
        now: Timestamp,
        most: u32,
    ) -> Result<Vec<SessionId>, StoreError> {
        self.ids(DUE, now, most).await
    }

    /// Returns the recordings that a device has not delivered, of sessions that began before `then`, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recordings_expected(
        &self,
        device: DeviceId,
        then: Timestamp,
        most: u32,
    ) -> Result<Vec<SessionId>, StoreError> {
        let query = sql::query_scalar(EXPECTED).bind(device.0.as_slice());
        let query = query.bind(then.0).bind(i64::from(most));
        session_ids(query.fetch_all(self.reads()).await?)
    }

    /// Returns some recordings that began before `then`, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recordings_before(
        &self,
        then: Timestamp,
        most: u32,
    ) -> Result<Vec<SessionId>, StoreError> {
        self.ids(OLD, then, most).await
    }

    async fn ids(
        &self,
        sql: &'static str,
        time: Timestamp,
        most: u32,
    ) -> Result<Vec<SessionId>, StoreError> {
        let query = sql::query_scalar(sql).bind(time.0).bind(i64::from(most));
        session_ids(query.fetch_all(self.reads()).await?)
    }
}

fn session_ids(ids: Vec<Vec<u8>>) -> Result<Vec<SessionId>, StoreError> {
    let id = |id: Vec<u8>| id.try_into().map(SessionId).map_err(|_| corrupt());
    ids.into_iter().map(id).collect()
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Row as _};

    use super::*;
    use crate::store::backend::connection::Db;

    // A fleet whose relay was restarted asks for them on each tunnel.
    #[tokio::test]
    async fn expected_recordings_are_found_without_the_settled_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.db");
        std::fs::write(&path, "").unwrap();
        let store = Store::open(&path).await.unwrap();
        let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {EXPECTED}")));
        let plan = plan.bind([0; 16].as_slice()).bind(0).bind(1);
        let Db::Sqlite(file) = store.reads() else {
            panic!("no file");
        };
        let rows = plan.fetch_all(&file.readers).await.unwrap();
        let steps: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let first = steps.first().unwrap();
        assert!(first.contains("INDEX recordings_expected"), "{steps:?}");
        assert!(!steps.iter().any(|step| step.contains("SCAN")), "{steps:?}");
    }
}
