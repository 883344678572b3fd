//! The actions that the driver of an ingest does, and the results of a check.

use alloc::vec::Vec;

#[cfg(doc)]
use super::Ingest;
use super::IngestState;
use crate::recording::scan::ScanFault;
use crate::wire::{SegmentHeld, SessionFinished, UploadAnswer};

/// The actions of the driver, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngestAction {
    /// Send this on the upload stream that the message came on.
    Answer(UploadAnswer),
    /// Begin the segment's working file anew.
    Restart(u32),
    /// Append to it.
    Append(u32, Vec<u8>),
    /// Make the working file the object of this segment for good, then report with
    /// [`Ingest::handle_stored`].
    Store(SegmentHeld),
    /// Keep this report for good, then report with [`Ingest::handle_kept`].
    Keep(SessionFinished),
    /// Everything is here: open it, compare, and report with [`Ingest::handle_checked`].
    Check,
    /// The state has changed: keep it, and tell the audit log.
    Settled(IngestState),
}

/// The result of a check of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Complete, and nothing contradicts it.
    Whole,
    /// It is valid, and stops early.
    Short,
    /// The reader has found a fault.
    Tampered {
        /// In which segment.
        segment: u32,
        /// In which block of it.
        block: u32,
        /// The fault.
        fault: ScanFault,
    },
    /// The streams are not what the relay saw pass.
    Contradicted,
}
