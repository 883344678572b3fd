//! Segments: a header, sealed blocks of records, a sealed footer. [`SegmentWriter`] makes them.
//!
//! A chain of SHA-256 over the ciphertexts runs through all segments of a session. Each header and block
//! carries the first bytes of its link as a check, so that a reader without the key finds the last whole block
//! after a cut anywhere, and one value names everything before it.

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::digest::sha256;
use super::pack;
use super::record::{Record, RecordError};
use super::seal::{
    ENCAPSULATED_LEN, KeyId, RecordingKey, SealError, SealSeed, Sealer, TAG_LEN, first_bytes,
};
use crate::ids::SessionId;
use crate::limits::{MAX_BLOCK_PLAIN, MAX_BLOCK_SEALED, MAX_SEGMENT, MAX_SEGMENTS, STORED_BLOCKS};

/// The first bytes of every segment.
pub const MAGIC: [u8; 4] = *b"HFRS";

/// The version of the format. Another one is another format.
pub const VERSION: u8 = 1;

/// HPKE with X25519, HKDF-SHA256 and ChaCha20-Poly1305; SHA-256; LZ4.
pub const SUITE: u8 = 1;

/// Length of a segment's header.
pub const HEADER_LEN: usize = 108;

/// Length of the head before each sealed block.
pub const BLOCK_HEAD_LEN: usize = 12;

/// The most that a block takes beyond its plain bytes: its head, the tag and the codec's byte.
pub const BLOCK_OVERHEAD: usize = BLOCK_HEAD_LEN + TAG_LEN + 1;

/// The most that a closed segment takes beyond its blocks: header and footer.
pub const SEGMENT_OVERHEAD: usize = HEADER_LEN + BLOCK_HEAD_LEN + TAG_LEN + MAX_FOOTER;

/// The longest encoded footer.
const MAX_FOOTER: usize = 40;

pub use crate::wire::SegmentLink;

/// A segment's header, without its check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The session that it belongs to.
    pub session: SessionId,
    /// Its number in the session, from 0.
    pub index: u32,
    /// The key that opens it.
    pub key: KeyId,
    /// The chain before it.
    pub before: SegmentLink,
    /// HPKE's encapsulated key.
    pub encapsulated: [u8; ENCAPSULATED_LEN],
}

/// The content of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Records.
    Records,
    /// The footer of a segment that another follows.
    Footer,
    /// The footer of the last segment.
    FinalFooter,
}

/// The content of a footer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    /// Blocks of records in the segment.
    pub blocks: u32,
    /// Records in it.
    pub records: u32,
    /// Bytes of records in it.
    pub bytes: u64,
    /// Microseconds from the recording's start to the segment's first record.
    pub from: u64,
    /// And to its last.
    pub to: u64,
}

/// The reason why a record can't be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WriteError {
    /// It is no record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It can't be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A session of more than [`MAX_SEGMENTS`] segments.
    #[error("a recording has at most {MAX_SEGMENTS} segments")]
    TooManySegments,
}

/// Writes one segment: takes records, gives bytes.
pub struct SegmentWriter {
    sealer: Sealer,
    session: SessionId,
    index: u32,
    link: SegmentLink,
    /// The text of the blocks before, as far as a block may refer to it, and then the records that are
    /// not sealed yet.
    text: Vec<u8>,
    window: usize,
    /// Full blocks that are stored without an attempt to compress them, because the last attempt was vain.
    vain: u32,
    footer: Footer,
    /// Bytes given out.
    length: usize,
}

impl SegmentWriter {
    /// Begins segment `index` of a session, behind `before`, and appends its header to `out`.
    ///
    /// # Errors
    /// [`WriteError::Seal`] if the key is unusable, [`WriteError::TooManySegments`].
    pub fn begin(
        session: SessionId,
        index: u32,
        before: SegmentLink,
        key: &RecordingKey,
        seed: &mut SealSeed,
        out: &mut Vec<u8>,
    ) -> Result<Self, WriteError> {
        if index >= MAX_SEGMENTS {
            return Err(WriteError::TooManySegments);
        }
        let mut header = SegmentHeader {
            session,
            index,
            key: key.id(),
            before,
            encapsulated: [0; ENCAPSULATED_LEN],
        };
        let (sealer, encapsulated) = Sealer::new(key, &header.info(), seed)?;
        header.encapsulated = encapsulated;
        let (bytes, link) = header.encode();
        out.extend_from_slice(&bytes);
        Ok(Self {
            sealer,
            session,
            index,
            link,
            text: Vec::new(),
            window: 0,
            vain: 0,
            footer: Footer::default(),
            length: HEADER_LEN,
        })
    }

