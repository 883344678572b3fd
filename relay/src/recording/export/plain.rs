//! A recording as lines of text.

use avt::Terminal;
use holdfast_protocol::count::Count;
use holdfast_protocol::escape::{Escaped, EscapedBytes, Lines};
use holdfast_protocol::recording::reader::DamagedBlock;
use holdfast_protocol::recording::record::{Event, Record, Stream};

use super::forwards;
use super::mark::{Mark, MarkedLines};
use super::screen::shown_size;
use super::text::{ExportText, content_end_text, gap_line, missing_text, snake};
use super::title::Title;
use super::transcript::{TimedLine, TimedTranscript};
use crate::recording::limits::MAX_TEXT_LINE;

/// Makes text of what was shown: of a terminal what stood in its lines when they left it, of a command its output.
#[derive(Default)]
pub(crate) struct Plain {
    title: Option<Title>,
    terminal: Option<(Terminal, TimedTranscript)>,
    texts: [ExportText; 3],
    line: String,
    marked: MarkedLines,
    last_mark: Option<Mark>,
    /// The time of what is handled now, and the times at which the lines began that are not whole.
    now: u64,
    line_began: u64,
    marked_began: u64,
}

impl Plain {
    /// Creates the export of a recording with this title.
    #[must_use]
    pub(crate) fn new(title: Title) -> Self {
        Self {
            title: Some(title),
            ..Self::default()
        }
    }

    /// Returns the lines that end where blocks cannot be read, and the line in their place.
    pub(crate) fn damage(&mut self, at: DamagedBlock) -> Vec<String> {
        texts(self.timed_damage(self.now, at))
    }

    /// Returns the same, each line with its time, where the gap is at this one.
    pub(crate) fn timed_damage(&mut self, micros: u64, at: DamagedBlock) -> Vec<TimedLine> {
        self.now = micros;
        let mut lines = self.flush();
        lines.extend(self.marked_rest());
        lines.push(self.line_now(gap_line(at)));
        lines
    }

    /// Returns the lines that are whole after a record, without control characters. Output that has a mark becomes
    /// lines that begin with it, behind those before it.
    pub(crate) fn lines(&mut self, record: &Record<'_>, mark: Option<Mark>) -> Vec<String> {
        texts(self.timed_lines(self.now, record, mark))
    }

    /// Returns the same, each line with its time, for a record of this time.
    pub(crate) fn timed_lines(
        &mut self,
        micros: u64,
        record: &Record<'_>,
        mark: Option<Mark>,
    ) -> Vec<TimedLine> {
        self.now = micros;
        if let Some((_, transcript)) = &mut self.terminal {
            transcript.set_now(micros);
        }
        if let (Event::Data(stream, bytes) | Event::Part(stream, bytes), Some(mark)) =
            (&record.event, mark)
        {
            if *stream == Stream::Stdin {
                return Vec::new();
            }
            let mut lines = self.flush();
            if self.last_mark != Some(mark) {
                lines.extend(self.marked_rest());
            }
            self.last_mark = Some(mark);
            lines.extend(self.marked_lines(*stream, mark, bytes.0));
            return lines;
        }
        match &record.event {
            Event::Start(start) => {
                let terminal = self
                    .title
                    .as_ref()
                    .and_then(|title| title.terminal(Some(start)));
                let terminal = terminal.and_then(|(_, size)| {
                    let (columns, rows) = shown_size(size);
                    Terminal::new(columns, rows).ok()
                });
                self.terminal = terminal.map(|terminal| (terminal, TimedTranscript::default()));
                Vec::new()
            }
            Event::Resize(size) if mark.is_none() => {
                let Some((terminal, transcript)) = &mut self.terminal else {
                    return Vec::new();
                };
                let (columns, rows) = shown_size(*size);
                escaped(terminal.resize_with(columns, rows, transcript))
            }
            Event::Data(stream, bytes) | Event::Part(stream, bytes) if *stream != Stream::Stdin => {
                let [_, stdout, stderr] = &mut self.texts;
                let text = if *stream == Stream::Stderr {
                    stderr
                } else {
                    stdout
                }
                .take(bytes.0);
                let mut lines = self.marked_rest();
                lines.extend(match &mut self.terminal {
                    Some((terminal, transcript)) => {
                        escaped(terminal.feed_with(text.as_str(), transcript))
                    }
                    None => self.cut(&text),
                });
                lines
            }
            Event::File(file) => {
                let path = EscapedBytes(file.path.0);
                let line = format!(
                    "{} {path}: {}, result {}",
                    snake(&format!("{:?}", file.kind)),
                    Count(file.size, "byte"),
                    file.result
                );
                vec![self.line_now(Mark::line(mark, &line))]
            }
            Event::FilesUnfollowed(why) => {
                let line = format!("[file operations may be missing: {}]", Escaped(why));
                vec![self.line_now(Mark::line(mark, &line))]
            }
            Event::ForwardOpened(forward) => {
                vec![self.line_now(Mark::line(mark, &forwards::opened_line(forward)))]
            }
            Event::ForwardClosed(forward) => {
                vec![self.line_now(Mark::line(mark, &forwards::closed_line(forward)))]
            }
            Event::Gap(gap) => {
                let is_one = gap.missing().saturating_add(gap.records) == 1;
                let verb = if is_one { "is" } else { "are" };
                let line = format!("[gap: {} {verb} missing]", missing_text(gap));
                vec![self.line_now(Mark::line(mark, &line))]
            }
            Event::ContentEnds(ends) => {
                // What is behind it need not be of the line that has begun.
                let mut lines = self.flush();
                let line = format!("[{}]", content_end_text(ends));
                lines.push(self.line_now(Mark::line(mark, &line)));
                lines
            }
            _ => Vec::new(),
        }
    }

