//! A recording as an asciicast v3, for players of terminal sessions.

use holdfast_protocol::recording::reader::DamagedBlock;
use holdfast_protocol::recording::record::{Event, Record, RecordingStart, Stream};
use holdfast_protocol::wire::Exit;
use serde_json::{Value, json};

use super::mark::{Mark, MarkedLines};
use super::screen::shown_size;
use super::text::{
    ExportText, content_end_text, event_text, gap_line, missing_text, redacted_text,
};
use super::title::Title;
use crate::json;
use crate::store::SessionFacts;

/// Makes an asciicast v3: a header, then an event a line, each timed from the one before.
#[derive(Debug)]
pub(crate) struct Asciicast {
    title: Title,
    last: u64,
    terminal: bool,
    texts: [ExportText; 3],
    marked: MarkedLines,
    /// The last output has a mark.
    has_mark: bool,
    has_header: bool,
}

impl Asciicast {
    /// Creates the export of a recording with this title.
    #[must_use]
    pub(crate) fn new(title: Title) -> Self {
        Self {
            title,
            last: 0,
            terminal: false,
            texts: Default::default(),
            marked: MarkedLines::default(),
            has_mark: false,
            has_header: false,
        }
    }

    /// Returns the lines in place of blocks that cannot be read.
    pub(crate) fn damage(&mut self, micros: u64, at: DamagedBlock) -> String {
        let header = match self.has_header {
            true => String::new(),
            // The record of the start is among what is lost.
            false => self.header(None),
        };
        header + &self.event(micros, "m", &gap_line(at))
    }

    /// Returns the lines that a record becomes. What has a mark is shown as text that begins with it, and drives no
    /// terminal.
    pub(crate) fn lines(&mut self, micros: u64, record: &Record<'_>, mark: Option<Mark>) -> String {
        match &record.event {
            Event::Data(stream, bytes) | Event::Part(stream, bytes) if mark.is_some() => {
                let mark = mark.unwrap_or(Mark::Unproved);
                let shown = self.marked.take_for_terminal(*stream, mark, bytes.0);
                self.has_mark = true;
                let note = self.event(micros, "m", mark.text());
                note + &self.event(micros, "o", &shown)
            }
            Event::Exit(_) | Event::Resize(_) if mark.is_some() => {
                let text = Mark::line(mark, &event_text(&record.event));
                self.event(micros, "m", &text)
            }
            Event::Start(start) if !self.has_header => self.header(Some(start)),
            Event::Data(stream, bytes) | Event::Part(stream, bytes) => {
                let [stdin, stdout, stderr] = &mut self.texts;
                let (text, code) = match stream {
                    Stream::Stdin => (stdin, "i"),
                    Stream::Stdout => (stdout, "o"),
                    Stream::Stderr => (stderr, "o"),
                };
                let mut text = text.take(bytes.0);
                if code == "o" && std::mem::take(&mut self.has_mark) {
                    text.insert(0, '\n');
                }
                match self.terminal || code == "i" {
                    true => self.event(micros, code, &text),
                    false => self.event(micros, code, &text.replace('\n', "\r\n")),
                }
            }
            Event::Resize(size) => {
                let (columns, rows) = shown_size(*size);
                self.event(micros, "r", &format!("{columns}x{rows}"))
            }
            Event::Redacted(redacted) => {
                let text = Mark::line(mark, &redacted_text(redacted.length.into()));
                self.event(micros, "m", &text)
            }
            Event::Gap(gap) => {
                let text = Mark::line(mark, &format!("gap, {}", missing_text(gap)));
                self.event(micros, "m", &text)
            }
            Event::ContentEnds(ends) => {
                let text = Mark::line(mark, &content_end_text(ends));
                self.event(micros, "m", &text)
            }
            Event::Exit(Exit::Status(status)) => self.event(micros, "x", &status.to_string()),
            Event::Exit(Exit::Signal { .. }) => self.event(micros, "x", "255"),
            _ => String::new(),
        }
    }

    fn header(&mut self, start: Option<&RecordingStart<'_>>) -> String {
        self.has_header = true;
        let terminal = self.title.terminal(start);
        self.terminal = terminal.is_some();
        let size = terminal.as_ref().map(|(_, size)| *size);
        let (columns, rows) = shown_size(size.unwrap_or_default());
        let mut term = json!({ "cols": columns, "rows": rows });
        if let (Some((name, _)), Value::Object(term)) = (&terminal, &mut term) {
            term.insert("type".to_owned(), json!(name));
        }
        let SessionFacts {
            user,
            login,
            device_name,
            ..
        } = &self.title.session;
        let title = format!("{user} as {login} on {device_name}");
        let begun = start.map_or(self.title.session.started.0, |start| start.wall);
        let header = json!({
            "version": 3, "term": term, "timestamp": begun.max(0) / 1_000_000, "title": title,
        });
        format!("{}\n", json::compact(&header))
    }

    fn event(&mut self, micros: u64, code: &str, data: &str) -> String {
        if data.is_empty() {
            return String::new();
        }
        let interval = micros.saturating_sub(self.last);
        self.last = micros;
        let (seconds, rest) = (interval / 1_000_000, interval % 1_000_000);
        let (code, data) = (json::compact(&code), json::compact(&data));
        format!("[{seconds}.{rest:06}, {code}, {data}]\n")
    }
}
