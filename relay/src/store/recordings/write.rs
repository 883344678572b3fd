//! Changes recordings in a transaction.

use holdfast_protocol::ids::{SessionId, UserName};
use holdfast_protocol::recording::chain::SeenForward;
use holdfast_protocol::recording::segment::SegmentLink;
use holdfast_protocol::wire::SessionFinished;
use serde::Serialize;

use super::{Hold, NewRecording, Over, RecordingState, SeenSession, SignedVerdict, corrupt};
use crate::clock::Timestamp;
use crate::store::backend::sql;
use crate::store::{RelayId, StoreError, Tx};

const BEGIN: &str =
    "INSERT INTO recordings (id, relay, user_name, device, device_name, login, kind,
        command, client, started, user_id, state, chain_key, seen, begun, control, terminal, content, files,
        forwards, member)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'recording', $12, $13, $14, $15, $16, $17, $18,
        0, r.member
    FROM relays r WHERE r.id = $2 AND r.stopped IS NULL";
const SEEN: &str = "UPDATE recordings SET seen = $2, control = $3, booked = $4, forwards = $5,
        content = $6, files = $7 WHERE id = $1 AND ended IS NULL";
const OVER: &str = "UPDATE recordings SET seen = $2, control = $3, booked = $4, forwards = $5,
        ended = $6, exited = $7, closing = $8, refused = $9, expected = $10, content = $11,
        files = $12 WHERE id = $1";
const FORWARD: &str = "INSERT INTO recording_forwards (recording, number, seen)
    VALUES ($1, $2, $3) ON CONFLICT (recording, number) DO NOTHING";
// Sessions of runs that were killed ended with them. What they had seen was written down now and then.
const OVER_OF_ENDED: &str = "UPDATE recordings SET ended = $1, expected = $2,
        state = CASE state WHEN 'recording' THEN 'uploading' ELSE state END
    WHERE ended IS NULL AND NOT EXISTS (SELECT 1 FROM relays r
        WHERE r.id = recordings.relay AND r.stopped IS NULL)";
const UNFOLLOWED: &str =
    "UPDATE recordings SET unfollowed = $2 WHERE id = $1 AND unfollowed IS NULL";
// Behind a verdict nothing changes: of two relays that make one, the first wins.
const STATE: &str = "UPDATE recordings SET state = $2, reason = $3
    WHERE id = $1 AND chain_key IS NOT NULL";
const SEGMENT: &str = "INSERT INTO recording_segments (recording, segment, length, hash)
    VALUES ($1, $2, $3, $4) ON CONFLICT (recording, segment) DO NOTHING";
const REPORT: &str = "UPDATE recordings SET report = $2 WHERE id = $1 AND report IS NULL";
const OFFERED: &str = "UPDATE recordings SET offered = $2 WHERE id = $1 AND offered < $2";
const VERDICT: &str = "UPDATE recordings SET verdict = $2, signature = $3, verified = $4,
        chain_key = NULL WHERE id = $1 AND chain_key IS NOT NULL";
// A hold that comes in the last moment holds.
const REMOVE: &str = "DELETE FROM recordings WHERE id = $1 AND hold_since IS NULL";
const HOLD: &str = "UPDATE recordings SET hold_since = $2, hold_by = $3, hold_reason = $4
    WHERE id = $1 AND hold_since IS NULL";
const RELEASE: &str = "UPDATE recordings SET hold_since = NULL, hold_by = NULL, hold_reason = NULL
    WHERE id = $1 AND hold_since IS NOT NULL";

impl Tx {
    /// Notes that a recording begins.
    ///
    /// # Errors
    /// [`StoreError::RunOver`] if the run ended.
    pub(crate) async fn recording_begun(
        &mut self,
        relay: RelayId,
        new: &NewRecording,
    ) -> Result<(), StoreError> {
        let begin = new.session.bind(sql::query(BEGIN), relay);
        begin
            .bind(new.key.0.as_slice())
            .bind(packed(&new.seen.streams)?)
            .bind(packed(&new.begun)?)
            .bind(packed(&new.seen.control)?)
            .bind(new.session.terminal)
            .bind(new.seen.content.as_ref().map(packed).transpose()?)
            .bind(new.seen.files.as_ref().map(packed).transpose()?)
            .execute(&mut *self.connection().await?)
            .await
            .and_then(|begun| match begun.rows_affected() {
                0 => Err(StoreError::RunOver),
                _ => Ok(()),
            })
    }

