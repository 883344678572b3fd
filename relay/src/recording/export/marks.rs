//! Marks the records of a recording for its reader: whether the operator was shown a record, and whether it is proved.
//! The relay's own row decides, and its verdict.

use std::ops::Range;

use holdfast_protocol::recording::chain::ControlDigest;
use holdfast_protocol::recording::record::{Event, Record, RecordedBytes, Stream};
use holdfast_protocol::wire::Exit;

use super::mark::Mark;
use crate::recording::verify::{StreamText, VerdictText, name};
use crate::store::{RecordingFacts, recorded_kind};

/// Marks the records of one recording, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Marks {
    streams: [StreamMarks; 3],
    /// Sizes and signals so far, and how many of them are proved.
    controls: u64,
    proved_controls: u64,
    /// The sizes and signals that were sent, and the end of input, where the relay kept that.
    sent: Option<ControlDigest>,
    /// Frames of stdin so far, where the recording holds the data.
    frames: u64,
    holds_data: bool,
    has_eof: bool,
    /// The exit status that the relay passed on, until it is given.
    exit: ExitMark,
    /// The session runs: what is not compared yet has no mark.
    runs: bool,
    /// The end of the session was kept.
    closed: bool,
    /// The mark of everything that is compared with nothing.
    others: Option<Mark>,
    forwards: Option<Mark>,
    /// True behind a damaged block: nothing says where in its stream a record belongs.
    is_behind_damage: bool,
    /// The file operations, where the relay kept what it saw of them.
    files: Option<FileMarks>,
}

#[derive(Clone, Copy, Debug)]
struct FileMarks {
    /// Operations so far, and how many of them are proved.
    at: u64,
    proved: u64,
    /// The operations whose answers the relay has seen.
    answered: u64,
    /// The mark of what is behind that; `None`: the session runs.
    beyond: Option<Mark>,
}

#[derive(Clone, Copy, Debug)]
enum ExitMark {
    /// The relay passed this on.
    Passed(Exit),
    /// It was given.
    Given,
    /// Nothing was passed on: any has this mark.
    Without(Option<Mark>),
}

#[derive(Clone, Debug)]
struct StreamMarks {
    /// Recorded bytes that have come.
    at: u64,
    /// Bytes that gaps lack until there.
    missing: u64,
    /// The parts of the recorded bytes that are proved and have not passed yet.
    proved: Vec<Range<u64>>,
    /// Recorded bytes behind which nothing has a mark: the session runs.
    open_from: u64,
    /// The offset up to which the relay passed it on, gaps counted.
    relayed: u64,
    /// The mark of what is behind that.
    beyond: Mark,
}

impl Marks {
    /// Returns the marks of a recording. `verdict` is the signed one, or what comparing it now says; `is_tampered` that
    /// it is not what passed.
    #[must_use]
    pub(crate) fn of(
        facts: &RecordingFacts,
        verdict: Option<&VerdictText>,
        is_tampered: bool,
    ) -> Self {
        let runs = facts.row.ended.is_none();
        let open = runs && !is_tampered;
        let closing = facts.closing;
        let streams = Stream::ALL.map(|stream| {
            let [stdin, stdout, stderr] = &facts.seen;
            let (seen, cut_off) = match stream {
                Stream::Stdin => (stdin, Mark::Unsent),
                Stream::Stdout => (stdout, Mark::Unshown),
                Stream::Stderr => (stderr, Mark::Unshown),
            };
            let partial = seen.partial.as_ref().map_or(0, |partial| partial.bytes);
            let relayed = seen.end.bytes.saturating_add(partial);
            let said = verdict.and_then(|verdict| {
                let mut streams = verdict.streams.iter();
                let said = streams.find(|said| said.stream == name(stream))?;
                Some(proved_ranges(said, verdict.gaps))
            });
            let mut proved = said.unwrap_or_default();
            // Of nothing, nothing is proved: not even the byte at its place.
            proved.retain(|range| !range.is_empty());
            let open_from = match (open, proved.last()) {
                (true, Some(last)) => last.end,
                (true, None) => 0,
                (false, _) => u64::MAX,
            };
            proved.reverse();
            StreamMarks {
                at: 0,
                missing: 0,
                proved,
                open_from,
                // Of a session that runs, the relay has not written down what passes now.
                relayed: if runs { u64::MAX } else { relayed },
                beyond: match closing {
                    Some(_) => cut_off,
                    None => Mark::Unproved,
                },
            }
        });
        let unproved = || Some(Mark::Unproved);
        let begun = facts.begun.as_ref();
        let lacks_forwards = verdict.is_some_and(|verdict| verdict.forwards.is_some());
        Self {
            streams,
            controls: 0,
            proved_controls: verdict.map_or(0, VerdictText::proved_control),
            sent: facts.control.clone(),
            frames: 0,
            holds_data: recorded_kind(facts.row.session.kind).holds_data(begun),
            has_eof: false,
            exit: match closing {
                Some(closing) => match closing.exit {
                    Some(exit) => ExitMark::Passed(exit),
                    None => ExitMark::Without(Some(Mark::Unshown)),
                },
                None => ExitMark::Without(unproved().filter(|_| !open)),
            },
            runs: open,
            closed: closing.is_some(),
            others: unproved().filter(|_| is_tampered),
            forwards: unproved().filter(|_| is_tampered || (lacks_forwards && !runs)),
            is_behind_damage: false,
            files: facts.files.as_ref().map(|seen| FileMarks {
                at: 0,
                proved: verdict.map_or(0, VerdictText::proved_files),
                answered: seen.answered.end.frames,
                beyond: match closing {
                    _ if open => None,
                    // Before an exit status, all answers have passed.
                    Some(closing) if closing.exit.is_none() && !is_tampered => {
                        Some(Mark::Unanswered)
                    }
                    Some(_) | None => unproved(),
                },
            }),
        }
    }

