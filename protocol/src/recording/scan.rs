//! Checking segments without the key: where the last whole block ends, and whether each follows from what
//! is before it.

use alloc::vec::Vec;

use thiserror::Error;

use super::seal::{ENCAPSULATED_LEN, KeyId};
use super::segment::{
    BLOCK_HEAD_LEN, BlockKind, HEADER_LEN, INFO_LEN, MAGIC, SUITE, SegmentHeader, SegmentLink,
    VERSION, block_length,
};
use crate::ids::SessionId;

/// A fault of a recording. Its place is given beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ScanFault {
    /// There is nothing where a segment belongs.
    #[error("it is missing")]
    Missing,
    /// It does not begin as a segment does.
    #[error("it is not a segment of a recording")]
    NotASegment,
    /// It is of a format that this version does not know.
    #[error("its format has version {0}, which is unknown here")]
    Version(u8),
    /// The header's check does not fit its bytes.
    #[error("its header was altered")]
    Header,
    /// It belongs to another session.
    #[error("it belongs to session {0}")]
    OtherSession(SessionId),
    /// Its number is not the next.
    #[error("it is segment {found}, where segment {expected} belongs")]
    OutOfOrder {
        /// The number that belongs here.
        expected: u32,
        /// The number in it.
        found: u32,
    },
    /// It has no footer, although another segment follows it.
    #[error("it was cut short")]
    CutShort,
    /// It does not continue the chain.
    #[error("it does not follow from what is before it")]
    DoesNotFollow,
    /// A block that is longer than any can be, or too short for a seal.
    #[error("a block has an impossible length")]
    Length,
    /// A block of a kind that is unknown.
    #[error("a block is of an unknown kind")]
    Kind,
    /// A block's check does not fit its bytes and what is before it.
    #[error("a block was altered")]
    Block,
    /// There is more behind the footer.
    #[error("there is something behind the footer")]
    BehindFooter,
    /// There is more behind the last segment.
    #[error("there is something behind the last segment")]
    BehindEnd,
    /// It is sealed to a key that is not at hand.
    #[error("it is sealed to recording key {0}, which is not known here")]
    UnknownKey(KeyId),
    /// The seal does not hold.
    #[error("a seal is not valid")]
    Seal,
    /// The text under the seal does not unpack.
    #[error("a block cannot be unpacked")]
    Packed,
    /// The blocks unpack to more than the session can have been.
    #[error("it unpacks to more than the session can have been")]
    TooLong,
    /// The text under the seal is no record.
    #[error("a block has an invalid record")]
    Record,
    /// The footer's counts are not those of the segment.
    #[error("the footer does not match its segment")]
    Footer,
    /// A recording that does not begin with its start, or begins twice.
    #[error("a recording begins with exactly one start")]
    Start,
    /// A recording that closes without an end, or goes on behind it.
    #[error("a recording ends with exactly one end")]
    End,
}

impl ScanFault {
    /// Returns whether a segment is not what was written, and those behind it may be.
    pub(super) fn is_damage(self) -> bool {
        let is_gone = matches!(self, Self::Missing | Self::CutShort);
        is_gone || self.is_of_a_block() || self.is_of_the_header() || self.is_misplaced()
    }

    /// Returns whether the header is whole, and belongs elsewhere.
    pub(super) fn is_misplaced(self) -> bool {
        matches!(
            self,
            Self::OtherSession(_) | Self::OutOfOrder { .. } | Self::DoesNotFollow
        )
    }

    /// Returns whether the header is not what was written. One that is whole, and belongs elsewhere, is none of these.
    pub(super) fn is_of_the_header(self) -> bool {
        matches!(self, Self::NotASegment | Self::Version(_) | Self::Header)
    }

    /// Returns whether it is a fault of one block, and not of the whole segment: what is behind it may be whole.
    fn is_of_a_block(self) -> bool {
        matches!(
            self,
            Self::Block | Self::Kind | Self::Length | Self::BehindFooter
        )
    }
}

