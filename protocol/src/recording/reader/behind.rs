//! Reads behind a damaged block or header, and behind a segment that is missing, cut short or another's: the blocks that
//! can still be opened, and the segments after it.
//!
//! No chain leads there, so that nothing of it is proved: the seals alone say that each block was sealed to the key, and
//! that it is in its place. A block that was packed with text of the damaged one cannot be unpacked, and is missing, too.

use alloc::vec::Vec;
use core::{iter, mem};

use super::RecordingReader;
use crate::ids::SessionId;
use crate::limits::{BLOCK_WINDOW, MAX_LOST_BLOCKS, MAX_SEARCH_BYTES, MAX_SEARCH_STARTS};
use crate::recording::pack;
use crate::recording::record::{self, Event, Record};
use crate::recording::scan::{ScanFault, parse_header};
use crate::recording::seal::{RecordingSecret, SkippingOpener};
use crate::recording::segment::{
    BLOCK_HEAD_LEN, BlockKind, Footer, HEADER_LEN, INFO_LEN, SegmentHeader, SegmentLink,
    block_length, bound,
};

/// The first of the blocks that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedBlock {
    /// The segment.
    pub segment: u32,
    /// The block in it.
    pub block: u32,
}

/// A part of what is behind a damaged block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind<'a> {
    /// Here blocks are missing.
    Damage(DamagedBlock),
    /// A record. Where no footer says its time, that is counted from the last one before the damage.
    Record(&'a Record<'a>),
}

/// Reads what is behind a damaged block, which is where a [`RecordingReader`] has stopped.
#[derive(Debug)]
pub struct BehindReader<'k> {
    session: SessionId,
    secrets: &'k [RecordingSecret],
    /// The segment that is read next.
    segment: u32,
    /// The damaged block in it.
    damaged: Option<u32>,
    /// The chain before it, if its header is damaged.
    before: Option<SegmentLink>,
    /// The place where the segment before was cut, which is still to be given.
    cut: Option<DamagedBlock>,
    /// The segment before was missing.
    is_missing: bool,
    micros: u64,
    /// `micros` is the time of the last record.
    is_timed: bool,
    /// The bytes that the blocks may still unpack to.
    left: u64,
    /// The sealed bytes that may still be tried to find a block.
    search: u64,
    started: bool,
    ended: bool,
}

impl<'k> RecordingReader<'k> {
    /// Returns what reads on behind the damage that stopped this reader; `None` if none did. It begins with the segment
    /// that [`Self::read_segment`] did not take.
    #[must_use]
    pub fn behind(&self) -> Option<BehindReader<'k>> {
        let fault = self.fault?;
        let is_sealed_otherwise = matches!(fault, ScanFault::Seal | ScanFault::UnknownKey(_));
        let is_damage = fault.is_damage() || is_sealed_otherwise;
        // It shows at the segment behind it, which is the next one to be read.
        let is_cut = fault == ScanFault::CutShort;
        (is_damage && self.end.is_none()).then_some(BehindReader {
            session: self.session,
            secrets: self.secrets,
            segment: self.at.segment.saturating_add(u32::from(is_cut)),
            damaged: Some(self.at.block).filter(|_| !is_cut),
            before: Some(self.link).filter(|_| fault.is_of_the_header()),
            cut: is_cut.then_some(DamagedBlock {
                segment: self.at.segment,
                block: self.at.block,
            }),
            is_missing: false,
            micros: self.at.micros,
            is_timed: false,
            left: self.left,
            search: MAX_SEARCH_BYTES,
            started: self.started,
            ended: false,
        })
    }
}