    /// Notes that a block is damaged: nothing that comes behind it is proved.
    pub(crate) fn damaged(&mut self) {
        self.is_behind_damage = true;
        self.others = Some(Mark::Unproved);
    }

    /// Gives a record with its mark: data in parts, where its mark changes within it. The relay's own exit status is
    /// given where the recording has none or another one.
    pub(crate) fn each(
        &mut self,
        record: &Record<'_>,
        give: &mut dyn FnMut(&Record<'_>, Option<Mark>),
    ) {
        match &record.event {
            // The relay's own exit status is what it is, wherever it is given.
            event if self.is_behind_damage && !matches!(event, Event::Exit(_) | Event::End(_)) => {
                give(record, self.others);
            }
            Event::Data(stream, bytes) => self.data(record.delta, *stream, bytes.0, true, give),
            Event::Part(stream, bytes) => self.data(record.delta, *stream, bytes.0, false, give),
            Event::Redacted(redacted) => {
                self.frames = self.frames.saturating_add(1);
                let [stdin, _, _] = &mut self.streams;
                let length = u64::from(redacted.length);
                let is_split = stdin.left() < length;
                let mark = stdin.mark().or(is_split.then_some(Mark::Unproved));
                stdin.advance(length);
                give(record, mark);
            }
            Event::Gap(gap) => {
                for (stream, missing) in self.streams.iter_mut().zip(gap.bytes) {
                    stream.missing = stream.missing.saturating_add(missing);
                }
                let [stdin, _, _] = gap.after;
                self.frames = stdin.frames;
                if let Some(files) = self.files.as_mut().filter(|_| gap.records > 0) {
                    files.beyond = files.beyond.and(Some(Mark::Unproved));
                }
                give(record, self.others);
            }
            Event::Resize(_) | Event::Signal(_) => {
                let mark = self.control();
                give(record, mark);
            }
            Event::Eof(Stream::Stdin) => {
                let mark = self.eof();
                give(record, mark);
            }
            Event::Exit(exit) => self.exit(record, *exit, give),
            Event::File(_) => {
                let mark = match &mut self.files {
                    Some(files) => files.next(),
                    None => self.others,
                };
                give(record, mark);
            }
            Event::ForwardOpened(_) | Event::ForwardClosed(_) => give(record, self.forwards),
            Event::End(_) => {
                self.passed_exit(record.delta, give);
                give(record, self.others);
            }
            _ => give(record, self.others),
        }
    }

    fn data(
        &mut self,
        mut delta: u64,
        stream: Stream,
        bytes: &[u8],
        last: bool,
        give: &mut dyn FnMut(&Record<'_>, Option<Mark>),
    ) {
        if stream == Stream::Stdin && last {
            self.frames = self.frames.saturating_add(1);
        }
        let Some(marks) = self.streams.get_mut(stream.index()) else {
            return;
        };
        let mut rest = bytes;
        loop {
            // Where there is nothing, there is nothing to mark.
            let mark = marks.mark().filter(|_| !rest.is_empty());
            let until = usize::try_from(marks.left()).unwrap_or(usize::MAX);
            let (piece, more) = rest.split_at(rest.len().min(until));
            marks.advance(piece.len() as u64);
            let event = match more.is_empty() && last {
                true => Event::Data(stream, RecordedBytes(piece)),
                false => Event::Part(stream, RecordedBytes(piece)),
            };
            give(&Record { delta, event }, mark);
            if more.is_empty() {
                return;
            }
            (rest, delta) = (more, 0);
        }
    }

    fn control(&mut self) -> Option<Mark> {
        let at = self.controls;
        self.controls = at.saturating_add(1);
        if at < self.proved_controls || self.runs {
            return None;
        }
        let sent = self.sent.as_ref()?;
        let is_surplus = self.closed && at >= sent.seen.end.frames;
        Some(if is_surplus {
            Mark::Unsent
        } else {
            Mark::Unproved
        })
    }

    fn eof(&mut self) -> Option<Mark> {
        let is_second = std::mem::replace(&mut self.has_eof, true);
        let sent = self.sent.as_ref()?;
        let place = if self.holds_data { self.frames } else { 0 };
        match sent.eof {
            Some(eof) if eof == place && !is_second => None,
            None if !self.closed && !is_second => Some(Mark::Unproved).filter(|_| !self.runs),
            _ => Some(Mark::Unsent),
        }
    }

    fn exit(
        &mut self,
        record: &Record<'_>,
        exit: Exit,
        give: &mut dyn FnMut(&Record<'_>, Option<Mark>),
    ) {
        match self.exit {
            ExitMark::Passed(passed) if passed == exit => {
                self.exit = ExitMark::Given;
                give(record, None);
            }
            ExitMark::Passed(_) => {
                give(record, Some(Mark::Contradicted));
                self.passed_exit(0, give);
            }
            ExitMark::Given => give(record, Some(Mark::Contradicted)),
            ExitMark::Without(mark) => give(record, mark),
        }
    }

    /// Gives the exit status that the relay passed on, if the recording has not.
    fn passed_exit(&mut self, delta: u64, give: &mut dyn FnMut(&Record<'_>, Option<Mark>)) {
        if let ExitMark::Passed(exit) = self.exit {
            self.exit = ExitMark::Given;
            let event = Event::Exit(exit);
            give(&Record { delta, event }, None);
        }
    }
}

/// Returns the parts of a stream's recorded bytes that are proved. A verdict of an older relay has their number alone.
fn proved_ranges(said: &StreamText, gaps: u64) -> Vec<Range<u64>> {
    let proved = said.proved.saturating_add(said.redacted);
    match &said.ranges {
        Some(ranges) => ranges.iter().map(|[from, to]| *from..*to).collect(),
        // What is not proved is behind all that is.
        None if gaps == 0 || said.unproved == 0 => std::iter::once(0..proved).collect(),
        None => Vec::new(),
    }
}

impl FileMarks {
    /// Returns the mark of the next operation.
    fn next(&mut self) -> Option<Mark> {
        let at = self.at;
        self.at = at.saturating_add(1);
        if at < self.proved {
            return None;
        }
        let is_behind = at >= self.answered;
        self.beyond
            .map(|beyond| if is_behind { beyond } else { Mark::Unproved })
    }
}

impl StreamMarks {
    fn mark(&self) -> Option<Mark> {
        let is_proved = self.proved.last().is_some_and(|next| next.start <= self.at);
        if is_proved || self.at >= self.open_from {
            None
        } else if self.offset() >= self.relayed {
            Some(self.beyond)
        } else {
            Some(Mark::Unproved)
        }
    }

    fn offset(&self) -> u64 {
        self.at.saturating_add(self.missing)
    }

    /// Returns how many bytes there are until the mark may change.
    fn left(&self) -> u64 {
        let next = self.proved.last();
        let next = next.map(|next| match next.start > self.at {
            true => next.start.saturating_sub(self.at),
            false => next.end.saturating_sub(self.at),
        });
        let relayed = self.relayed.checked_sub(self.offset());
        let open = self.open_from.checked_sub(self.at);
        let bounds = [next, relayed, open].into_iter().flatten();
        bounds.filter(|left| *left > 0).min().unwrap_or(u64::MAX)
    }

    fn advance(&mut self, bytes: u64) {
        self.at = self.at.saturating_add(bytes);
        while self.proved.last().is_some_and(|next| next.end <= self.at) {
            self.proved.pop();
        }
    }
}

#[cfg(test)]
mod tests;
