//! The work that is to be done on the medium, and what follows from its outcome.

use alloc::vec::Vec;
use core::time::Duration;

use embedded_io::{Error as _, ErrorKind};

use super::{EndedRecording, FileState, Spool, SpoolFile, Sync};
use crate::ids::SessionId;
use crate::limits::MAX_UNSYNCED_BEGINNING;
use crate::recording::medium::{FileName, Medium, SegmentName};
use crate::recording::record::EndReason;
use crate::recording::segment::SegmentLink;
use crate::wire::SegmentLost;

/// Something to be done on the medium. Each is given out once, and has to come back in `handle_done`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpoolWork {
    /// Append to a segment.
    Write(SpoolWrite),
    /// Remove a segment that a relay has stored.
    Remove(SegmentName),
    /// Rename a segment that no relay takes.
    SetAside(SegmentName),
}

/// Bytes for a segment: whole blocks.
#[derive(Clone, PartialEq, Eq)]
pub struct SpoolWrite {
    /// The number of the segment.
    pub segment: SegmentName,
    /// The place where they belong; at 0 the file is made first.
    pub at: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// True if they have to be safe from a power cut before this is done.
    pub sync: bool,
    pub(super) closes: bool,
    pub(super) link: SegmentLink,
}

impl SpoolWrite {
    /// Returns whether it is written for the case that the agent is killed, not that the power is cut: it need not be
    /// safe at once, so that a short session costs one sync. A long one, of a session that was fast while the medium was
    /// slow, is: a power cut would tear off more than one write.
    fn is_beginning(&self) -> bool {
        let is_first = self.segment.index == 0 && self.at == 0 && !self.closes;
        is_first && self.bytes.len() <= MAX_UNSYNCED_BEGINNING
    }
}

/// Does what the spool asks for, and gives how much space is free then.
///
/// # Errors
/// The kind of what went wrong; give it to the spool.
pub fn perform<M: Medium>(medium: &mut M, work: &SpoolWork) -> Result<u64, ErrorKind> {
    let outcome = match work {
        SpoolWork::Write(write) => {
            let name = FileName::Segment(write.segment);
            let created = if write.at == 0 {
                medium.create(name)
            } else {
                Ok(())
            };
            created
                .and_then(|()| medium.append(name, write.at, &write.bytes))
                .and_then(|()| {
                    if write.sync {
                        medium.sync(name)
                    } else {
                        Ok(())
                    }
                })
        }
        SpoolWork::Remove(segment) => medium.remove(FileName::Segment(*segment)),
        SpoolWork::SetAside(segment) => {
            medium.rename(FileName::Segment(*segment), FileName::Bad(*segment))
        }
    };
    outcome
        .and_then(|()| medium.free())
        .map_err(|error| error.kind())
}

impl Spool {
    /// Returns the next action on the medium.
    pub fn poll_work(&mut self, now: Duration) -> Option<SpoolWork> {
        if let Some(write) = self.poll_write(now) {
            return Some(SpoolWork::Write(write));
        }
        let next = self.files.iter().find_map(|(name, file)| {
            let work = match file.state {
                FileState::Stored if self.may_remove(name) => SpoolWork::Remove(*name),
                FileState::Refused => SpoolWork::SetAside(*name),
                _ => return None,
            };
            (!file.busy && file.closed).then_some((*name, work))
        });
        let (name, work) = next?;
        if let Some(file) = self.files.get_mut(&name) {
            file.busy = true;
        }
        Some(work)
    }

    /// Notes that work was done, or failed. `outcome` is what [`perform`] gave.
    pub fn handle_done(&mut self, now: Duration, work: SpoolWork, outcome: Result<u64, ErrorKind>) {
        if let Ok(free) = outcome {
            self.free = free;
        }
        match work {
            SpoolWork::Write(write) => self.handle_written(now, write, outcome.map(|_| ())),
            SpoolWork::Remove(name) => match outcome {
                // One that is not there needs no removing.
                Ok(_) | Err(ErrorKind::NotFound) => {
                    let file = self.files.remove(&name);
                    self.stored -= file.map_or(0, |file| file.length);
                    self.forget_if_done(&name.session);
                }
                Err(_) => self.unbusy(&name),
            },
            SpoolWork::SetAside(name) => {
                let file = self.files.remove(&name);
                if matches!(outcome, Err(ErrorKind::NotFound)) {
                    self.stored -= file.map_or(0, |file| file.length);
                }
                self.forget_if_done(&name.session);
            }
        }
    }

    /// Sessions take turns, so that a busy one does not starve the others.
    fn poll_write(&mut self, now: Duration) -> Option<SpoolWrite> {
        let after = self
            .live
            .range(self.turn..)
            .skip_while(|(id, _)| **id == self.turn);
        let order: Vec<SessionId> = after
            .chain(self.live.range(..=self.turn))
            .map(|(session, _)| *session)
            .collect();
        for session in order {
            let Some(live) = self.live.get_mut(&session) else {
                continue;
            };
            match live.take_write(now) {
                Ok(Some(mut write)) => {
                    self.turn = session;
                    write.sync = match self.config.sync {
                        Sync::Block => !write.is_beginning(),
                        Sync::Close => write.closes,
                        Sync::Off => false,
                    };
                    if self.config.sync == Sync::Block && !write.sync {
                        live.handle_unsynced(now);
                    }
                    return Some(write);
                }
                Ok(None) => {}
                Err(_) => {
                    self.live.remove(&session);
                    self.abandon(session);
                }
            }
        }
        None
    }

    fn handle_written(&mut self, now: Duration, write: SpoolWrite, outcome: Result<(), ErrorKind>) {
        let name = write.segment;
        self.flash.written += write.bytes.len() as u64;
        self.flash.syncs += u64::from(write.sync);
        if outcome.is_ok() {
            let known = self.files.get(&name);
            let file = SpoolFile {
                length: write.at + write.bytes.len() as u64,
                link: write.link,
                closed: write.closes,
                modified: known.map_or(self.clock, |file| file.modified),
                state: known.map_or(FileState::Waiting, |file| file.state),
                busy: false,
            };
            self.stored += file.length - known.map_or(0, |known| known.length.min(file.length));
            self.files.insert(name, file);
        }
        let Some(live) = self.live.get_mut(&name.session) else {
            return;
        };
        live.handle_written(now, write, outcome);
        if live.is_written()
            && let Some((why, link, segments)) = live.ended
        {
            self.live.remove(&name.session);
            let ended = EndedRecording {
                report: (Some(why), segments, link),
                noted: false,
            };
            self.ended.insert(name.session, ended);
        }
    }

    /// Abandons a session whose recording can't be continued: what is on the medium is all there will be.
    pub(super) fn abandon(&mut self, session: SessionId) {
        let name = |index| SegmentName { session, index };
        let mut files = self.files.range_mut(name(0)..=name(u32::MAX));
        let Some((last, file)) = files.next_back() else {
            self.report_gone(name(0), SegmentLost::NoRoom);
            return;
        };
        file.closed = true;
        let ended = EndedRecording {
            report: (Some(EndReason::PowerLoss), last.index + 1, file.link),
            noted: false,
        };
        self.ended.insert(session, ended);
    }

    fn unbusy(&mut self, name: &SegmentName) {
        if let Some(file) = self.files.get_mut(name) {
            file.busy = false;
        }
    }
}

impl core::fmt::Debug for SpoolWrite {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Write({} bytes at {} of {})",
            self.bytes.len(),
            self.at,
            self.segment
        )
    }
}
