//! One stream of a recording against what the relay has seen of it.

mod finish;

use alloc::vec::Vec;
use core::ops::Range;

use super::{Chain, DigestPoint, StreamDigest, Tag};

/// The reason why a stream is not proved from end to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproved {
    /// The data is not part of this kind of recording; the device's own count and digest agree with the
    /// relay's.
    CountedOnly,
    /// The content is kept up to the bound of the session's terms; the digest of the rest agrees with the relay's.
    ContentNotKept {
        /// Bytes of the stream up to there.
        from: u64,
    },
    /// The recording was cut short.
    CutShort,
    /// It has gaps, which it admits.
    Gaps,
    /// The operator's last input did not reach the device before the session ended.
    InFlight,
    /// From the end of what the relay passed on, the operator was not shown it: the session was cut off first.
    NotShown,
    /// The relay was killed before it kept what it passed on: behind what it had kept, nothing is proved.
    NotKept,
    /// File operations differ, and the device follows sftp in another way than the relay: it is older.
    NotComparable,
    /// File operations that the relay, or by its own word the device, could not follow to the end of the session, or that
    /// the relay did not keep.
    NotFollowed,
    /// Contradicted: the recording is not what passed. It is so behind this many bytes of the stream.
    Altered {
        /// Bytes of the stream up to the last point that held.
        behind: u64,
    },
    /// Contradicted: the relay passed on more than a recording holds that claims to be whole.
    Dropped,
    /// Contradicted: the recording holds more than there was.
    Added,
}

impl Unproved {
    /// Returns whether it is a contradiction, and not a mere lack of proof.
    #[must_use]
    pub fn is_contradiction(self) -> bool {
        matches!(self, Self::Altered { .. } | Self::Dropped | Self::Added)
    }
}

/// The direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamDirection {
    /// To the device. What it got, the relay has sent.
    In,
    /// From the device. What it sent, the relay need not have got.
    Out,
}

/// Describes how far the relay's own view of a session goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Up to the exit status: the output is complete.
    Exited,
    /// Up to where the session was cut off.
    CutOff,
    /// Up to what the relay had kept when it was killed.
    Stale,
}

/// Describes how many bytes of a stream are what.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) proved: u64,
    pub(super) redacted: u64,
    pub(super) missing: u64,
    pub(super) unproved: u64,
    pub(super) unseen: u64,
    pub(super) not_kept: u64,
}

/// Follows one stream's chain.
#[derive(Debug)]
pub(super) struct Lane<'s> {
    direction: StreamDirection,
    chain: Chain,
    seen: &'s StreamDigest,
    /// The next of the seen points that the chain has not come to.
    next: usize,
    /// True if the end, and the part of a frame behind it, were met and held.
    end_held: bool,
    partial_held: bool,
    /// Bytes up to the last point that held, and the two kinds of bytes since then.
    held_at: u64,
    since: [u64; 2],
    /// Frames up to that point.
    held_frames: u64,
    /// Bytes that were recorded, redacted ones among them, and the parts of them that are proved. No more of these than
    /// points were seen.
    recorded: u64,
    ranges: Vec<Range<u64>>,
    counts: Counts,
    /// The bound of the content, and where the relay noted that it was reached.
    content: Option<(u64, Option<DigestPoint>)>,
    /// The point at which the content ends, as the recording says and the relay's row allows.
    content_end: Option<DigestPoint>,
    /// The first contradiction. It stays.
    contradiction: Option<Unproved>,
}

const SHOWN: usize = 0;
const REDACTED: usize = 1;

impl<'s> Lane<'s> {
    pub(super) fn new(direction: StreamDirection, chain: Chain, seen: &'s StreamDigest) -> Self {
        let mut lane = Self {
            direction,
            chain,
            seen,
            next: 0,
            end_held: false,
            partial_held: seen.partial.is_none(),
            held_at: 0,
            since: [0, 0],
            held_frames: 0,
            recorded: 0,
            ranges: Vec::new(),
            counts: Counts::default(),
            content: None,
            content_end: None,
            contradiction: None,
        };
        lane.compare();
        lane
    }

    /// Gives the lane a bound of its content, and where that was reached, if it was.
    pub(super) fn bounded(self, content: Option<(u64, Option<DigestPoint>)>) -> Self {
        Self { content, ..self }
    }

    /// Returns whether content has a place here: the bound is not reached. Within a frame the chain is where it was
    /// before it.
    pub(super) fn takes_content(&self) -> bool {
        let at = self.chain.point();
        let reached = self.content.is_some_and(|(max, end)| {
            at.bytes >= max || end.is_some_and(|end| at.frames >= end.frames)
        });
        !reached && self.content_end.is_none()
    }

    /// Takes the end of the content as the recording states it; returns whether the relay's row allows it here.
    pub(super) fn content_ends(&mut self, from: DigestPoint) -> bool {
        let Some((max, noted)) = self.content else {
            return false;
        };
        let is_here = self.chain.is_between_frames() && self.chain.point() == from;
        let is_due = match noted {
            Some(noted) => from == noted,
            // The relay's own view ends before the content does.
            None => from.bytes >= max && from.frames > self.seen.end.frames,
        };
        if !is_here || !is_due || self.content_end.is_some() {
            return false;
        }
        self.content_end = Some(from);
        if let Some(noted) = noted {
            self.hold(noted);
        }
        true
    }

    /// Returns how many bytes the relay passed on.
    pub(super) fn relayed(&self) -> u64 {
        let partial = self.seen.partial.as_ref();
        let partial = partial.map_or(0, |partial| partial.bytes);
        self.seen.end.bytes.saturating_add(partial)
    }

