//! Recovery after a crash: what is kept, and what is cut off.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use embedded_io::Error as _;
use embedded_io::ErrorKind;

use super::damage::{Damage, blocks_behind, has_unwritten, read_rest};
use super::{EndedRecording, FileState, Flash, Spool, SpoolConfig, SpoolFile, Sync};
use crate::ids::SessionId;
use crate::limits::{MAX_BLOCK_SEALED, MAX_SEGMENT, WRITE_BATCH};
use crate::recording::medium::{FileName, Medium, SegmentName};
use crate::recording::record::EndReason;
use crate::recording::scan::{ExpectedSegment, ScanFault, SegmentScan};
use crate::recording::segment::{BlockKind, SegmentLink};
use crate::wire::SegmentLost;

/// The content of the medium at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Sessions that had not ended: their recordings stop early.
    pub unfinished: Vec<SessionId>,
    /// Segments whose torn end was cut off.
    pub cut: Vec<TornEnd>,
    /// Segments that are not what was written, and from which block on. They are delivered as they are.
    pub damaged: Vec<Damage>,
    /// Segments that are not here although older and newer ones are: the relay has them, or they were removed.
    pub missing: Vec<SegmentName>,
    /// Segments of which nothing can be delivered, which were set aside, and why.
    pub corrupt: Vec<(SegmentName, ScanFault)>,
}

/// A torn end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornEnd {
    /// Of which segment.
    pub segment: SegmentName,
    /// Bytes that stand.
    pub kept: u64,
    /// Bytes that were no whole block.
    pub lost: u64,
}

/// The most that one torn write leaves behind: a batch, and the block that filled it; and the beginning of a recording,
/// which may not be synced by then.
pub(super) const MAX_TORN: u64 = (WRITE_BATCH + 2 * MAX_BLOCK_SEALED) as u64;

impl Spool {
    /// Takes over what is on the medium after a loss of power. Run it before anything is recorded.
    ///
    /// # Errors
    /// The kind of the medium's error: without its list there is no spool.
    pub fn recover<M: Medium>(
        config: SpoolConfig,
        medium: &mut M,
    ) -> Result<(Self, Recovered), ErrorKind> {
        Self::recover_after(config, medium, &|_| true)
    }

    /// Takes over what is on the medium; `lost_power` says whether a session was recorded when the power was lost.
    ///
    /// # Errors
    /// The kind of the medium's error: without its list there is no spool.
    pub fn recover_after<M: Medium>(
        config: SpoolConfig,
        medium: &mut M,
        lost_power: &dyn Fn(&SessionId) -> bool,
    ) -> Result<(Self, Recovered), ErrorKind> {
        let free = medium.free().map_err(|error| error.kind())?;
        let mut spool = Self {
            config,
            live: BTreeMap::new(),
            files: BTreeMap::new(),
            ended: BTreeMap::new(),
            gone: BTreeMap::new(),
            stored: 0,
            free,
            flash: Flash::default(),
            clock: None,
            turn: SessionId([0; 16]),
        };
        let mut sessions: BTreeMap<SessionId, Vec<RecoveredSegment>> = BTreeMap::new();
        for entry in medium.list().map_err(|error| error.kind())? {
            match entry.name {
                FileName::Bad(_) => spool.stored += entry.length,
                FileName::Segment(name) => {
                    sessions
                        .entry(name.session)
                        .or_default()
                        .push(RecoveredSegment {
                            name,
                            length: entry.length,
                            modified: entry.modified,
                        })
                }
            }
        }
        let mut recovered = Recovered::default();
        for (session, mut found) in sessions {
            found.sort_by_key(|found| found.name.index);
            let lost_power = lost_power(&session);
            spool.recover_session(session, &found, lost_power, medium, &mut recovered);
        }
        Ok((spool, recovered))
    }

