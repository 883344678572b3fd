//! A recording against what the relay has seen of the session.

use super::{Chain, ChainKey, Point, Seen};
use crate::recording::record::{End, Event, Gap, Record, Stream};

/// Follows the chains through a recording's records, and compares them with what the relay has seen. Feed
/// it every record in order, then ask for the proofs.
#[derive(Debug)]
pub struct Checker<'s> {
    streams: [StreamCheck<'s>; 3],
    /// Whether the recording holds the streams' data; `None` before its first record.
    holds_data: Option<bool>,
    end: Option<End>,
}

/// What is proved of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Which stream.
    pub stream: Stream,
    /// How many bytes the relay passed on.
    pub relayed: u64,
    /// Recorded bytes that are proved to be what the relay passed on, in that order.
    pub proved: u64,
    /// Bytes that were redacted. Their number is proved as the rest is; what they were, nobody can say.
    pub redacted: u64,
    /// Bytes that a gap says are missing.
    pub missing: u64,
    /// Recorded bytes that nothing vouches for: before a gap or behind the last point that could be
    /// compared.
    pub unproved: u64,
    /// Recorded bytes that the relay never passed on, because the session was cut off first.
    pub unseen: u64,
    /// Why not everything is proved; `None` if it is.
    pub lack: Option<Unproved>,
}

/// Why a stream is not proved from end to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproved {
    /// The data is not part of this kind of recording; the device's own count and digest agree with the
    /// relay's.
    CountedOnly,
    /// The recording was cut short.
    CutShort,
    /// It has gaps, which it admits.
    Gaps,
    /// What the operator sent last did not reach the device before the session was cut off.
    InFlight,
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
    /// Whether it is a contradiction, and not a mere lack of proof.
    #[must_use]
    pub fn is_contradiction(self) -> bool {
        matches!(self, Self::Altered { .. } | Self::Dropped | Self::Added)
    }
}

impl<'s> Checker<'s> {
    /// `seen` is of stdin, stdout and stderr.
    #[must_use]
    pub fn new(key: &ChainKey, seen: &'s [Seen; 3]) -> Self {
        Self {
            streams: Stream::ALL.map(|stream| StreamCheck::new(key, stream, &seen[stream.index()])),
            holds_data: None,
            end: None,
        }
    }

    /// Takes the next record.
    pub fn handle(&mut self, record: &Record<'_>) {
        match &record.event {
            Event::Start(start) => self.holds_data = Some(start.streams),
            Event::Data(stream, bytes) => self.streams[stream.index()].data(bytes.0, true),
            Event::Part(stream, bytes) => self.streams[stream.index()].data(bytes.0, false),
            Event::Redacted(redacted) => {
                let stdin = &mut self.streams[Stream::Stdin.index()];
                stdin.redacted(u64::from(redacted.length), &redacted.tag);
            }
            Event::Gap(gap) => self.handle_gap(gap),
            Event::End(end) => self.end = Some(end.clone()),
            _ => {}
        }
    }

    /// What is proved. `whole` says that the recording itself is complete and untampered, `ended` that the
    /// relay saw the session's exit status: nothing was under way any more.
    #[must_use]
    pub fn finish(&self, whole: bool, ended: bool) -> [Proof; 3] {
        let holds_data = self.holds_data.unwrap_or(true);
        Stream::ALL.map(|stream| {
            let check = &self.streams[stream.index()];
            let end = self.end.as_ref().map(|end| end.streams[stream.index()]);
            if holds_data {
                check.finish(end.filter(|_| whole), ended)
            } else {
                check.finish_counted(end.filter(|_| whole))
            }
        })
    }

    fn handle_gap(&mut self, gap: &Gap) {
        let each = self.streams.iter_mut().zip(gap.after).zip(gap.bytes);
        for ((check, after), missing) in each {
            check.gap(after, missing);
        }
    }
}

#[derive(Debug)]
struct StreamCheck<'s> {
    stream: Stream,
    chain: Chain,
    seen: &'s Seen,
    /// The next of the seen points that the chain has not come to.
    next: usize,
    /// Whether the end, and the part of a frame behind it, were met and held.
    end_held: bool,
    partial_held: bool,
    /// Bytes up to the last point that held, and the two kinds of bytes since then.
    held_at: u64,
    since: [u64; 2],
    proof: Proof,
}

const SHOWN: usize = 0;
const REDACTED: usize = 1;

impl<'s> StreamCheck<'s> {
    fn new(key: &ChainKey, stream: Stream, seen: &'s Seen) -> Self {
        let partial = seen.partial.as_ref().map_or(0, |partial| partial.bytes);
        let mut check = Self {
            stream,
            chain: Chain::new(key, stream),
            seen,
            next: 0,
            end_held: false,
            partial_held: seen.partial.is_none(),
            held_at: 0,
            since: [0, 0],
            proof: Proof {
                stream,
                relayed: seen.end.bytes.saturating_add(partial),
                proved: 0,
                redacted: 0,
                missing: 0,
                unproved: 0,
                unseen: 0,
                lack: None,
            },
        };
        check.compare();
        check
    }

