//! The faults of a stream at the end of its recording: what it lacks.

use super::{Counts, Lane, StreamDirection, Unproved, View};
use crate::recording::chain::DigestPoint;

impl Lane<'_> {
    /// Counts, and what is not proved, of a recording that holds the data. `whole` says that it is complete by
    /// itself, `end` where it says that the chain ends: a lane without such a word has none.
    pub(in crate::recording::chain) fn finish(
        &self,
        whole: bool,
        end: Option<DigestPoint>,
        view: View,
    ) -> (Counts, Option<Unproved>) {
        let mut counts = self.counts;
        let [shown, redacted] = self.since;
        counts.unproved = counts
            .unproved
            .saturating_add(shown)
            .saturating_add(redacted);
        let lack = self.contradiction.or_else(|| {
            if let Some(from) = self.content_end {
                return self.lack_of_content(from, &mut counts, end.filter(|_| whole), view);
            }
            let at = self.chain.point();
            if whole && end.is_some_and(|end| end != at) {
                return Some(Unproved::Altered {
                    behind: self.held_at,
                });
            }
            self.lack(&counts, whole, view)
        });
        (counts, lack)
    }

    fn lack(&self, counts: &Counts, whole: bool, view: View) -> Option<Unproved> {
        let at = self.chain.point();
        let short = at.frames < self.seen.end.frames || !self.partial_held;
        // Frames are counted as well: one without bytes is one too many, too.
        let more = counts.unseen > 0 || at.frames > self.seen.end.frames;
        let surplus = more.then(|| surplus(self.direction, view));
        // What is too much is too much, also where the rest of the recording is missing.
        if let Some(surplus) = surplus.filter(|surplus| surplus.is_contradiction()) {
            return Some(surplus);
        }
        if !whole {
            return Some(Unproved::CutShort);
        }
        if short {
            return Some(shortage(self.direction));
        }
        let gaps = counts.missing > 0 || counts.unproved > 0;
        surplus.or(gaps.then_some(Unproved::Gaps))
    }

    /// Returns the same of a stream whose content ends before it does: the digest at the end covers the rest.
    fn lack_of_content(
        &self,
        from: DigestPoint,
        counts: &mut Counts,
        end: Option<DigestPoint>,
        view: View,
    ) -> Option<Unproved> {
        let seen = self.seen.end;
        let Some(end) = end else {
            return Some(Unproved::CutShort);
        };
        counts.unseen = end.bytes.saturating_sub(self.relayed());
        if end.frames < from.frames {
            let behind = self.held_at;
            return Some(Unproved::Altered { behind });
        }
        if let Some(lack) = self.lack_of_end(end, view) {
            return Some(lack);
        }
        if self.seen.partial.is_some() {
            return Some(shortage(self.direction));
        }
        counts.not_kept = seen.bytes.saturating_sub(from.bytes);
        let not_kept = Unproved::ContentNotKept { from: from.bytes };
        let gaps = counts.missing > 0 || counts.unproved > 0;
        let lack = (counts.not_kept > 0).then_some(not_kept);
        gaps.then_some(Unproved::Gaps).or(lack)
    }

    /// Returns the same of a recording that does not hold the data: the device's count and digest against the relay's.
    pub(in crate::recording::chain) fn finish_counted(
        &self,
        end: Option<DigestPoint>,
        view: View,
    ) -> (Counts, Option<Unproved>) {
        let mut counts = self.counts;
        let seen = self.seen.end;
        let Some(end) = end else {
            let lack = self.contradiction.unwrap_or(Unproved::CutShort);
            return (counts, Some(lack));
        };
        counts.unseen = end.bytes.saturating_sub(seen.bytes);
        let lack = self.lack_of_end(end, view);
        let lack = self.contradiction.or(lack);
        (counts, Some(lack.unwrap_or(Unproved::CountedOnly)))
    }

    /// Returns what the end of the digest lacks, as the recording states it.
    fn lack_of_end(&self, end: DigestPoint, view: View) -> Option<Unproved> {
        let seen = self.seen.end;
        let point = |point: &&DigestPoint| point.frames == end.frames;
        let point = self.seen.points.iter().find(point);
        if end.frames > seen.frames {
            Some(surplus(self.direction, view))
        } else if end == seen || seen.frames == 0 {
            None
        } else if end.frames == seen.frames || point.is_some_and(|point| *point != end) {
            Some(Unproved::Altered { behind: 0 })
        } else {
            Some(shortage(self.direction))
        }
    }
}

/// Returns what it is that a recording has more of a stream than the relay passed on.
fn surplus(direction: StreamDirection, view: View) -> Unproved {
    match (direction, view) {
        (_, View::Stale) => Unproved::NotKept,
        (StreamDirection::Out, View::CutOff) => Unproved::NotShown,
        // Only the relay sends input, and before an exit status all output has passed.
        (StreamDirection::In, _) | (StreamDirection::Out, View::Exited) => Unproved::Added,
    }
}

/// Returns what it is that a recording which is whole has less of a stream than the relay passed on. Output is
/// recorded before it is sent; input is recorded when it arrives.
fn shortage(direction: StreamDirection) -> Unproved {
    match direction {
        StreamDirection::In => Unproved::InFlight,
        StreamDirection::Out => Unproved::Dropped,
    }
}