    fn recover_session<M: Medium>(
        &mut self,
        session: SessionId,
        found: &[RecoveredSegment],
        lost_power: bool,
        medium: &mut M,
        recovered: &mut Recovered,
    ) {
        let mut state = SegmentWalk {
            lost_power,
            ..SegmentWalk::default()
        };
        let before_first = found
            .first()
            .and_then(|first| first.name.index.checked_sub(1));
        if let Some(index) = before_first {
            // As a rule the relay has it. It alone knows whether it was removed.
            self.report_gone(SegmentName { session, index }, SegmentLost::Missing);
        }
        for (at, file) in found.iter().enumerate() {
            let newest = at + 1 == found.len();
            self.recover_file(file, newest, &mut state, medium, recovered);
        }
        let Some((last, link)) = state.last else {
            // Of the first segment, nothing had been written.
            if let Some(file) = found.first().filter(|_| !state.corrupt) {
                recovered.unfinished.push(session);
                let why = match lost_power {
                    true => SegmentLost::PowerLoss,
                    // It is here, and nothing of it can be read.
                    false if file.name.index > 0 => SegmentLost::Unreadable,
                    false => SegmentLost::Missing,
                };
                self.report_gone(file.name, why);
            }
            return;
        };
        let ended = state.closed == Some(BlockKind::FinalFooter);
        if !ended {
            recovered.unfinished.push(session);
        }
        // Of an agent that was killed, the recording itself says how far it goes.
        let why = (!ended && lost_power).then_some(EndReason::PowerLoss);
        let report = EndedRecording {
            report: (why, last + 1, link),
            noted: false,
        };
        self.ended.insert(session, report);
    }

    fn recover_file<M: Medium>(
        &mut self,
        found: &RecoveredSegment,
        newest: bool,
        state: &mut SegmentWalk,
        medium: &mut M,
        recovered: &mut Recovered,
    ) {
        let index = found.name.index;
        let follows = state.last.filter(|(last, _)| last + 1 == index);
        let next = state.next.replace(index.saturating_add(1));
        if let Some(next) = next.filter(|next| *next != index) {
            // The relay has it, or it was removed: only the relay knows. What is behind it is kept in both cases.
            let missing = SegmentName {
                session: found.name.session,
                index: next,
            };
            recovered.missing.push(missing);
            self.report_gone(missing, SegmentLost::Missing);
        }
        let expected = ExpectedSegment {
            place: Some((found.name.session, index)),
            // Behind a damaged block the chain is not known.
            before: follows.map(|(_, link)| link).filter(|_| !state.damaged),
        };
        let (scan, fault) = scan(medium, found, expected);
        let is_read = scan.whole() + scan.torn() as u64 == found.length;
        // All but the newest end with a footer.
        let is_cut = !newest && (scan.closed().is_none() || !is_read);
        let cut = is_cut.then_some(ScanFault::CutShort);
        let fault = fault.or_else(|| scan.finish().err().filter(|_| is_read).or(cut));
        let lost = found.length - scan.whole().min(found.length);
        // What can't be read can't be delivered.
        let there = if is_read || fault != cut {
            found.length
        } else {
            scan.whole()
        };
        if let Some(fault) = fault.filter(|_| there > 0)
            && let Some(last) = self.damage(found, newest, &scan, fault, state, medium)
        {
            recovered.damaged.push(Damage {
                segment: found.name,
                block: scan.blocks(),
                fault,
            });
            (state.damaged, state.closed) = (true, last);
            state.last = Some((index, scan.link()));
            self.keep(found, &scan, there, FileState::Waiting);
            return;
        }
        if let Some(fault) = fault.filter(|_| !self.may_be_torn(newest, lost)) {
            state.corrupt = true;
            recovered.corrupt.push((found.name, fault));
            self.report_gone(found.name, SegmentLost::Corrupt);
            self.set_aside_now(found, medium);
            return;
        }
        if scan.whole() == 0 {
            // Nothing of it is whole: it is removed as soon as the medium lets.
            self.keep(found, &scan, found.length, FileState::Stored);
            return;
        }
        if lost > 0 {
            self.cut(found, scan.whole(), medium, recovered);
        }
        state.damaged = false;
        state.closed = scan.closed();
        state.last = Some((index, scan.link()));
        self.keep(found, &scan, scan.whole(), FileState::Waiting);
    }

