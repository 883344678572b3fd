//! The messages about recordings: how a session is recorded, and how its recording is uploaded.

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::SessionId;

/// Describes how one session is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingTerms {
    /// The action when no room is left.
    pub mode: RecordingMode,
    /// The part of stdin that is recorded.
    pub stdin: StdinMode,
    /// The key of the streams' chains.
    pub key: ChainKey,
    /// True if the session may begin although it can't be recorded: an admin saves a device that is full.
    /// It then goes on as under `best-effort`.
    pub recover: bool,
}

/// The action when a session can't be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordingMode {
    /// It does not begin, or ends: nothing is shown that was not recorded.
    Strict,
    /// It goes on, and the recording has a gap.
    BestEffort,
    /// It never is recorded.
    Off,
}

/// The part of stdin that is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StdinMode {
    /// Everything but what is typed while the terminal's echo is off.
    Redact,
    /// Everything.
    Full,
    /// Only how much it was.
    Off,
}

/// A message of an agent on an upload stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UploadMessage {
    /// A session's recording has ended: what there is of it.
    Finished(SessionFinished),
    /// A segment will never come.
    Gone(SegmentGone),
    /// A segment, as far as it goes by now. Answered by [`UploadAnswer::Have`].
    Offer(OfferedSegment),
    /// Bytes of the segment that was offered last.
    Bytes(SegmentBytes),
    /// A part of the list of all recordings that the device holds. An older relay skips it.
    Inventory(InventoryPart),
}

/// A relay's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UploadAnswer {
    /// To [`UploadMessage::Finished`] and [`UploadMessage::Gone`]: it is known for good.
    Noted(SessionId),
    /// The length of the segment that has arrived. Sent on an offer and now and then on its bytes: what may be under
    /// way is bounded by it.
    Have(SegmentHeld),
    /// The whole segment is stored for good, under this hash: the device may delete it.
    Stored(SegmentHeld),
    /// The segment is not taken.
    Refused(SegmentRefusal),
    /// To [`UploadMessage::Inventory`]: this part has been taken; after the last one, what is not listed has been
    /// judged.
    Listed(u32),
}

/// The end of a recording, as the device reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFinished {
    /// The session.
    pub session: SessionId,
    /// The reason why it ended; `None` if its end says so, which the device can't read any more.
    pub why: Option<EndReason>,
    /// The number of segments.
    pub segments: u32,
    /// The chain over all of them.
    pub hash: SegmentLink,
}

/// A segment that will never come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentGone {
    /// The session that it belongs to.
    pub session: SessionId,
    /// The number of the first lost segment; all that follow it are lost too.
    pub segment: u32,
    /// The reason.
    pub why: SegmentLost,
}

/// The reason why a device has lost a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SegmentLost {
    /// Its file is no longer there.
    Missing,
    /// Its bytes are no longer what was written.
    Corrupt,
    /// The medium can't read it.
    Unreadable,
    /// It was never written: there was no room, under `best-effort` or in a rescue.
    NoRoom,
    /// The device lost power before anything of it was written.
    PowerLoss,
}

/// A part of the list of the recordings that a device holds: a session that began before the agent's start and is in no
/// part will never be delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryPart {
    /// Its number, from 0.
    pub part: u32,
    /// Milliseconds since the agent's start.
    pub age: u64,
    /// The reason why others are not there: [`SegmentLost::Missing`] or [`SegmentLost::PowerLoss`].
    pub why: SegmentLost,
    /// Sessions of which the device holds a segment or a report. At most `INVENTORY_PART`.
    pub sessions: Vec<SessionId>,
    /// True if it is the last part.
    pub last: bool,
}

/// A segment that may be uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedSegment {
    /// The session that it belongs to.
    pub session: SessionId,
    /// The number of the segment.
    pub segment: u32,
    /// Its length: whole blocks only.
    pub length: u64,
    /// The chain there.
    pub hash: SegmentLink,
    /// True if nothing will follow in it: it has its footer, or the device lost power.
    pub closed: bool,
}

/// Some bytes of a segment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentBytes {
    /// Their offset in it.
    pub offset: u64,
    /// At most `MAX_UPLOAD_CHUNK`. They need not end where a block does.
    #[serde(serialize_with = "as_bytes", deserialize_with = "from_bytes")]
    pub bytes: Vec<u8>,
}

/// Describes how far a relay has a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentHeld {
    /// The session that it belongs to.
    pub session: SessionId,
    /// The number of the segment.
    pub segment: u32,
    /// The number of bytes, from its beginning.
    pub offset: u64,
    /// The chain behind the last whole block among them.
    pub hash: SegmentLink,
}

/// A segment that a relay does not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRefusal {
    /// The session that it belongs to.
    pub session: SessionId,
    /// The number of the segment.
    pub segment: u32,
    /// The reason.
    pub why: SegmentRefused,
}

/// The reason why a segment is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SegmentRefused {
    /// The relay can't store it now: offer it again later.
    Unavailable,
    /// It is no part of this session's recording: set it aside.
    Tampered,
    /// The relay knows of no such session on this device: set it aside.
    UnknownSession,
}

fn as_bytes<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}

fn from_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    struct Take;

    impl serde::de::Visitor<'_> for Take {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }

    // At one go: a vector would be taken byte by byte.
    from.deserialize_bytes(Take)
}

impl fmt::Debug for SegmentBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentBytes({} at {})", self.bytes.len(), self.offset)
    }
}

/// The key of a session's chains: made by the relay for the session, sent to the device in `Open`, erased
/// when the recording was checked.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainKey(pub [u8; 32]);

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChainKey(..)")
    }
}

/// The reason why a session ended, as the device saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// The process ended.
    Exited,
    /// The process could not be started.
    NotStarted,
    /// The relay ended the session, or its client went away.
    ClientGone,
    /// The tunnel was lost.
    TunnelLost,
    /// The spool could take no more, under `strict`.
    SpoolFull,
    /// The agent was stopped.
    AgentStopped,
    /// Nothing ended it: the device lost power, or the agent was killed. No record says so; the device
    /// reports it when it finds the recording unfinished.
    PowerLoss,
}

/// A value of the chain over ciphertexts: it names everything before it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentLink(pub [u8; 32]);
