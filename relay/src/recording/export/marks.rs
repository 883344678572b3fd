//! What a reader of a recording must know of each record: whether the operator was shown it, and whether it is proved.
//! The relay's own row decides, and its signed verdict.

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::recording::record::{Event, Record, RecordedBytes, Stream};

use super::ExportText;
use crate::recording::limits::MAX_TEXT_LINE;
use crate::recording::verify::{VerdictText, name};
use crate::store::RecordingFacts;

/// The reason why something in a recording is not what the operator was shown or sent, as far as the relay can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The session was cut off before the relay could pass it on.
    Unshown,
    /// Input that the relay did not send.
    Unsent,
    /// The relay cannot say.
    Unproved,
}

impl Mark {
    /// Returns its words, as they appear in every export.
    #[must_use]
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Unshown => "not shown to the operator",
            Self::Unsent => "not sent by the operator",
            Self::Unproved => "not proved",
        }
    }
}

/// Marks the records of one recording, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Marks {
    streams: [StreamMarks; 3],
    /// True if the session ended without an exit status that the relay passed on.
    without_exit: bool,
}

#[derive(Clone, Copy, Debug)]
struct StreamMarks {
    /// The number of bytes have come.
    at: u64,
    /// The offset up to which it is proved.
    proved: u64,
    /// The offset up to which the relay passed it on.
    relayed: u64,
    /// The mark of what is behind that.
    beyond: Mark,
}

impl Marks {
    /// Returns the marks of a recording; `verdict` is the signed one, if there is one.
    #[must_use]
    pub(crate) fn of(facts: &RecordingFacts, verdict: Option<&VerdictText>) -> Self {
        let runs = facts.row.ended.is_none();
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
                streams.find(|said| said.stream == name(stream))
            });
            StreamMarks {
                at: 0,
                // Of a session that runs, the relay has not written down what passes now. Where there is a gap, what is
                // proved is not all before it.
                proved: match said {
                    Some(said) if said.missing == 0 => said.proved.saturating_add(said.redacted),
                    _ => u64::MAX,
                },
                relayed: if runs { u64::MAX } else { relayed },
                beyond: match facts.closing {
                    Some(_) => cut_off,
                    None => Mark::Unproved,
                },
            }
        });
        Self {
            streams,
            without_exit: facts.closing.is_some_and(|closing| closing.exit.is_none()),
        }
    }

    /// Gives a record with its mark: data in two parts, where its mark changes within it.
    pub(crate) fn each(
        &mut self,
        record: &Record<'_>,
        give: &mut dyn FnMut(&Record<'_>, Option<Mark>),
    ) {
        let (stream, bytes, last) = match &record.event {
            Event::Data(stream, bytes) => (*stream, bytes.0, true),
            Event::Part(stream, bytes) => (*stream, bytes.0, false),
            Event::Redacted(redacted) => {
                let [stdin, _, _] = &mut self.streams;
                let mark = stdin.mark();
                stdin.advance(u64::from(redacted.length));
                return give(record, mark);
            }
            Event::Gap(gap) => {
                for (stream, missing) in self.streams.iter_mut().zip(gap.bytes) {
                    stream.advance(missing);
                }
                return give(record, None);
            }
            Event::Exit(_) => {
                return give(record, self.without_exit.then_some(Mark::Unshown));
            }
            _ => return give(record, None),
        };
        let Some(marks) = self.streams.get_mut(stream.index()) else {
            return;
        };
        let mut rest = bytes;
        let mut delta = record.delta;
        loop {
            let mark = marks.mark();
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
}

impl StreamMarks {
    fn mark(&self) -> Option<Mark> {
        if self.at >= self.relayed {
            Some(self.beyond)
        } else if self.at >= self.proved {
            Some(Mark::Unproved)
        } else {
            None
        }
    }

    /// Returns the bytes until the mark may change.
    fn left(&self) -> u64 {
        let bounds = [self.proved, self.relayed];
        let next = bounds.into_iter().filter(|bound| *bound > self.at).min();
        next.map_or(u64::MAX, |next| next.saturating_sub(self.at))
    }

    fn advance(&mut self, bytes: u64) {
        self.at = self.at.saturating_add(bytes);
    }
}

/// Makes lines of bytes that have a mark: each begins with it, and none drives a terminal.
#[derive(Debug, Default)]
pub(crate) struct MarkedLines([(ExportText, String); 3]);

impl MarkedLines {
    /// Returns the lines that are whole with these bytes.
    pub(crate) fn take(&mut self, stream: Stream, mark: Mark, bytes: &[u8]) -> Vec<String> {
        let [stdin, stdout, stderr] = &mut self.0;
        let (text, line) = match stream {
            Stream::Stdin => stdin,
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        let mut lines = Vec::new();
        for piece in text.take(bytes).split_inclusive('\n') {
            line.push_str(piece.trim_end_matches('\n'));
            if piece.ends_with('\n') || line.len() > MAX_TEXT_LINE {
                lines.push(marked(mark, &std::mem::take(line)));
            }
        }
        lines
    }

    /// Returns the same, with the line that is not whole.
    pub(crate) fn take_all(&mut self, stream: Stream, mark: Mark, bytes: &[u8]) -> Vec<String> {
        let mut lines = self.take(stream, mark, bytes);
        lines.extend(self.rest(mark));
        lines
    }

    /// Returns the lines that are not whole.
    pub(crate) fn rest(&mut self, mark: Mark) -> Vec<String> {
        let lines = self.0.iter_mut().map(|(_, line)| std::mem::take(line));
        let lines = lines.filter(|line| !line.is_empty());
        lines.map(|line| marked(mark, &line)).collect()
    }
}

fn marked(mark: Mark, line: &str) -> String {
    format!("[{}] {}", mark.text(), Escaped(line.trim_end_matches('\r')))
}