impl BehindReader<'_> {
    /// Reads the next segment, and gives each part that is behind the damaged block, with its time. Returns whether
    /// there is something behind the segment.
    pub fn read_segment(&mut self, bytes: &[u8], each: &mut dyn FnMut(u64, Behind<'_>)) -> bool {
        let segment = self.segment;
        if let Some(cut) = self.cut.take() {
            each(self.micros, Behind::Damage(cut));
        }
        let damaged = self.damaged.take();
        let from = damaged.unwrap_or(0);
        let opened = self.open(bytes, damaged).and_then(|blocks| {
            let left = self.left.checked_sub(blocks.unpacked(from));
            self.left = left.ok_or(ScanFault::TooLong)?;
            Ok(blocks)
        });
        let blocks = match opened {
            Ok(blocks) => blocks,
            Err(fault) => {
                let block = DamagedBlock {
                    segment,
                    block: from,
                };
                // Several that are missing are one place.
                let was_missing = mem::replace(&mut self.is_missing, fault == ScanFault::Missing);
                if !(was_missing && self.is_missing) {
                    each(self.micros, Behind::Damage(block));
                }
                self.is_timed = false;
                self.segment = segment.saturating_add(1);
                // The next segment has a header of its own.
                return fault != ScanFault::TooLong;
            }
        };
        self.is_missing = false;
        // The footer has the time of the last record. All others are counted back from there.
        let (mut places, mut since) = (0_u32, 0_u64);
        blocks.walk(&mut |part| match part {
            Walked::Damage(_) => (places, since) = (places + 1, 0),
            Walked::Record(block, delta, _) if block >= from => {
                since = since.saturating_add(delta);
            }
            Walked::Record(..) => {}
        });
        let timed = blocks.footer.map(|footer| footer.to.saturating_sub(since));
        if places == 0 && !self.is_timed {
            self.micros = self.micros.max(timed.unwrap_or(0));
        }
        blocks.walk(&mut |part| match part {
            Walked::Damage(block) => {
                each(self.micros, Behind::Damage(DamagedBlock { segment, block }));
                places = places.saturating_sub(1);
                if places == 0 {
                    self.micros = self.micros.max(timed.unwrap_or(0));
                }
            }
            Walked::Record(block, delta, record) if block >= from => {
                self.micros = self.micros.saturating_add(delta);
                if let Some(record) = record.filter(|record| self.belongs(&record.event)) {
                    each(self.micros, Behind::Record(record));
                }
            }
            Walked::Record(..) => {}
        });
        self.is_timed = blocks.footer.is_some();
        self.segment = segment.saturating_add(1);
        !self.ended
    }

    /// Returns whether an event has a place here: a recording begins once, and ends once.
    fn belongs(&mut self, event: &Event<'_>) -> bool {
        if self.ended {
            return false;
        }
        match event {
            Event::Start(start) => {
                !mem::replace(&mut self.started, true) && start.session == self.session
            }
            Event::End(_) => {
                self.ended = true;
                true
            }
            _ => true,
        }
    }

    /// Opens the blocks of a segment, as far as they can be found.
    fn open(&mut self, bytes: &[u8], damaged: Option<u32>) -> Result<SegmentBlocks, ScanFault> {
        let (header, mut opener) = self.open_header(bytes)?;
        let mut rest = bytes.get(HEADER_LEN..).unwrap_or_default();
        let mut blocks = SegmentBlocks {
            damaged,
            ..SegmentBlocks::default()
        };
        while !rest.is_empty() {
            let Some((length, block)) = self.next_block(&header, &mut opener, blocks.next, rest)
            else {
                blocks.is_cut = true;
                break;
            };
            rest = rest.get(length..).unwrap_or_default();
            blocks.take(block);
        }
        Ok(blocks)
    }

    /// Returns the header of the segment, and what opens its blocks.
    fn open_header(&mut self, bytes: &[u8]) -> Result<(SegmentHeader, SkippingOpener), ScanFault> {
        if bytes.is_empty() {
            return Err(ScanFault::Missing);
        }
        let before = self.before.take();
        let head = bytes.get(..HEADER_LEN).ok_or(ScanFault::NotASegment)?;
        let header = match parse_header(head) {
            Ok((header, _)) => header,
            Err(fault) => {
                let restored = before.and_then(|before| self.restore_header(bytes, before));
                return restored.ok_or(fault);
            }
        };
        if header.session != self.session || header.index != self.segment {
            return Err(ScanFault::OtherSession(header.session));
        }
        let mut secrets = self.secrets.iter();
        let secret = secrets.find(|secret| secret.public().id() == header.key);
        let secret = secret.ok_or(ScanFault::UnknownKey(header.key))?;
        let opener = SkippingOpener::new(secret, &header.info(), &header.encapsulated);
        Ok((header, opener.map_err(|_| ScanFault::Seal)?))
    }

    /// Returns the header as it was written, if only its other fields than the encapsulated key are damaged: they are
    /// known. It is the right one if it opens the first block.
    fn restore_header(
        &mut self,
        bytes: &[u8],
        before: SegmentLink,
    ) -> Option<(SegmentHeader, SkippingOpener)> {
        let encapsulated = *bytes.get(INFO_LEN..)?.first_chunk()?;
        let first = bytes.get(HEADER_LEN..)?;
        let secrets = self.secrets;
        secrets.iter().find_map(|secret| {
            let header = SegmentHeader {
                session: self.session,
                index: self.segment,
                key: secret.public().id(),
                before,
                encapsulated,
            };
            let opener = || SkippingOpener::new(secret, &header.info(), &encapsulated).ok();
            self.try_block(&header, &mut opener()?, 0, first, 0)?;
            Some((header, opener()?))
        })
    }

    /// Finds the next block that can be opened, which as a rule is number `next` and the first in `rest`. Returns the
    /// bytes to its end, too.
    fn next_block(
        &mut self,
        header: &SegmentHeader,
        opener: &mut SkippingOpener,
        next: u32,
        rest: &[u8],
    ) -> Option<(usize, OpenedBlock)> {
        let found = self.try_block(header, opener, next, rest, 0);
        if found.is_some() {
            return found;
        }
        // A damaged block may begin with a head that is whole.
        let first = block_length(rest);
        let starts = first.into_iter().chain(1..rest.len());
        let starts = starts.filter(|start| {
            let rest = rest.get(*start..).unwrap_or_default();
            block_length(rest).is_some_and(|length| length <= rest.len())
        });
        let starts: Vec<usize> = starts.take(MAX_SEARCH_STARTS).collect();
        for index in (1..=MAX_LOST_BLOCKS).filter_map(|lost| next.checked_add(lost)) {
            opener.skip().ok()?;
            for start in &starts {
                let found = self.try_block(header, opener, index, rest, *start);
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    /// Opens what begins at `start`, if it is the block of this number.
    fn try_block(
        &mut self,
        header: &SegmentHeader,
        opener: &mut SkippingOpener,
        index: u32,
        rest: &[u8],
        start: usize,
    ) -> Option<(usize, OpenedBlock)> {
        let block = rest.get(start..)?;
        let length = block_length(block)?;
        let kind = BlockKind::from_number(*block.first()?)?;
        let sealed = block.get(BLOCK_HEAD_LEN..length)?;
        // The first attempt is what a whole recording costs.
        if start > 0 {
            self.search = self.search.checked_sub(length as u64)?;
        }
        let bound = bound(&header.session, header.index, index, kind);
        let text = opener.open(sealed, &bound).ok()?;
        Some((start + length, OpenedBlock { index, kind, text }))
    }
}

/// A block that could be opened.
#[derive(Debug)]
struct OpenedBlock {
    index: u32,
    kind: BlockKind,
    /// Its text, packed.
    text: Vec<u8>,
}

/// The blocks of a segment that could be opened.
#[derive(Debug, Default)]
struct SegmentBlocks {
    opened: Vec<OpenedBlock>,
    /// The block at which the reader before has stopped.
    damaged: Option<u32>,
    /// The number of the next one.
    next: u32,
    /// Places at which blocks are missing.
    gaps: u32,
    /// Something behind the last one cannot be opened.
    is_cut: bool,
    footer: Option<Footer>,
}

/// A step through the blocks of a segment.
enum Walked<'a> {
    /// Blocks are missing, from this one on.
    Damage(u32),
    /// A record of that block, after so many microseconds. It is `None` if its kind is not known.
    Record(u32, u64, Option<&'a Record<'a>>),
}

impl SegmentBlocks {
    fn take(&mut self, block: OpenedBlock) {
        self.gaps += u32::from(block.index != self.next);
        self.next = block.index.saturating_add(1);
        if block.kind != BlockKind::Records {
            let footer = postcard::take_from_bytes::<Footer>(&block.text);
            self.footer = footer.ok().map(|(footer, _newer_fields)| footer);
        }
        self.opened.push(block);
    }

    /// Returns the bytes of records in the blocks from that one on.
    fn unpacked(&self, from: u32) -> u64 {
        let records = self
            .opened
            .iter()
            .filter(|block| block.kind == BlockKind::Records && block.index >= from);
        records.fold(0, |sum: u64, block| {
            sum.saturating_add(pack::plain_length(&block.text) as u64)
        })
    }

    /// Returns how many bytes of records the missing blocks had, if they are all in one place.
    fn missing(&self) -> Option<usize> {
        let all = self.footer.filter(|_| self.gaps == 1)?.bytes;
        usize::try_from(all.checked_sub(self.unpacked(0))?).ok()
    }

    fn walk(&self, each: &mut dyn FnMut(Walked<'_>)) {
        let missing = self.missing();
        let mut window = LossyWindow::default();
        let (mut next, mut is_lost) = (0, false);
        for block in &self.opened {
            let is_gap = block.index != next;
            let is_damaged = is_gap || self.damaged == Some(block.index);
            if is_damaged && !is_lost {
                each(Walked::Damage(next));
            }
            is_lost |= is_damaged;
            if is_gap {
                window.lose(missing);
            }
            next = block.index.saturating_add(1);
            if block.kind != BlockKind::Records {
                continue;
            }
            let Some(mut records) = window.unpack(&block.text) else {
                if !is_lost {
                    each(Walked::Damage(block.index));
                }
                is_lost = true;
                continue;
            };
            is_lost = false;
            while !records.is_empty() {
                let Ok((delta, event)) = record::decode(&mut records) else {
                    each(Walked::Damage(block.index));
                    is_lost = true;
                    break;
                };
                let record = event.map(|event| Record { delta, event });
                each(Walked::Record(block.index, delta, record.as_ref()));
            }
        }
        let is_last_damaged = self.damaged.is_some_and(|damaged| damaged >= next);
        if (self.is_cut || is_last_damaged) && !is_lost {
            each(Walked::Damage(next));
        }
    }
}

/// The text before a block, of which a part is not known. It is there twice, with another filling each time: what
/// unpacks to the same with both depends on nothing that is missing.
#[derive(Debug, Default)]
struct LossyWindow([Vec<u8>; 2]);

impl LossyWindow {
    /// Takes note that so many bytes are missing; `None`: that is not known.
    fn lose(&mut self, bytes: Option<usize>) {
        for (window, filling) in self.0.iter_mut().zip([0x00, 0xff]) {
            match bytes {
                Some(bytes) => {
                    pack::slide(window);
                    window.extend(iter::repeat_n(filling, bytes.min(BLOCK_WINDOW)));
                }
                None => window.clear(),
            }
        }
    }

    /// Returns the records of a block, unless it depends on what is missing.
    fn unpack(&mut self, packed: &[u8]) -> Option<&[u8]> {
        let [one, other] = &mut self.0;
        let lengths = (pack::unpack(one, packed), pack::unpack(other, packed));
        let (Some(length), Some(_)) = lengths else {
            // Where the blocks behind it lead to is not known, either.
            one.clear();
            other.clear();
            return None;
        };
        let text = one.get(one.len().saturating_sub(length)..)?;
        other.ends_with(text).then_some(text)
    }
}

#[cfg(test)]
mod tests;