    fn data(&mut self, bytes: &[u8], last: bool) {
        self.count(SHOWN, bytes.len() as u64);
        self.check_partial(bytes);
        if self.chain.update(bytes, usize::from(!last)).is_some() {
            self.compare();
        }
    }

    fn redacted(&mut self, length: u64, tag: &super::Tag) {
        // A redacted frame that passed only in part can't be compared, and is none the worse for it.
        if self.chain.point().frames == self.seen.end.frames && self.is_short_of(length) {
            self.partial_held = true;
        }
        self.count(REDACTED, length);
        self.chain.append(length, tag);
        self.compare();
    }

    fn gap(&mut self, after: Point, missing: u64) {
        let before = self.chain.point();
        let recorded = before.bytes.saturating_add(self.chain.begun());
        if after == before && missing == 0 {
            // Nothing of this stream is missing, but perhaps the rest of a frame that never ended.
            return;
        }
        if after.frames < before.frames || recorded.saturating_add(missing) != after.bytes {
            self.contradict(Unproved::Altered {
                behind: self.held_at,
            });
        }
        self.proof.missing = self.proof.missing.saturating_add(missing);
        self.forget_since();
        self.chain.resume(after);
        self.compare();
    }

    /// The chain has come to the end of a frame: compares it with the points that were seen.
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

    fn hold(&mut self, point: Point) {
        if self.chain.point() != point {
            self.contradict(Unproved::Altered {
                behind: self.held_at,
            });
            return;
        }
        if self.proof.lack.is_some_and(Unproved::is_contradiction) {
            return;
        }
        self.held_at = point.bytes;
        let [shown, redacted] = core::mem::take(&mut self.since);
        self.proof.proved = self.proof.proved.saturating_add(shown);
        self.proof.redacted = self.proof.redacted.saturating_add(redacted);
    }

    /// Bytes of the frame behind the last that passed as a whole: a part of it may have passed.
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
            // They were counted with what is behind the last whole frame.
            self.proof.unseen = self.proof.unseen.saturating_sub(partial.bytes);
            self.proof.proved = self.proof.proved.saturating_add(partial.bytes);
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

    fn count(&mut self, kind: usize, bytes: u64) {
        if self.chain.point().frames >= self.seen.end.frames {
            self.proof.unseen = self.proof.unseen.saturating_add(bytes);
        } else {
            self.since[kind] = self.since[kind].saturating_add(bytes);
        }
    }

    fn forget_since(&mut self) {
        let [shown, redacted] = core::mem::take(&mut self.since);
        self.proof.unproved = self
            .proof
            .unproved
            .saturating_add(shown)
            .saturating_add(redacted);
    }

    fn contradict(&mut self, how: Unproved) {
        if !self.proof.lack.is_some_and(Unproved::is_contradiction) {
            self.proof.lack = Some(how);
        }
    }

    fn finish(&self, end: Option<Point>, ended: bool) -> Proof {
        let mut proof = self.proof.clone();
        let [shown, redacted] = self.since;
        proof.unproved = proof
            .unproved
            .saturating_add(shown)
            .saturating_add(redacted);
        if proof.lack.is_none() {
            proof.lack = self.lack(&proof, end, ended);
        }
        proof
    }

    fn lack(&self, proof: &Proof, end: Option<Point>, ended: bool) -> Option<Unproved> {
        let at = self.chain.point();
        let short = at.frames < self.seen.end.frames || !self.partial_held;
        match end {
            None => return Some(Unproved::CutShort),
            Some(end) if end != at => {
                return Some(Unproved::Altered {
                    behind: self.held_at,
                });
            }
            Some(_) if short && self.stream == Stream::Stdin && !ended => {
                return Some(Unproved::InFlight);
            }
            Some(_) if short => return Some(Unproved::Dropped),
            Some(_) if ended && proof.unseen > 0 => return Some(Unproved::Added),
            Some(_) => {}
        }
        (proof.missing > 0 || proof.unproved > 0).then_some(Unproved::Gaps)
    }

    /// Of a recording that does not hold the data: the device's count and digest against the relay's.
    fn finish_counted(&self, end: Option<Point>) -> Proof {
        let mut proof = self.proof.clone();
        let seen = self.seen.end;
        proof.lack = Some(match end {
            None => Unproved::CutShort,
            Some(end) if end == seen || seen.frames == 0 && end.frames == 0 => {
                Unproved::CountedOnly
            }
            Some(end) if end.frames < seen.frames && self.stream == Stream::Stdin => {
                Unproved::InFlight
            }
            Some(end) if end.frames > seen.frames => Unproved::CountedOnly,
            Some(_) => Unproved::Altered { behind: 0 },
        });
        proof
    }
}
