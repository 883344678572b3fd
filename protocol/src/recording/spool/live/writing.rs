//! From sealed bytes to pieces that are written: when, in what order, and again after a failure.

use alloc::vec::Vec;
use core::time::Duration;

use embedded_io::ErrorKind;

use super::LiveRecording;
use crate::limits::{MAX_SEGMENT_AGE, WRITE_BATCH, WRITE_DELAY, WRITE_RETRY};
use crate::recording::medium::SegmentName;
use crate::recording::segment::{SegmentLink, SegmentWriter};
use crate::recording::spool::{SpoolWrite, Unavailable};

/// The medium does not take what it is given.
#[derive(Clone, Copy, Debug)]
pub(in crate::recording::spool) struct Failing {
    pub(in crate::recording::spool) kind: ErrorKind,
    retry_at: Duration,
}

impl LiveRecording {
    /// Returns the next piece that is to be written, if it is time.
    pub(in crate::recording::spool) fn take_write(
        &mut self,
        now: Duration,
    ) -> Result<Option<SpoolWrite>, Unavailable> {
        if self.busy || self.failing.is_some_and(|failing| now < failing.retry_at) {
            return Ok(None);
        }
        let old = |(writer, since): &(SegmentWriter, Duration)| {
            !writer.is_empty() && now >= *since + MAX_SEGMENT_AGE
        };
        if self.writer.as_ref().is_some_and(old) {
            self.close_segment(false)?;
        } else if self.ready.is_empty() && self.is_due(now) {
            self.flush()?;
        }
        if self.ready.is_empty()
            && self
                .unsynced_since
                .is_some_and(|since| now >= since + WRITE_DELAY)
        {
            self.hand_out_sync();
        }
        let write = self.ready.pop_front();
        if let Some(write) = &write {
            self.unsynced_since = None;
            self.busy = true;
            self.in_flight = write.bytes.len() as u64;
        }
        Ok(write)
    }

    /// Notes that the write that was taken last will not be safe from a power cut: it is to be made so later.
    pub(in crate::recording::spool) fn handle_unsynced(&mut self, now: Duration) {
        self.unsynced_since = Some(now);
    }

    /// Notes that a write was done, or not: then it is tried again later.
    pub(in crate::recording::spool) fn handle_written(
        &mut self,
        now: Duration,
        write: SpoolWrite,
        outcome: Result<(), ErrorKind>,
    ) {
        self.busy = false;
        self.in_flight = 0;
        match outcome {
            Ok(()) => self.failing = None,
            Err(kind) => {
                self.ready.push_front(write);
                let retry_at = now + WRITE_RETRY;
                self.failing = Some(Failing { kind, retry_at });
            }
        }
    }

    /// Returns whether everything is written.
    pub(in crate::recording::spool) fn is_written(&self) -> bool {
        self.ended.is_some() && !self.busy && self.ready.is_empty()
    }

    pub(in crate::recording::spool) fn timeout(&self) -> Option<Duration> {
        if self.busy {
            return None;
        }
        if let Some(failing) = &self.failing {
            return Some(failing.retry_at);
        }
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let waits = self.waits_until();
        let ages = self
            .writer
            .as_ref()
            .filter(|(writer, _)| !writer.is_empty())
            .map(|(_, since)| *since + MAX_SEGMENT_AGE);
        let unsynced = self.unsynced_since.map(|since| since + WRITE_DELAY);
        [waits, ages, unsynced].into_iter().flatten().min()
    }

    fn is_due(&self, now: Duration) -> bool {
        let unsynced = self.unsynced_since.map(|since| since + WRITE_DELAY);
        let due = [self.waits_until(), unsynced].into_iter().flatten().min();
        self.sealed.len() >= WRITE_BATCH || due.is_some_and(|due| now >= due)
    }

    /// Returns when what waits is to be written. The beginning of a recording does not wait: an agent that is killed a
    /// moment later would leave nothing of it, as if it had been removed.
    fn waits_until(&self) -> Option<Duration> {
        let is_begun = self.index > 0 || self.at > 0;
        let delay = if is_begun {
            WRITE_DELAY
        } else {
            Duration::ZERO
        };
        self.waiting_since.map(|since| since + delay)
    }

    fn flush(&mut self) -> Result<(), Unavailable> {
        if let Some((writer, _)) = &mut self.writer {
            writer.flush(&mut self.sealed)?;
            let link = writer.link();
            self.hand_out(link, false);
        }
        Ok(())
    }

    /// Makes what is sealed a piece to be written.
    pub(super) fn hand_out(&mut self, link: SegmentLink, closes: bool) {
        self.waiting_since = None;
        if self.sealed.is_empty() {
            return;
        }
        let bytes = core::mem::take(&mut self.sealed);
        let at = self.at;
        self.at += bytes.len() as u64;
        self.ready.push_back(SpoolWrite {
            segment: SegmentName {
                session: self.session,
                index: self.index,
            },
            at,
            bytes,
            sync: false,
            closes,
            link,
        });
    }

    /// Makes what is written safe, with a piece of no bytes.
    fn hand_out_sync(&mut self) {
        self.unsynced_since = None;
        if let Some((writer, _)) = &self.writer {
            self.ready.push_back(SpoolWrite {
                segment: SegmentName {
                    session: self.session,
                    index: self.index,
                },
                at: self.at,
                bytes: Vec::new(),
                sync: false,
                closes: false,
                link: writer.link(),
            });
        }
    }

    /// Returns sealed bytes that are not written.
    pub(in crate::recording::spool) fn unwritten(&self) -> u64 {
        let ready: usize = self.ready.iter().map(|write| write.bytes.len()).sum();
        (self.sealed.len() + ready) as u64 + self.in_flight
    }
}