/// The part of a segment that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// Its header.
    Header(SegmentHeader),
    /// A whole block, whose sealed bytes are in [`SegmentScan::sealed`] until the next call.
    Block {
        /// Its number in the segment, from 0.
        index: u32,
        /// Its content.
        kind: BlockKind,
    },
}

/// Reads one segment, in pieces of any size. Holds at most one block.
#[derive(Debug)]
pub struct SegmentScan {
    expected: ExpectedSegment,
    header: Option<SegmentHeader>,
    link: SegmentLink,
    blocks: u32,
    closed: Option<BlockKind>,
    /// Bytes up to the end of the last whole block (or the header).
    whole: u64,
    /// Bytes behind it.
    pending: Vec<u8>,
    given: bool,
}

/// The expected segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExpectedSegment {
    /// The session, and the number of the segment.
    pub place: Option<(SessionId, u32)>,
    /// The chain before it, where that is known.
    pub before: Option<SegmentLink>,
}

impl SegmentScan {
    /// Creates a scan of a segment of which this is known.
    #[must_use]
    pub fn new(expected: ExpectedSegment) -> Self {
        Self {
            expected,
            header: None,
            link: SegmentLink([0; 32]),
            blocks: 0,
            closed: None,
            whole: 0,
            pending: Vec::new(),
            given: false,
        }
    }

    /// Takes bytes from the front of `input` until a header or block is whole, and checks it; `None` when
    /// `input` is used up.
    ///
    /// # Errors
    /// [`ScanFault`]. All before it is whole ([`Self::whole`]); nothing more can be read.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Scanned>, ScanFault> {
        if self.given {
            self.pending.clear();
            self.given = false;
        }
        if self.header.is_none() {
            return self.read_header(input);
        }
        if self.closed.is_some() {
            return if input.is_empty() && self.pending.is_empty() {
                Ok(None)
            } else {
                Err(ScanFault::BehindFooter)
            };
        }
        if !self.fill(input, BLOCK_HEAD_LEN) {
            return Ok(None);
        }
        let (kind, length) = self.block_head()?;
        if !self.fill(input, BLOCK_HEAD_LEN + length) {
            return Ok(None);
        }
        self.finish_block(kind).map(Some)
    }

    /// Returns the bytes from the segment's beginning to the end of its last whole block.
    #[must_use]
    pub fn whole(&self) -> u64 {
        self.whole
    }

    /// Returns bytes behind it that are no whole block.
    #[must_use]
    pub fn torn(&self) -> usize {
        if self.given { 0 } else { self.pending.len() }
    }

    /// Checks that a segment that has no more bytes ends behind a block. The length of the last one may be damaged: then
    /// the block seems to go on.
    ///
    /// # Errors
    /// [`ScanFault::Length`]; [`ScanFault::NotASegment`] if it ends within its header, [`ScanFault::Missing`] if before.
    pub fn finish(&self) -> Result<(), ScanFault> {
        match (&self.header, self.torn() > 0) {
            (None, false) => Err(ScanFault::Missing),
            (None, true) => Err(ScanFault::NotASegment),
            (Some(_), true) => Err(ScanFault::Length),
            (Some(_), false) => Ok(()),
        }
    }

    /// Returns the chain there.
    #[must_use]
    pub fn link(&self) -> SegmentLink {
        self.link
    }

    /// Returns whole blocks, the footer among them.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Returns the kind of its footer, once that was read.
    #[must_use]
    pub fn closed(&self) -> Option<BlockKind> {
        self.closed
    }

    /// Returns its header, once that was read.
    #[must_use]
    pub fn header(&self) -> Option<&SegmentHeader> {
        self.header.as_ref()
    }

    /// Returns the sealed bytes of the block that was just read.
    #[must_use]
    pub fn sealed(&self) -> &[u8] {
        self.pending.get(BLOCK_HEAD_LEN..).unwrap_or_default()
    }

    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<Scanned>, ScanFault> {
        if !self.fill(input, HEADER_LEN) {
            return Ok(None);
        }
        let (header, link) = parse_header(&self.pending)?;
        if let Some((session, index)) = self.expected.place {
            if header.session != session {
                return Err(ScanFault::OtherSession(header.session));
            }
            if header.index != index {
                return Err(ScanFault::OutOfOrder {
                    expected: index,
                    found: header.index,
                });
            }
        }
        let first = (header.index == 0).then(|| SegmentLink::first(&header.session));
        if [self.expected.before, first]
            .into_iter()
            .flatten()
            .any(|before| before != header.before)
        {
            return Err(ScanFault::DoesNotFollow);
        }
        self.pending.clear();
        self.whole = HEADER_LEN as u64;
        self.link = link;
        self.header = Some(header);
        Ok(Some(Scanned::Header(header)))
    }

    fn block_head(&self) -> Result<(BlockKind, usize), ScanFault> {
        let head = self.head();
        let kind = BlockKind::from_number(head[0]).ok_or(ScanFault::Kind)?;
        let length = block_length(&head).ok_or(ScanFault::Length)?;
        Ok((kind, length - BLOCK_HEAD_LEN))
    }

    fn finish_block(&mut self, kind: BlockKind) -> Result<Scanned, ScanFault> {
        let link = self.link.behind_block(self.head(), self.sealed());
        if self.pending.get(4..BLOCK_HEAD_LEN) != Some(&link.check()) {
            return Err(ScanFault::Block);
        }
        let index = self.blocks;
        self.blocks = index.checked_add(1).ok_or(ScanFault::Length)?;
        self.link = link;
        self.whole += self.pending.len() as u64;
        self.closed = (kind != BlockKind::Records).then_some(kind);
        self.given = true;
        Ok(Scanned::Block { index, kind })
    }

    fn head(&self) -> [u8; 4] {
        self.pending.first_chunk().copied().unwrap_or_default()
    }

    /// Moves bytes until `pending` holds `target` of them; false when `input` ran dry before.
    fn fill(&mut self, input: &mut &[u8], target: usize) -> bool {
        let wanted = target.saturating_sub(self.pending.len()).min(input.len());
        let (now, later) = input.split_at(wanted);
        self.pending.extend_from_slice(now);
        *input = later;
        self.pending.len() >= target
    }
}