    /// Returns bytes that are proved by now, those redacted among them.
    pub(super) fn proved(&self) -> u64 {
        self.counts.proved.saturating_add(self.counts.redacted)
    }

    /// Returns the parts that are proved of the recorded bytes: what gaps lack does not count.
    pub(super) fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Returns the frames up to the last point that held.
    pub(super) fn held_frames(&self) -> u64 {
        self.held_frames
    }

    /// Returns whole frames so far.
    pub(super) fn frames(&self) -> u64 {
        self.chain.point().frames
    }

    pub(super) fn data(&mut self, bytes: &[u8], last: bool) {
        self.count(SHOWN, bytes.len() as u64);
        self.check_partial(bytes);
        if self.chain.update(bytes, usize::from(!last)).is_some() {
            self.compare();
        }
    }

    pub(super) fn redacted(&mut self, length: u64, tag: &Tag) {
        // A redacted frame that passed only in part can't be compared, and is none the worse for it.
        if self.chain.point().frames == self.seen.end.frames && self.is_short_of(length) {
            self.partial_held = true;
        }
        // A frame is redacted as a whole: what was shown of it before is no part of it.
        if !self.chain.is_between_frames() {
            self.contradict(Unproved::Altered {
                behind: self.held_at,
            });
        }
        self.count(REDACTED, length);
        self.chain.append(length, tag);
        self.compare();
    }

    pub(super) fn gap(&mut self, after: DigestPoint, missing: u64) {
        let before = self.chain.point();
        let recorded = before.bytes.saturating_add(self.chain.begun());
        if after == before && missing == 0 {
            // Nothing of this stream is missing, except possibly the rest of a frame that never ended.
            return;
        }
        // Where nothing is missing, the chain goes on from where it was: the last piece of a frame is not empty.
        let leaps = missing == 0;
        let is_false = recorded.saturating_add(missing) != after.bytes;
        if leaps || is_false || after.frames < before.frames {
            self.contradict(Unproved::Altered {
                behind: self.held_at,
            });
        }
        self.counts.missing = self.counts.missing.saturating_add(missing);
        self.forget_since();
        self.chain.resume(after);
        self.compare();
    }

    /// Compares the chain at the end of a frame with the points that were seen.
    fn compare(&mut self) {
        let at = self.chain.point();
        while let Some(point) = self.seen.points.get(self.next) {
            if point.frames > at.frames {
                break;
            }
            self.next += 1;
            if point.frames == at.frames {
                self.hold(*point);
            }
        }
        if at.frames == self.seen.end.frames && !self.end_held {
            self.end_held = true;
            // A stream on which nothing passed has no value to compare.
            if at.frames > 0 {
                self.hold(self.seen.end);
            }
        }
    }

    fn hold(&mut self, point: DigestPoint) {
        if self.chain.point() != point {
            self.contradict(Unproved::Altered {
                behind: self.held_at,
            });
            return;
        }
        if self.contradiction.is_some() {
            return;
        }
        self.held_at = point.bytes;
        self.held_frames = point.frames;
        let [shown, redacted] = core::mem::take(&mut self.since);
        let from = self.recorded.saturating_sub(shown.saturating_add(redacted));
        self.vouch(from..self.recorded);
        self.counts.proved = self.counts.proved.saturating_add(shown);
        self.counts.redacted = self.counts.redacted.saturating_add(redacted);
    }

    /// Checks bytes of the frame behind the last that passed as a whole: a part of it may have passed.
    fn check_partial(&mut self, bytes: &[u8]) {
        let Some(partial) = &self.seen.partial else {
            return;
        };
        if self.partial_held || self.chain.point().frames != self.seen.end.frames {
            return;
        }
        let wanted = partial.bytes.saturating_sub(self.chain.begun());
        let Some(more) = usize::try_from(wanted).ok().and_then(|n| bytes.get(..n)) else {
            return;
        };
        self.partial_held = true;
        if self.chain.tag_at(more) == partial.tag {
            if self.contradiction.is_some() {
                return;
            }
            let begun = self.chain.begun().saturating_add(bytes.len() as u64);
            let from = self.recorded.saturating_sub(begun);
            self.vouch(from..from.saturating_add(partial.bytes));
            // They were counted with what is behind the last whole frame.
            self.counts.unseen = self.counts.unseen.saturating_sub(partial.bytes);
            self.counts.proved = self.counts.proved.saturating_add(partial.bytes);
            self.held_at = self.held_at.saturating_add(partial.bytes);
        } else {
            self.contradict(Unproved::Altered {
                behind: self.held_at,
            });
        }
    }

    fn is_short_of(&self, length: u64) -> bool {
        let partial = self.seen.partial.as_ref();
        partial.is_some_and(|partial| partial.bytes <= length)
    }

    /// Notes a part that is proved, behind all that were.
    fn vouch(&mut self, range: Range<u64>) {
        match self.ranges.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.ranges.push(range),
        }
    }

    fn count(&mut self, kind: usize, bytes: u64) {
        self.recorded = self.recorded.saturating_add(bytes);
        if self.chain.point().frames >= self.seen.end.frames {
            self.counts.unseen = self.counts.unseen.saturating_add(bytes);
        } else if let Some(since) = self.since.get_mut(kind) {
            *since = since.saturating_add(bytes);
        }
    }

    fn forget_since(&mut self) {
        let [shown, redacted] = core::mem::take(&mut self.since);
        let unproved = self.counts.unproved;
        self.counts.unproved = unproved.saturating_add(shown).saturating_add(redacted);
    }

    fn contradict(&mut self, how: Unproved) {
        self.contradiction.get_or_insert(how);
    }
}