    /// Returns what is left at the end.
    #[must_use]
    pub(crate) fn finish(self) -> Vec<String> {
        texts(self.timed_finish())
    }

    /// Returns the same, each line with its time.
    #[must_use]
    pub(crate) fn timed_finish(mut self) -> Vec<TimedLine> {
        let mut lines = self.flush();
        lines.extend(self.marked_rest());
        lines
    }

    /// Returns a line that is shown now, whole.
    const fn line_now(&self, text: String) -> TimedLine {
        TimedLine {
            micros: self.now,
            text,
        }
    }

    /// Returns the lines that are whole with these bytes, which have a mark.
    fn marked_lines(&mut self, stream: Stream, mark: Mark, bytes: &[u8]) -> Vec<TimedLine> {
        if !self.marked.has_begun() {
            self.marked_began = self.now;
        }
        let mut lines = Vec::new();
        for text in self.marked.take(stream, mark, bytes) {
            let micros = std::mem::replace(&mut self.marked_began, self.now);
            lines.push(TimedLine { micros, text });
        }
        lines
    }

    /// Returns what has a mark and is no whole line yet.
    fn marked_rest(&mut self) -> Vec<TimedLine> {
        let (micros, mark) = (self.marked_began, self.last_mark.take());
        let rest = mark.map_or_else(Vec::new, |mark| self.marked.rest(mark));
        let timed = |text| TimedLine { micros, text };
        rest.into_iter().map(timed).collect()
    }

    /// Returns what is shown by now and is no whole line yet. Where a terminal was, what follows is lines.
    fn flush(&mut self) -> Vec<TimedLine> {
        let mut lines = match self.terminal.take() {
            Some((terminal, transcript)) => escaped(transcript.finish(&terminal)),
            None => Vec::new(),
        };
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            lines.push(TimedLine {
                micros: self.line_began,
                text: Escaped(&line).to_string(),
            });
        }
        lines
    }

    fn cut(&mut self, text: &str) -> Vec<TimedLine> {
        let mut lines = Vec::new();
        for piece in text.split_inclusive('\n') {
            if self.line.is_empty() {
                self.line_began = self.now;
            }
            self.line.push_str(piece.trim_end_matches('\n'));
            if piece.ends_with('\n') || self.line.len() > MAX_TEXT_LINE {
                let line = std::mem::take(&mut self.line);
                lines.push(TimedLine {
                    micros: self.line_began,
                    text: shown(line.trim_end_matches('\r')),
                });
            }
        }
        lines
    }
}

fn texts(lines: Vec<TimedLine>) -> Vec<String> {
    lines.into_iter().map(|line| line.text).collect()
}

fn escaped(mut lines: Vec<TimedLine>) -> Vec<TimedLine> {
    for line in &mut lines {
        line.text = shown(&line.text);
    }
    lines
}

/// Returns a line as it was, but for what could drive a terminal or hide.
fn shown(line: &str) -> String {
    Lines(line).to_string()
}