    /// Takes a record that happened `at` microseconds after the recording's start. A block that is full
    /// is sealed and appended to `out`.
    ///
    /// # Errors
    /// [`WriteError`]; after one of sealing the segment is of no use any more.
    pub fn push(
        &mut self,
        record: &Record<'_>,
        at: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        let end = self.text.len();
        record.encode(&mut self.text)?;
        if self.text.len() - self.window > MAX_BLOCK_PLAIN {
            self.seal_records(end, out)?;
        }
        if self.footer.records == 0 {
            self.footer.from = at;
        }
        self.footer.to = at;
        self.footer.records = self.footer.records.saturating_add(1);
        Ok(())
    }

    /// Seals the records that are waiting, if any, and appends the block to `out`.
    ///
    /// # Errors
    /// [`WriteError::Seal`].
    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError> {
        if self.pending() > 0 {
            self.seal_records(self.text.len(), out)?;
        }
        Ok(())
    }

    /// Flushes, and ends the segment with its footer: the last one, if `last`.
    ///
    /// # Errors
    /// [`WriteError::Seal`].
    pub fn close(mut self, last: bool, out: &mut Vec<u8>) -> Result<SegmentLink, WriteError> {
        self.flush(out)?;
        let kind = if last {
            BlockKind::FinalFooter
        } else {
            BlockKind::Footer
        };
        let footer = postcard::to_allocvec(&self.footer).map_err(|_| SealError::Broken)?;
        self.seal(kind, &footer, out)?;
        Ok(self.link)
    }

    /// Returns bytes of records that are not sealed yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.text.len() - self.window
    }

    /// Returns whether the segment is full when what is pending is sealed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let next = self.pending() + MAX_BLOCK_PLAIN + 2 * BLOCK_OVERHEAD + SEGMENT_OVERHEAD;
        self.length + next > MAX_SEGMENT
    }

    /// Returns whether no record was written into it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.footer.records == 0
    }

    /// Returns the chain behind what was given out.
    #[must_use]
    pub fn link(&self) -> SegmentLink {
        self.link
    }

    /// Returns bytes given out.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Seals the records up to `end` of the text.
    fn seal_records(&mut self, end: usize, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let (window, rest) = self.text.split_at(self.window);
        let plain = rest.get(..end - self.window).unwrap_or(rest);
        let full = plain.len() >= MAX_BLOCK_PLAIN / 2;
        let packed = if full && self.vain > 0 {
            self.vain -= 1;
            pack::store(plain)
        } else {
            let packed = pack::pack(window, plain);
            // What was said of a few keystrokes says nothing of a copy.
            if full && pack::is_stored(&packed) {
                self.vain = STORED_BLOCKS;
            }
            packed
        };
        self.footer.bytes = self.footer.bytes.saturating_add(plain.len() as u64);
        self.seal(BlockKind::Records, &packed, out)?;
        self.footer.blocks += 1;
        let pending = self.text.split_off(end);
        pack::slide(&mut self.text);
        self.window = self.text.len();
        self.text.extend_from_slice(&pending);
        Ok(())
    }

    fn seal(&mut self, kind: BlockKind, text: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
        let before = out.len();
        let length = text.len() + TAG_LEN;
        let head = block_head(kind, length);
        out.extend_from_slice(&head);
        out.extend_from_slice(&[0; 8]);
        let bound = bound(&self.session, self.index, self.footer.blocks, kind);
        self.sealer.seal(text, &bound, out)?;
        let (_, block) = out.split_at_mut(before);
        let (check, sealed) = block.split_at_mut(BLOCK_HEAD_LEN);
        self.link = self.link.behind_block(head, sealed);
        if let Some(check) = check.get_mut(4..) {
            check.copy_from_slice(&self.link.check());
        }
        self.length += BLOCK_HEAD_LEN + length;
        Ok(())
    }
}