    /// Returns whether a fault is damage of a block or of the header, with blocks behind it, and not what a crash leaves:
    /// then the footer that the segment seems to have.
    fn damage<M: Medium>(
        &self,
        found: &RecoveredSegment,
        newest: bool,
        scan: &SegmentScan,
        fault: ScanFault,
        state: &SegmentWalk,
        medium: &mut M,
    ) -> Option<Option<BlockKind>> {
        if !fault.is_damage() || found.length > MAX_SEGMENT as u64 {
            return None;
        }
        let rest = read_rest(medium, found.name, scan.whole(), found.length);
        let lost = rest.len() as u64;
        let behind = blocks_behind(&rest);
        // A header that is whole is no torn write.
        let torn = !fault.is_misplaced()
            && self.may_be_torn(newest, lost)
            && (behind.is_none() || (state.lost_power && has_unwritten(&rest)));
        let footer = behind.filter(|kind| *kind != BlockKind::Records);
        (!torn).then_some(footer.or(scan.closed()))
    }

    fn keep(
        &mut self,
        found: &RecoveredSegment,
        scan: &SegmentScan,
        length: u64,
        state: FileState,
    ) {
        let file = SpoolFile {
            length,
            link: scan.link(),
            closed: true,
            modified: Some(found.modified),
            state,
            busy: false,
        };
        self.stored += length;
        self.files.insert(found.name, file);
    }

    /// Returns whether a fault is what a crash leaves behind, and not damage.
    fn may_be_torn(&self, newest: bool, lost: u64) -> bool {
        newest && (self.config.sync != Sync::Block || lost <= MAX_TORN)
    }

    /// Cuts a torn end off.
    fn cut<M: Medium>(
        &mut self,
        found: &RecoveredSegment,
        kept: u64,
        medium: &mut M,
        recovered: &mut Recovered,
    ) {
        let name = FileName::Segment(found.name);
        let lost = found.length - kept.min(found.length);
        recovered.cut.push(TornEnd {
            segment: found.name,
            kept,
            lost,
        });
        let outcome = medium
            .append(name, kept, &[])
            .and_then(|()| medium.sync(name));
        if outcome.is_err() {
            // It is read no further than it is whole, and takes its room all the same.
            self.stored += lost;
        }
    }

    fn set_aside_now<M: Medium>(&mut self, found: &RecoveredSegment, medium: &mut M) {
        let (from, to) = (FileName::Segment(found.name), FileName::Bad(found.name));
        // If it can't be renamed, it is found and reported again at the next start.
        let _ = medium.rename(from, to);
        self.stored += found.length;
    }
}

struct RecoveredSegment {
    name: SegmentName,
    length: u64,
    modified: i64,
}

/// The segments of a session that were seen so far.
#[derive(Default)]
struct SegmentWalk {
    last: Option<(u32, SegmentLink)>,
    closed: Option<BlockKind>,
    /// The number behind that of the last file.
    next: Option<u32>,
    /// A file was set aside.
    corrupt: bool,
    /// The last segment is damaged.
    damaged: bool,
    lost_power: bool,
}

fn scan<M: Medium>(
    medium: &mut M,
    found: &RecoveredSegment,
    expected: ExpectedSegment,
) -> (SegmentScan, Option<ScanFault>) {
    let mut scan = SegmentScan::new(expected);
    let mut buffer = vec![0; 16 * 1024];
    let mut at = 0;
    loop {
        let read = medium.read(FileName::Segment(found.name), at, &mut buffer);
        let Ok(length @ 1..) = read else {
            // What can't be read is as good as cut off.
            return (scan, None);
        };
        at += length as u64;
        let mut input = buffer.get(..length).unwrap_or_default();
        loop {
            match scan.read(&mut input) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(fault) => return (scan, Some(fault)),
            }
        }
    }
}
