//! The facts that the relay has of a recording.

use holdfast_protocol::recording::allowance::{PassedStream, SessionExtent};
use holdfast_protocol::recording::chain::{
    ChainKey, Closing, ContentPoints, ControlDigest, Expectation, RecordedKind, SeenFiles,
    SeenForwards, SessionStart, StreamDigest,
};
use holdfast_protocol::recording::ingest::MISSING_SEGMENT;
use holdfast_protocol::recording::segment::SegmentLink;
use holdfast_protocol::wire::SessionFinished;

use super::{Hold, RecordingState};
use crate::clock::Timestamp;
use crate::model::role::Ability;
use crate::store::sessions::facts::SessionFacts;

/// A recording, as far as listings need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordingRow {
    /// The session's facts.
    pub session: SessionFacts,
    /// The time at which the session ended.
    pub ended: Option<Timestamp>,
    /// The state.
    pub state: RecordingState,
    /// The reason of the state, in a sentence; `None` for what needs none.
    pub reason: Option<String>,
    /// Bytes that are stored.
    pub bytes: u64,
    /// Bytes that the device has offered, as far as it has.
    pub offered: u64,
    /// True if everything in it is proved; `None` before the verdict.
    pub verified: Option<bool>,
    /// The verdict, as it was signed.
    pub verdict: Option<String>,
    /// The cluster key's signature on it.
    pub signature: Option<Vec<u8>>,
    /// The hold that keeps it, if there is one.
    pub hold: Option<Hold>,
    /// The name of the relay that the operator was at.
    pub relay: Option<String>,
}

/// The facts that the relay needs to go on with a recording.
#[derive(Clone, Debug)]
pub(crate) struct RecordingFacts {
    /// The listed facts.
    pub row: RecordingRow,
    /// The stored segments, from the first; [`MISSING_SEGMENT`] where one is missing.
    pub segments: Vec<(u64, SegmentLink)>,
    /// The device's report.
    pub report: Option<SessionFinished>,
    /// The key of the streams' digests, until the verdict.
    pub key: Option<ChainKey>,
    /// The digests of what the relay saw pass, as far as it was written down.
    pub seen: [StreamDigest; 3],
    /// The parameters that the session was begun with; `None` of a recording that an older relay began.
    pub begun: Option<SessionStart>,
    /// The sizes and signals that were passed on.
    pub control: Option<ControlDigest>,
    /// The points up to which the content of the streams is kept; `None`: all of it is.
    pub content: Option<ContentPoints>,
    /// The end of the session; `None` while it runs, and if the relay was killed before it kept that.
    pub closing: Option<Closing>,
    /// The maximum that the records of its file operations or forwards take.
    pub booked: u64,
    /// The forwards of a recording of forwards that is not judged yet; `None` where an older relay did not keep them.
    pub forwards: Option<SeenForwards>,
    /// The file operations that the relay has seen; `None` of any session but sftp, and where an older relay did not
    /// keep them.
    pub files: Option<SeenFiles>,
    /// True if the device started nothing.
    pub refused: bool,
    /// The time by which it is expected.
    pub expected: Option<Timestamp>,
    /// The reason why the relay could not follow its file operations to the end.
    pub unfollowed: Option<String>,
}

impl RecordingFacts {
    /// Returns what the recording is compared with. None of it comes from the device.
    #[must_use]
    pub(crate) fn expectation(&self) -> Expectation {
        let session = &self.row.session;
        Expectation {
            user: session.user.clone(),
            device: session.device,
            login: session.login.clone(),
            client: session.client,
            kind: recorded_kind(session.kind),
            begun: self.begun.clone(),
            seen: self.seen.clone(),
            control: self.control.clone(),
            content: self.content.clone(),
            closing: self.closing,
            forwards: self.forwards.clone(),
            files: self.files.clone(),
        }
    }

    /// Returns the number of the segments that are stored.
    #[must_use]
    pub(crate) fn stored_segments(&self) -> usize {
        let segments = self.segments.iter();
        segments
            .filter(|stored| **stored != MISSING_SEGMENT)
            .count()
    }

    /// Returns whether nothing was written down of what passed in the session.
    #[must_use]
    pub(crate) fn has_seen_nothing(&self) -> bool {
        let is_empty = |seen: &StreamDigest| seen.end.frames == 0 && seen.partial.is_none();
        let control = self.control.as_ref();
        let files = self.files.as_ref();
        let forwards = self.forwards.as_ref();
        self.seen.iter().all(is_empty)
            && control.is_none_or(|control| is_empty(&control.seen) && control.eof.is_none())
            && files.is_none_or(|files| is_empty(&files.answered) && files.under_way.is_empty())
            && forwards.is_none_or(|forwards| {
                forwards.given.unwrap_or_default() == 0 && forwards.ended.is_empty()
            })
    }

    /// Returns the bounds of its recording, at `now`. None of it comes from the device.
    #[must_use]
    pub(crate) fn extent(&self, now: Timestamp) -> SessionExtent {
        let kind = recorded_kind(self.row.session.kind);
        let begun = self.begun.as_ref();
        let command = begun.and_then(|begun| begun.command);
        let control = self.control.as_ref();
        let ended = self.row.ended.unwrap_or(now);
        let mut passed = self.seen.each_ref().map(PassedStream::of);
        let ends = self.content.iter().flat_map(|content| content.ends);
        for (passed, end) in passed.iter_mut().zip(ends) {
            // What is not kept takes no room.
            if let Some(end) = end {
                (passed.frames, passed.bytes) = (end.frames, end.bytes);
            }
        }
        SessionExtent {
            kind,
            holds_data: kind.holds_data(begun),
            command: command.map_or(0, |(length, _)| length),
            passed,
            controls: control.map_or(0, |control| PassedStream::of(&control.seen).frames),
            booked: self.booked,
            lasted: ended.since(self.row.session.started),
            exact: self.closing.is_some(),
        }
    }
}

/// Returns the kind of recording of a session of this kind.
#[must_use]
pub(crate) fn recorded_kind(kind: Ability) -> RecordedKind {
    match kind {
        Ability::Exec => RecordedKind::Exec,
        Ability::Sftp => RecordedKind::Sftp,
        Ability::Forward => RecordedKind::Forwards,
        // The other rights are none to a session.
        _ => RecordedKind::Shell,
    }
}