    /// Notes what the relay has seen of a session that goes on. Of one that is over, more is noted already.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recording_seen(
        &mut self,
        id: SessionId,
        seen: &SeenSession,
    ) -> Result<(), StoreError> {
        let query = sql::query(SEEN).bind(id.0.as_slice());
        let query = query.bind(packed(&seen.streams)?);
        let query = query.bind(packed(&seen.control)?);
        let query = query.bind(stored(seen.booked)).bind(seen.forwards);
        let query = query.bind(seen.content.as_ref().map(packed).transpose()?);
        let query = query.bind(seen.files.as_ref().map(packed).transpose()?);
        query.execute(&mut *self.connection().await?).await?;
        Ok(())
    }

    /// Notes that a forward in a recording is over, and what is known of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recording_forward(
        &mut self,
        id: SessionId,
        number: u32,
        seen: &SeenForward,
    ) -> Result<(), StoreError> {
        let query = sql::query(FORWARD).bind(id.0.as_slice()).bind(number);
        let query = query.bind(packed(seen)?);
        query.execute(&mut *self.connection().await?).await?;
        Ok(())
    }

    /// Notes that the file operations of a session cannot be followed any more, for this reason.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recording_unfollowed(
        &mut self,
        id: SessionId,
        why: &str,
    ) -> Result<(), StoreError> {
        let query = sql::query(UNFOLLOWED).bind(id.0.as_slice()).bind(why);
        query.execute(&mut *self.connection().await?).await?;
        Ok(())
    }

    /// Notes that the session of a recording is over: what the relay has seen of it, whether up to its exit status, and
    /// by when the recording is expected. `refused` says that the device started nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recording_over(
        &mut self,
        id: SessionId,
        seen: &SeenSession,
        how: Over,
    ) -> Result<(), StoreError> {
        sql::query(OVER)
            .bind(id.0.as_slice())
            .bind(packed(&seen.streams)?)
            .bind(packed(&seen.control)?)
            .bind(stored(seen.booked))
            .bind(seen.forwards)
            .bind(how.ended.0)
            .bind(how.closing.exit.is_some())
            .bind(packed(&how.closing)?)
            .bind(how.refused)
            .bind(how.expected.0)
            .bind(seen.content.as_ref().map(packed).transpose()?)
            .bind(seen.files.as_ref().map(packed).transpose()?)
            .execute(&mut *self.connection().await?)
            .await?;
        Ok(())
    }

    /// Notes that all sessions of runs that have ended are over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recordings_of_ended_runs_over(
        &mut self,
        now: Timestamp,
        expected: Timestamp,
    ) -> Result<(), StoreError> {
        let query = sql::query(OVER_OF_ENDED).bind(now.0).bind(expected.0);
        query.execute(&mut *self.connection().await?).await?;
        Ok(())
    }

    /// Notes a new state, and with it a verdict if there is one; false if there is a verdict already.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recording_settled(
        &mut self,
        id: SessionId,
        state: RecordingState,
        reason: Option<&str>,
        verdict: Option<&SignedVerdict>,
    ) -> Result<bool, StoreError> {
        let query = sql::query(STATE).bind(id.0.as_slice());
        let query = query.bind(state.as_str()).bind(reason);
        let changed = query.execute(&mut *self.connection().await?).await?;
        if changed.rows_affected() == 0 {
            self.unchanged();
            return Ok(false);
        }
        if let Some(verdict) = verdict {
            sql::query(VERDICT)
                .bind(id.0.as_slice())
                .bind(verdict.text.as_str())
                .bind(verdict.signature.as_slice())
                .bind(verdict.verified)
                .execute(&mut *self.connection().await?)
                .await?;
        }
        Ok(true)
    }

    /// Notes that a segment is stored for good.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recording_segment(
        &mut self,
        id: SessionId,
        segment: u32,
        length: u64,
        hash: &SegmentLink,
    ) -> Result<(), StoreError> {
        sql::query(SEGMENT)
            .bind(id.0.as_slice())
            .bind(i64::from(segment))
            .bind(i64::try_from(length).unwrap_or(i64::MAX))
            .bind(packed(hash)?)
            .execute(&mut *self.connection().await?)
            .await?;
        Ok(())
    }

    /// Notes that the device's report is kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recording_report(
        &mut self,
        report: &SessionFinished,
    ) -> Result<(), StoreError> {
        let id = report.session.0;
        let query = sql::query(REPORT).bind(id.as_slice()).bind(packed(report)?);
        query.execute(&mut *self.connection().await?).await?;
        Ok(())
    }

    /// Returns the number of bytes the device has offered, for who asks how far it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recording_offered(
        &mut self,
        id: SessionId,
        bytes: u64,
    ) -> Result<(), StoreError> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let query = sql::query(OFFERED).bind(id.0.as_slice()).bind(bytes);
        query.execute(&mut *self.connection().await?).await?;
        Ok(())
    }

    /// Removes a recording, unless it is held; says whether. Its objects are the caller's to remove, afterwards.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recording_removed(&mut self, id: SessionId) -> Result<bool, StoreError> {
        let query = sql::query(REMOVE).bind(id.0.as_slice());
        let removed = query
            .execute(&mut *self.connection().await?)
            .await?
            .rows_affected()
            > 0;
        if !removed {
            self.unchanged();
        }
        Ok(removed)
    }

    /// Holds a recording, unless it is held already; says whether.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recording_held(
        &mut self,
        id: SessionId,
        hold: &Hold,
    ) -> Result<bool, StoreError> {
        let query = sql::query(HOLD).bind(id.0.as_slice());
        let query = query.bind(hold.since.0);
        let query = query.bind(hold.by.as_ref().map(UserName::as_str));
        let query = query.bind(hold.reason.as_str());
        let held = query
            .execute(&mut *self.connection().await?)
            .await?
            .rows_affected()
            > 0;
        if !held {
            self.unchanged();
        }
        Ok(held)
    }

    /// Lets go of a recording that is held; says whether it was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn recording_released(&mut self, id: SessionId) -> Result<bool, StoreError> {
        let query = sql::query(RELEASE).bind(id.0.as_slice());
        let released = query
            .execute(&mut *self.connection().await?)
            .await?
            .rows_affected()
            > 0;
        if !released {
            self.unchanged();
        }
        Ok(released)
    }
}

/// Returns a count as the store holds it.
fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn packed<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_allocvec(value).map_err(|_| corrupt())
}
