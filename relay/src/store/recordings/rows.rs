//! The rows of the table of recordings.

use holdfast_protocol::ids::UserName;

use super::facts::RecordingRow;
use super::{Hold, RecordingState, corrupt};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::sessions::facts::FactsRow;

/// The columns that listings need of a recording.
#[derive(sqlx::FromRow)]
pub(super) struct Row {
    #[sqlx(flatten)]
    pub(super) session: FactsRow,
    ended: Option<i64>,
    state: String,
    reason: Option<String>,
    offered: i64,
    verified: Option<bool>,
    verdict: Option<String>,
    signature: Option<Vec<u8>>,
    hold_since: Option<i64>,
    hold_by: Option<String>,
    hold_reason: Option<String>,
    bytes: i64,
    relay: Option<String>,
}

/// All columns of a recording.
#[derive(sqlx::FromRow)]
pub(super) struct Whole {
    #[sqlx(flatten)]
    pub(super) row: Row,
    #[sqlx(flatten)]
    pub(super) rest: Rest,
}

/// The columns that listings do not need.
#[derive(sqlx::FromRow)]
pub(super) struct Rest {
    pub(super) refused: bool,
    pub(super) expected: Option<i64>,
    pub(super) chain_key: Option<Vec<u8>>,
    pub(super) seen: Vec<u8>,
    pub(super) report: Option<Vec<u8>>,
    pub(super) unfollowed: Option<String>,
    pub(super) begun: Option<Vec<u8>>,
    pub(super) control: Option<Vec<u8>>,
    pub(super) content: Option<Vec<u8>>,
    pub(super) files: Option<Vec<u8>>,
    pub(super) closing: Option<Vec<u8>>,
    pub(super) booked: i64,
    pub(super) forwards: Option<i64>,
}

impl Row {
    /// Returns the recording.
    pub(super) fn read(self) -> Result<RecordingRow, StoreError> {
        self.try_read().ok_or_else(corrupt)
    }

    fn try_read(self) -> Option<RecordingRow> {
        let hold = match self.hold_since {
            None => None,
            Some(since) => Some(Hold {
                since: Timestamp(since),
                by: match self.hold_by {
                    None => None,
                    Some(name) => Some(UserName::new(&name).ok()?),
                },
                reason: self.hold_reason.unwrap_or_default(),
            }),
        };
        Some(RecordingRow {
            session: self.session.read()?,
            ended: self.ended.map(Timestamp),
            state: RecordingState::ALL
                .into_iter()
                .find(|state| state.as_str() == self.state)?,
            reason: self.reason,
            bytes: u64::try_from(self.bytes).ok()?,
            offered: u64::try_from(self.offered).ok()?,
            verified: self.verified,
            verdict: self.verdict,
            signature: self.signature,
            hold,
            relay: self.relay,
        })
    }
}
