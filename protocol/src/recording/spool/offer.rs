//! The data that is offered to the spool, and its answer.

use super::Unavailable;
use crate::recording::record::{RecordingStart, Stream};
use crate::recording::seal::RecordingKey;
use crate::wire::RecordingTerms;

/// The facts that begin a recording.
#[derive(Clone, Debug)]
pub struct Begin<'a> {
    /// The recording mode; not [`RecordingMode::Off`](crate::wire::RecordingMode::Off).
    pub terms: &'a RecordingTerms,
    /// To what it is sealed: from the roster.
    pub key: Option<RecordingKey>,
    /// 32 bytes of the system's random source, for this recording alone.
    pub seed: [u8; 32],
    /// The first record.
    pub start: RecordingStart<'a>,
    /// The bytes of each stream's content that are kept
    /// ([`SessionTerms::content_max`](crate::wire::SessionTerms::content_max)).
    pub content_max: Option<u64>,
    /// The part of a command line that is left out ([`StartedWork::of`](crate::recording::record::StartedWork::of)).
    pub rest_of_command: &'a [u8],
}

/// A piece of a frame of data, as it comes from or goes to the wire.
#[derive(Clone, Copy, Debug)]
pub struct DataPiece<'a> {
    /// The stream.
    pub stream: Stream,
    /// The bytes.
    pub bytes: &'a [u8],
    /// The bytes of this frame that are still to come.
    pub remaining: usize,
    /// True if the terminal's echo is off. Of a frame that comes in pieces, the first one's counts.
    pub hidden: bool,
}

/// The outcome of offering something to the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Accept {
    /// It is, or will be as soon as the medium lets: go on.
    Accepted,
    /// The medium is slower than the session: offer it again when work was done.
    Wait,
    /// It is missing from the recording, which says so: go on.
    Gap,
    /// It is not recorded and must not be shown: end the session with this text.
    Refused(Unavailable),
}
