//! Reading a recording with the private key: its records, and what can be said of it as a whole.

mod behind;

use alloc::vec::Vec;
use core::fmt;

pub use self::behind::{Behind, BehindReader, DamagedBlock};

use super::pack;
use super::record::{self, EndReason, Event, Record, RecordingEnd};
use super::scan::{ExpectedSegment, ScanFault, Scanned, SegmentScan};
use super::seal::{RecordingSecret, SealOpener};
use super::segment::{BlockKind, Footer, SegmentHeader, SegmentLink, bound};
use crate::ids::SessionId;

/// The facts of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadVerdict {
    /// Whole: from the start to the end, nothing missing, nothing altered.
    Complete {
        /// The reason why the session ended.
        why: EndReason,
    },
    /// It is whole up to here, and then stops.
    Truncated {
        /// The place where it stops.
        at: Position,
    },
    /// It is not what the device wrote. What was read before this point is valid.
    Tampered {
        /// The place of the fault.
        at: Position,
        /// The fault.
        fault: ScanFault,
    },
}

/// A place in a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The segment.
    pub segment: u32,
    /// The block in it. Behind the last whole block it is the one that is missing or wrong.
    pub block: u32,
    /// The bytes from the segment's beginning to that block.
    pub offset: u64,
    /// Microseconds from the recording's start to the last record before it.
    pub micros: u64,
}

/// Opens a session's segments, one after the other.
pub struct RecordingReader<'k> {
    session: SessionId,
    secrets: &'k [RecordingSecret],
    at: Position,
    /// The chain behind the last segment.
    link: SegmentLink,
    closed: Option<BlockKind>,
    started: bool,
    end: Option<RecordingEnd>,
    fault: Option<ScanFault>,
    /// The bytes that the blocks may still unpack to.
    left: u64,
    /// Each segment that is read is there to its end.
    has_whole_segments: bool,
}

impl<'k> RecordingReader<'k> {
    /// Creates a reader of the recording of `session`, with the private keys that may open it.
    #[must_use]
    pub fn new(session: SessionId, secrets: &'k [RecordingSecret]) -> Self {
        Self {
            session,
            secrets,
            at: Position::default(),
            link: SegmentLink::first(&session),
            closed: None,
            started: false,
            end: None,
            fault: None,
            left: u64::MAX,
            has_whole_segments: false,
        }
    }

    /// Takes each segment for one that is there to its end: a block that seems to go on behind it is damaged.
    #[must_use]
    pub fn of_whole_segments(mut self) -> Self {
        self.has_whole_segments = true;
        self
    }

    /// Bounds what all blocks together may unpack to: more is [`ScanFault::TooLong`].
    #[must_use]
    pub fn bounded(mut self, unpacked: u64) -> Self {
        self.left = unpacked;
        self
    }

    /// Reads the next segment. `each` is given every record and its time, in microseconds from the
    /// recording's start.
    ///
    /// # Errors
    /// [`ScanFault`]: the recording was tampered with, and no further segment is read.
    pub fn read_segment(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(u64, &Record<'_>),
    ) -> Result<(), ScanFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let outcome = self.try_segment(bytes, each);
        self.fault = outcome.err();
        outcome
    }

    /// Returns what the recording is, by all that was read.
    #[must_use]
    pub fn verdict(&self) -> ReadVerdict {
        let at = self.at;
        if let Some(fault) = self.fault {
            return ReadVerdict::Tampered { at, fault };
        }
        match (&self.closed, &self.end) {
            (Some(BlockKind::FinalFooter), Some(end)) => ReadVerdict::Complete { why: end.why },
            _ => ReadVerdict::Truncated { at },
        }
    }

    /// Returns its end, if that was read.
    #[must_use]
    pub fn end(&self) -> Option<&RecordingEnd> {
        self.end.as_ref()
    }

    /// Returns the chain over all that was read: it names the recording.
    #[must_use]
    pub fn link(&self) -> SegmentLink {
        self.link
    }