pub(super) fn parse_header(bytes: &[u8]) -> Result<(SegmentHeader, SegmentLink), ScanFault> {
    let mut rest = bytes;
    if take::<4>(&mut rest)? != MAGIC {
        return Err(ScanFault::NotASegment);
    }
    let [version, suite, ..] = take::<4>(&mut rest)?;
    if version != VERSION {
        return Err(ScanFault::Version(version));
    }
    if suite != SUITE {
        return Err(ScanFault::Header);
    }
    let header = SegmentHeader {
        session: SessionId(take(&mut rest)?),
        index: u32::from_be_bytes(take(&mut rest)?),
        key: KeyId(take(&mut rest)?),
        before: SegmentLink(take(&mut rest)?),
        encapsulated: take::<ENCAPSULATED_LEN>(&mut rest)?,
    };
    let head = bytes.get(..HEADER_LEN - 8).ok_or(ScanFault::NotASegment)?;
    let link = header.behind(head);
    // The reserved bytes are under the check, and have to be zero for the seals to hold.
    if rest.get(..8) != Some(&link.check()) || head.get(..INFO_LEN) != Some(&header.info()) {
        return Err(ScanFault::Header);
    }
    Ok((header, link))
}

fn take<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], ScanFault> {
    let (taken, rest) = from
        .split_first_chunk::<N>()
        .ok_or(ScanFault::NotASegment)?;
    *from = rest;
    Ok(*taken)
}
