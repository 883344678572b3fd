//! The states of a recording on the relay, with their reasons.

use crate::recording::scan::ScanFault;
use crate::wire::SegmentLost;

/// The state of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngestState {
    /// The session runs.
    Recording,
    /// It has ended; not everything has come.
    Uploading,
    /// Everything has come, and is what the relay saw pass.
    Complete,
    /// It ends early.
    Truncated(Truncated),
    /// It is not what was recorded.
    Tampered {
        /// In which segment.
        segment: u32,
        /// In which block of it.
        block: u32,
        /// The fault.
        fault: IngestFault,
    },
    /// Nothing of it came.
    Lost(LostReason),
}

/// The reason why a recording ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncated {
    /// The device lost power, or its agent was killed.
    PowerLoss,
    /// The device has lost the rest.
    Gone {
        /// From which segment on.
        segment: u32,
        /// The reason.
        why: SegmentLost,
    },
    /// The rest was not delivered in time.
    Expired,
    /// It stops without an end.
    NoEnd,
}

/// The reason why nothing came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostReason {
    /// The device says that it is gone.
    Gone(SegmentLost),
    /// It was not delivered in time.
    Expired,
    /// The device does not list it among those that it holds.
    NotHeld(SegmentLost),
}

/// The reason why a recording is tampered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngestFault {
    /// Its bytes.
    Bytes(ScanFault),
    /// The segment is missing, and later ones are offered.
    Missing,
    /// The segment's file is not on the device any more.
    Removed,
    /// The segment is damaged on the device.
    Damaged,
    /// The device cannot read the segment, and has later ones.
    Unreadable,
    /// The content is not what the device announced.
    OtherHash,
    /// The recorded output or input is not what the relay passed on.
    Contradicted,
    /// It is longer than an honest recording of the session can be.
    TooLong,
}

impl IngestState {
    /// Returns whether it stays so for good.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Recording | Self::Uploading)
    }
}