    fn try_segment(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(u64, &Record<'_>),
    ) -> Result<(), ScanFault> {
        let index = self.begin_segment()?;
        let mut scan = SegmentScan::new(ExpectedSegment {
            place: Some((self.session, index)),
            before: Some(self.link),
        });
        let mut open = None;
        let mut input = bytes;
        while let Some(scanned) = scan.read(&mut input)? {
            match scanned {
                Scanned::Header(header) => open = Some(OpenSegment::new(header, self.secrets)?),
                Scanned::Block { index, kind } => {
                    let segment = open.as_mut().ok_or(ScanFault::Header)?;
                    self.read_block(segment, index, kind, scan.sealed(), each)?;
                    self.at.block = index + 1;
                    self.closed = scan.closed();
                }
            }
            self.at.offset = scan.whole();
            self.link = scan.link();
        }
        match self.has_whole_segments {
            true => scan.finish(),
            false => Ok(()),
        }
    }

    /// Returns the number of the segment that is read next.
    fn begin_segment(&mut self) -> Result<u32, ScanFault> {
        if self.at == Position::default() {
            return Ok(0);
        }
        match self.closed.take() {
            Some(BlockKind::Footer) => {}
            Some(BlockKind::FinalFooter) => return Err(ScanFault::BehindEnd),
            Some(BlockKind::Records) | None => return Err(ScanFault::CutShort),
        }
        self.at.segment += 1;
        (self.at.block, self.at.offset) = (0, 0);
        Ok(self.at.segment)
    }

    fn read_block(
        &mut self,
        segment: &mut OpenSegment,
        index: u32,
        kind: BlockKind,
        sealed: &[u8],
        each: &mut dyn FnMut(u64, &Record<'_>),
    ) -> Result<(), ScanFault> {
        let text = segment.open(index, kind, sealed)?;
        if kind != BlockKind::Records {
            let final_footer = kind == BlockKind::FinalFooter;
            segment.check_footer(&text)?;
            return (final_footer == self.end.is_some())
                .then_some(())
                .ok_or(ScanFault::End);
        }
        let length = pack::unpack(&mut segment.window, &text).ok_or(ScanFault::Packed)?;
        self.left = (self.left.checked_sub(length as u64)).ok_or(ScanFault::TooLong)?;
        let from = segment.window.len() - length;
        let mut records = segment.window.get(from..).unwrap_or_default();
        segment.found.blocks += 1;
        segment.found.bytes = segment.found.bytes.saturating_add(length as u64);
        while !records.is_empty() {
            let (delta, event) = record::decode(&mut records).map_err(|_| ScanFault::Record)?;
            self.handle_record(delta, event.as_ref())?;
            if let Some(event) = event {
                each(self.at.micros, &Record { delta, event });
            }
            if segment.found.records == 0 {
                segment.found.from = self.at.micros;
            }
            segment.found.records += 1;
            segment.found.to = self.at.micros;
        }
        Ok(())
    }

    fn handle_record(&mut self, delta: u64, event: Option<&Event<'_>>) -> Result<(), ScanFault> {
        if self.end.is_some() {
            return Err(ScanFault::End);
        }
        let starts = match event {
            Some(Event::Start(start)) if start.session == self.session => true,
            Some(Event::Start(_)) => return Err(ScanFault::Start),
            _ => false,
        };
        if starts == self.started {
            return Err(ScanFault::Start);
        }
        self.started = true;
        self.at.micros = self.at.micros.checked_add(delta).ok_or(ScanFault::Record)?;
        if let Some(Event::End(end)) = event {
            self.end = Some(end.clone());
        }
        Ok(())
    }
}

/// A segment whose blocks are being opened.
struct OpenSegment {
    header: SegmentHeader,
    opener: SealOpener,
    window: Vec<u8>,
    found: Footer,
}

impl OpenSegment {
    fn new(header: SegmentHeader, secrets: &[RecordingSecret]) -> Result<Self, ScanFault> {
        let secret = secrets
            .iter()
            .find(|secret| secret.public().id() == header.key)
            .ok_or(ScanFault::UnknownKey(header.key))?;
        let opener = SealOpener::new(secret, &header.info(), &header.encapsulated);
        Ok(Self {
            header,
            opener: opener.map_err(|_| ScanFault::Seal)?,
            window: Vec::new(),
            found: Footer::default(),
        })
    }

    fn open(&mut self, index: u32, kind: BlockKind, sealed: &[u8]) -> Result<Vec<u8>, ScanFault> {
        let bound = bound(&self.header.session, self.header.index, index, kind);
        self.opener
            .open(sealed, &bound)
            .map_err(|_| ScanFault::Seal)
    }

    fn check_footer(&self, text: &[u8]) -> Result<(), ScanFault> {
        let (footer, _newer_fields) =
            postcard::take_from_bytes::<Footer>(text).map_err(|_| ScanFault::Footer)?;
        (footer == self.found)
            .then_some(())
            .ok_or(ScanFault::Footer)
    }
}

impl fmt::Debug for RecordingReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("session", &self.session)
            .field("at", &self.at)
            .field("verdict", &self.verdict())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
pub(super) mod tests;
