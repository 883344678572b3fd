//! Writes segments.

use alloc::vec::Vec;
use core::fmt;

use thiserror::Error;

use super::{
    BLOCK_HEAD_LEN, BLOCK_OVERHEAD, BlockKind, Footer, HEADER_LEN, SEGMENT_OVERHEAD, SegmentHeader,
    SegmentLink, block_head, bound,
};
use crate::ids::SessionId;
use crate::limits::{MAX_BLOCK_PLAIN, MAX_SEGMENT, MAX_SEGMENTS, STORED_BLOCKS};
use crate::recording::pack;
use crate::recording::record::{Record, RecordError};
use crate::recording::seal::{
    ENCAPSULATED_LEN, RecordingKey, SealError, SealSeed, Sealer, TAG_LEN,
};

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