impl SegmentLink {
    /// Returns where the chain of a session begins.
    #[must_use]
    pub fn first(session: &SessionId) -> Self {
        Self(sha256(&[b"holdfast recording v1\0", &session.0]))
    }

    /// Returns the check that is stored of it.
    #[must_use]
    pub fn check(&self) -> [u8; 8] {
        first_bytes(&self.0)
    }

    pub(super) fn behind_block(&self, head: [u8; 4], sealed: &[u8]) -> Self {
        Self(sha256(&[&[1], &self.0, &head, sealed]))
    }
}

impl SegmentHeader {
    /// Returns the bytes of the header, check and all, and the chain behind it.
    #[must_use]
    pub fn encode(&self) -> ([u8; HEADER_LEN], SegmentLink) {
        let mut bytes = [0; HEADER_LEN];
        let (head, check) = bytes.split_at_mut(HEADER_LEN - 8);
        let (info, encapsulated) = head.split_at_mut(INFO_LEN);
        info.copy_from_slice(&self.info());
        encapsulated.copy_from_slice(&self.encapsulated);
        let link = self.behind(head);
        check.copy_from_slice(&link.check());
        (bytes, link)
    }

    /// Returns the bytes before the encapsulated key: HPKE binds the segment's key to it.
    pub(super) fn info(&self) -> [u8; INFO_LEN] {
        let mut info = [0; INFO_LEN];
        let fields: [&[u8]; 6] = [
            &MAGIC,
            &[VERSION, SUITE, 0, 0],
            &self.session.0,
            &self.index.to_be_bytes(),
            &self.key.0,
            &self.before.0,
        ];
        for (to, from) in info.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        info
    }

    /// Returns the chain behind a header of these bytes.
    pub(super) fn behind(&self, head: &[u8]) -> SegmentLink {
        SegmentLink(sha256(&[&[0], &self.before.0, head]))
    }
}

/// Length of the header up to the encapsulated key.
pub(super) const INFO_LEN: usize = HEADER_LEN - 8 - ENCAPSULATED_LEN;

impl BlockKind {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Records => 0,
            Self::Footer => 1,
            Self::FinalFooter => 2,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Records),
            1 => Some(Self::Footer),
            2 => Some(Self::FinalFooter),
            _ => None,
        }
    }
}

/// Returns the first four bytes of a block: its kind and the length of what is sealed.
fn block_head(kind: BlockKind, length: usize) -> [u8; 4] {
    // At most `MAX_BLOCK_SEALED`, which is below 2^24.
    let [_, high, middle, low] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [kind.number(), high, middle, low]
}

/// Returns the length of the block that these bytes seem to begin, its head included.
pub(super) fn block_length(bytes: &[u8]) -> Option<usize> {
    let [kind, high, middle, low] = *bytes.first_chunk::<4>()?;
    BlockKind::from_number(kind)?;
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    (TAG_LEN..=MAX_BLOCK_SEALED)
        .contains(&length)
        .then_some(BLOCK_HEAD_LEN + length)
}

/// Returns what each seal is bound to: its place, and whether it is the last.
pub(super) fn bound(session: &SessionId, segment: u32, block: u32, kind: BlockKind) -> [u8; 25] {
    let mut bound = [0; 25];
    let fields: [&[u8]; 4] = [
        &session.0,
        &segment.to_be_bytes(),
        &block.to_be_bytes(),
        &[kind.number()],
    ];
    for (to, from) in bound.iter_mut().zip(fields.into_iter().flatten()) {
        *to = *from;
    }
    bound
}

impl fmt::Debug for SegmentLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({self})")
    }
}

impl fmt::Display for SegmentLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SegmentWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentWriter")
            .field("session", &self.session)
            .field("index", &self.index)
            .field("length", &self.length)
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}
