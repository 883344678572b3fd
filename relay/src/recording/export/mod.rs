//! Recordings in the formats of others: asciicast v3, JSON lines, text, bytes.

pub(crate) mod forwards;
pub(crate) mod marks;
pub(crate) mod ran;
pub(crate) mod screen;

use avt::Terminal;
use avt::observer::Transcript;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use holdfast_protocol::count::Count;
use holdfast_protocol::escape::{Escaped, EscapedBytes, Lines};
use holdfast_protocol::recording::reader::DamagedBlock;
use holdfast_protocol::recording::record::{
    CommandRun, ContentEnds, Event, FileOperation, Gap, Record, RecordingStart, StartedWork, Stream,
};
use holdfast_protocol::wire::{Exit, WindowSize};
use serde_json::{Map, Value, json};

use super::verify::{TAMPERED, content_not_kept, name};
use crate::json;
use crate::model::role::Ability;
use crate::recording::export::marks::{Mark, MarkedLines};
use crate::recording::export::screen::shown_size;
use crate::recording::limits::{MAX_SHOWN_COMMAND, MAX_TEXT_LINE};
use crate::store::{RecordingFacts, SessionFacts};

/// The facts of a session that its exports are titled with: the relay's, not the device's words.
#[derive(Clone, Debug)]
pub(crate) struct Title {
    session: SessionFacts,
    /// `TERM` and size of the terminal; outer `None`: an older relay did not keep it.
    terminal: Option<Option<(String, WindowSize)>>,
}

impl Title {
    /// Returns the title of a recording.
    #[must_use]
    pub(crate) fn of(facts: &RecordingFacts) -> Self {
        let begun = facts.begun.as_ref();
        Self {
            session: facts.row.session.clone(),
            terminal: begun.map(|begun| begun.terminal.clone()),
        }
    }

    /// Returns `TERM` and size of the terminal, if there was one.
    #[must_use]
    pub(crate) fn terminal(
        &self,
        start: Option<&RecordingStart<'_>>,
    ) -> Option<(String, WindowSize)> {
        self.terminal.clone().unwrap_or_else(|| {
            let said = start?.terminal.as_ref();
            said.map(|said| (said.term.to_owned(), said.size))
        })
    }
}

/// Bytes that become text, of which a character may be cut in two.
#[derive(Debug, Default)]
pub(crate) struct ExportText(Vec<u8>);

impl ExportText {
    /// Returns what is whole by now. What is not valid UTF-8 is shown as replacement characters.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> String {
        self.0.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.0) {
            // A character that goes on: at most three bytes.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => self.0.len() - cut(&self.0),
            Ok(_) => self.0.len(),
        };
        let rest = self.0.split_off(whole);
        let text = String::from_utf8_lossy(&self.0).into_owned();
        self.0 = rest;
        text
    }
}

/// Returns the number of last bytes that are the beginning of a character.
fn cut(bytes: &[u8]) -> usize {
    (1..=3)
        .find(|back| {
            let tail = bytes
                .get(bytes.len().saturating_sub(*back)..)
                .unwrap_or_default();
            let begins = tail.first().is_some_and(|byte| *byte >= 0xc0);
            begins && std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none())
        })
        .unwrap_or(0)
}

/// Returns one record as a line of JSON, with `mark` where it has one. These names are relied upon: they may be added
/// to, never changed.
#[must_use]
pub(crate) fn json_line(
    micros: u64,
    record: &Record<'_>,
    mark: Option<Mark>,
    title: &Title,
) -> Vec<u8> {
    let (event, facts) = match &record.event {
        Event::Start(start) => ("start", start_facts(start, title)),
        other => facts(other),
    };
    let mut line = Map::new();
    line.insert("time".to_owned(), json!(seconds(micros)));
    line.insert("event".to_owned(), json!(event));
    if let Value::Object(facts) = facts {
        line.extend(facts);
    }
    if let Some(mark) = mark {
        line.insert("mark".to_owned(), json!(mark.text()));
    }
    json::line(&line)
}

/// Returns what a record says: its name and its fields.
fn facts(event: &Event<'_>) -> (&'static str, Value) {
    match event {
        Event::Start(_) => ("start", Value::Null),
        Event::CommandLine(bytes) => (
            "command_line",
            json!({ "data": BASE64_STANDARD.encode(bytes.0) }),
        ),
        Event::Data(stream, bytes) | Event::Part(stream, bytes) => (
            "data",
            json!({ "stream": name(*stream), "data": BASE64_STANDARD.encode(bytes.0) }),
        ),
        Event::Redacted(redacted) => (
            "redacted",
            json!({ "stream": "stdin", "bytes": redacted.length }),
        ),
        Event::Eof(stream) => ("eof", json!({ "stream": name(*stream) })),
        Event::Resize(size) => (
            "resize",
            json!({ "columns": size.columns, "rows": size.rows }),
        ),
        Event::Signal(signal) => (
            "signal",
            json!({ "signal": format!("{signal:?}").to_uppercase() }),
        ),
        Event::Exit(exit) => ("exit", exit_facts(exit)),
        Event::File(file) => ("file", file_facts(file)),
        Event::ForwardOpened(forward) => ("forward_opened", forwards::opened_facts(forward)),
        Event::ForwardClosed(forward) => ("forward_closed", forwards::closed_facts(forward)),
        Event::Gap(gap) => ("gap", gap_facts(gap)),
        Event::Command(command) => ("command", command_facts(command)),
        Event::CommandExit(exit) => {
            let mut facts = exit_facts(&exit.exit);
            if let Value::Object(facts) = &mut facts {
                facts.insert("pid".to_owned(), json!(exit.pid));
            }
            ("command_exit", facts)
        }
        Event::CommandsUnavailable(why) => ("commands_unavailable", json!({ "reason": why })),
        Event::FilesUnfollowed(why) => ("files_unfollowed", json!({ "reason": why })),
        Event::EnvironmentRefused(refused) => (
            "environment_refused",
            json!({ "names": refused.names, "more": refused.more }),
        ),
        Event::ContentEnds(ends) => (
            "content_ends",
            json!({ "stream": name(ends.stream), "from_byte": ends.from.bytes }),
        ),
        Event::End(end) => ("end", json!({ "reason": snake(&format!("{:?}", end.why)) })),
    }
}

fn start_facts(start: &RecordingStart<'_>, title: &Title) -> Value {
    let session = &title.session;
    let mut facts = json!({
        "session": session.id.to_string(),
        "device": session.device_name.as_str(),
        "device_id": session.device.to_string(),
        "agent": start.agent,
        "user": session.user.as_str(),
        "login": session.login.as_str(),
        "client": session.client.to_string(),
        "wall_micros": start.wall,
        "monotonic_micros": start.monotonic,
        "mode": snake(&format!("{:?}", start.mode)).replace('_', "-"),
        "stdin": snake(&format!("{:?}", start.stdin)),
        "streams": start.streams,
        "volatile": start.volatile,
        "env": start.env.iter().map(|(name, value)| json!([name, value])).collect::<Vec<_>>(),
    });
    let more = match (session.kind, &start.work) {
        (Ability::Exec, StartedWork::Exec { length, head }) if begins(head.0, session) => json!({
            "kind": "exec", "command": EscapedOrText(head.0).to_string(), "command_bytes": length,
            "command_data": BASE64_STANDARD.encode(head.0),
        }),
        // The device says another one: what the relay knows of it is its beginning.
        (Ability::Exec, _) => json!({ "kind": "exec", "command": session.command }),
        (Ability::Sftp, StartedWork::Subsystem(name)) => {
            json!({ "kind": "subsystem", "subsystem": name })
        }
        (Ability::Sftp, _) => json!({ "kind": "subsystem" }),
        (Ability::Forward, _) => json!({ "kind": "forward" }),
        (_, _) => json!({ "kind": "shell" }),
    };
    let terminal = title
        .terminal(Some(start))
        .map(|(term, size)| json!({ "term": term, "columns": size.columns, "rows": size.rows }));
    if let (Value::Object(facts), Value::Object(more)) = (&mut facts, more) {
        facts.extend(more);
        facts.insert("terminal".to_owned(), terminal.unwrap_or(Value::Null));
    }
    facts
}

/// Returns whether a command is the one of the session, as far as the relay keeps it in words.
fn begins(head: &[u8], session: &SessionFacts) -> bool {
    let head = head.get(..MAX_SHOWN_COMMAND).unwrap_or(head);
    session.command.as_deref() == Some(&*String::from_utf8_lossy(head))
}

/// Bytes that are mostly text: as that, or escaped.
pub(super) struct EscapedOrText<'a>(pub(super) &'a [u8]);

impl std::fmt::Display for EscapedOrText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match std::str::from_utf8(self.0) {
            Ok(text) => f.write_str(text),
            Err(_) => write!(f, "{}", EscapedBytes(self.0)),
        }
    }
}

fn exit_facts(exit: &Exit) -> Value {
    match exit {
        Exit::Status(status) => json!({ "status": status }),
        Exit::Signal { .. } => json!({ "signal": exit_word(exit) }),
    }
}

/// Returns a status, or a signal's name.
pub(super) fn exit_word(exit: &Exit) -> String {
    match exit {
        Exit::Status(status) => status.to_string(),
        Exit::Signal { signal, .. } => format!("{signal:?}").to_uppercase(),
    }
}

fn file_facts(file: &FileOperation<'_>) -> Value {
    json!({
        "operation": snake(&format!("{:?}", file.kind)),
        "path": EscapedOrText(file.path.0).to_string(),
        "path_data": BASE64_STANDARD.encode(file.path.0),
        "other": file.other.map(|path| EscapedOrText(path.0).to_string()),
        "bytes": file.size,
        "result": file.result,
    })
}

fn gap_facts(gap: &Gap) -> Value {
    let [stdin, stdout, stderr] = gap.bytes;
    json!({
        "micros": gap.micros, "stdin": stdin, "stdout": stdout, "stderr": stderr,
        "records": gap.records, "reason": snake(&format!("{:?}", gap.why)),
    })
}

fn command_facts(command: &CommandRun<'_>) -> Value {
    let argv = command
        .argv
        .iter()
        .map(|word| EscapedOrText(word.0).to_string());
    json!({
        "pid": command.pid, "parent": command.parent, "argv": argv.collect::<Vec<_>>(),
        "cut": command.cut, "cwd": command.cwd.map(|cwd| EscapedOrText(cwd.0).to_string()),
    })
}

/// Returns, in words, where the content of a stream ends that is not kept whole.
pub(crate) fn content_end_text(ends: &ContentEnds) -> String {
    format!(
        "{}: {}",
        name(ends.stream),
        content_not_kept(ends.from.bytes)
    )
}

/// Returns, in words, how much of the input is redacted.
pub(crate) fn redacted_text(bytes: u64) -> String {
    format!("redacted, {}", Count(bytes, "byte"))
}

/// Returns an exit status or a terminal's size in words.
pub(crate) fn event_text(event: &Event<'_>) -> String {
    match event {
        Event::Exit(exit) => format!("exit {}", exit_word(exit)),
        Event::Resize(size) => {
            let (columns, rows) = shown_size(*size);
            format!("size {columns}x{rows}")
        }
        _ => String::new(),
    }
}

/// Returns where blocks cannot be read, in words.
pub(crate) fn damage_text(at: DamagedBlock) -> String {
    let DamagedBlock { segment, block } = at;
    format!("segment {segment}, block {block} is damaged")
}

/// Returns the line in place of blocks that cannot be read.
pub(crate) fn gap_line(at: DamagedBlock) -> String {
    format!("[gap: {}; what follows is not proved]", damage_text(at))
}

/// Returns the same as a line of JSON. The names are relied upon.
pub(crate) fn damage_line(micros: u64, at: DamagedBlock) -> Vec<u8> {
    let DamagedBlock { segment, block } = at;
    let event = json!({
        "time": seconds(micros), "event": "damage", "segment": segment, "block": block,
    });
    json::line(&event)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds are exact for 285 years"
)]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Returns the line before everything else of a recording that is not what passed.
pub(crate) fn tampered_text(why: &str) -> String {
    format!("[this recording {}]", Escaped(why))
}

/// Returns the same as the first line of an export in JSON. The names are relied upon.
pub(crate) fn tampered_line(why: &str) -> Vec<u8> {
    let reason = why.strip_prefix(TAMPERED).unwrap_or(why);
    json::line(&json!({ "time": 0.0, "event": "tampered", "reason": reason }))
}

/// Returns the same as the first event of an asciicast.
pub(crate) fn tampered_event(why: &str) -> String {
    let text = json::compact(&tampered_text(why));
    format!("[0.000000, \"m\", {text}]\n")
}

/// Returns `PowerLoss` as `power_loss`.
pub(super) fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

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
                let lines = self.marked.take_all(*stream, mark, bytes.0);
                let shown: String = lines.iter().map(|line| format!("\r\n{line}")).collect();
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
                let missing = gap
                    .bytes
                    .iter()
                    .fold(0, |sum: u64, n| sum.saturating_add(*n));
                let missing = Count(missing, "byte");
                self.event(micros, "m", &format!("gap, {missing}"))
            }
            Event::ContentEnds(ends) => self.event(micros, "m", &content_end_text(ends)),
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

/// Makes text of what was shown: of a terminal what stood in its lines when they left it, of a command its output.
#[derive(Default)]
pub(crate) struct Plain {
    title: Option<Title>,
    terminal: Option<(Terminal, Transcript)>,
    texts: [ExportText; 3],
    line: String,
    marked: MarkedLines,
    last_mark: Option<Mark>,
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
        let mut lines = self.flush();
        lines.extend(self.marked_rest());
        lines.push(gap_line(at));
        lines
    }

    /// Returns the lines that are whole after a record, without control characters. Output that has a mark becomes
    /// lines that begin with it, behind those before it.
    pub(crate) fn lines(&mut self, record: &Record<'_>, mark: Option<Mark>) -> Vec<String> {
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
            lines.extend(self.marked.take(*stream, mark, bytes.0));
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
                self.terminal = terminal.map(|terminal| (terminal, Transcript::new()));
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
                vec![Mark::line(mark, &line)]
            }
            Event::FilesUnfollowed(why) => {
                vec![format!(
                    "[file operations may be missing: {}]",
                    Escaped(why)
                )]
            }
            Event::ForwardOpened(forward) => {
                vec![Mark::line(mark, &forwards::opened_line(forward))]
            }
            Event::ForwardClosed(forward) => {
                vec![Mark::line(mark, &forwards::closed_line(forward))]
            }
            Event::Gap(gap) => {
                let missing = gap
                    .bytes
                    .iter()
                    .fold(0, |sum: u64, n| sum.saturating_add(*n));
                let verb = if missing == 1 { "is" } else { "are" };
                vec![format!("[gap: {} {verb} missing]", Count(missing, "byte"))]
            }
            Event::ContentEnds(ends) => {
                // What is behind it need not be of the line that has begun.
                let mut lines = self.flush();
                lines.push(format!("[{}]", content_end_text(ends)));
                lines
            }
            _ => Vec::new(),
        }
    }

    /// Returns what is left at the end.
    #[must_use]
    pub(crate) fn finish(mut self) -> Vec<String> {
        let mut lines = self.flush();
        lines.extend(self.marked_rest());
        lines
    }

    /// Returns what has a mark and is no whole line yet.
    fn marked_rest(&mut self) -> Vec<String> {
        let mark = self.last_mark.take();
        mark.map_or_else(Vec::new, |mark| self.marked.rest(mark))
    }

    /// Returns what is shown by now and is no whole line yet. Where a terminal was, what follows is lines.
    fn flush(&mut self) -> Vec<String> {
        let mut lines = match self.terminal.take() {
            Some((terminal, transcript)) => escaped(transcript.finish(&terminal)),
            None => Vec::new(),
        };
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            lines.push(Escaped(&line).to_string());
        }
        lines
    }

    fn cut(&mut self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in text.split_inclusive('\n') {
            self.line.push_str(piece.trim_end_matches('\n'));
            if piece.ends_with('\n') || self.line.len() > MAX_TEXT_LINE {
                let line = std::mem::take(&mut self.line);
                lines.push(shown(line.trim_end_matches('\r')));
            }
        }
        lines
    }
}

fn escaped(lines: Vec<String>) -> Vec<String> {
    lines.iter().map(|line| shown(line)).collect()
}

/// Returns a line as it was, but for what could drive a terminal or hide.
fn shown(line: &str) -> String {
    Lines(line).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_protocol::escape::is_treacherous;
    use holdfast_protocol::ids::{DeviceId, DeviceName, Login, SessionId, UserName};
    use holdfast_protocol::recording::record::RecordedBytes;

    use crate::clock::Timestamp;

    const HOSTILE: &str = "x\r\n\u{1b}[2J\u{9b}31m\u{85}\u{202e}\u{2028}\u{e0041}\u{7f}\"z";

    fn title() -> Title {
        Title {
            session: SessionFacts {
                user_id: None,
                id: SessionId([1; 16]),
                user: UserName::new("alice").unwrap(),
                device: DeviceId([2; 16]),
                device_name: DeviceName::new("cam").unwrap(),
                login: Login::new("pi").unwrap(),
                kind: Ability::Exec,
                command: Some("true".to_owned()),
                client: "203.0.113.9:50022".parse().unwrap(),
                started: Timestamp(0),
                terminal: false,
            },
            terminal: None,
        }
    }

    fn record(event: Event<'_>) -> Record<'_> {
        Record { delta: 0, event }
    }

    #[test]
    fn exports_hold_hostile_text_as_harmless_data() {
        let records = [
            record(Event::Data(
                Stream::Stdout,
                RecordedBytes(HOSTILE.as_bytes()),
            )),
            record(Event::CommandsUnavailable(HOSTILE)),
        ];
        let title = title();
        let mut cast = Asciicast::new(title.clone());
        let mut plain = Plain::new(title.clone());
        for record in &records {
            let json = String::from_utf8(json_line(1, record, None, &title)).unwrap();
            let mut lines = vec![json.clone(), cast.lines(1, record, None)];
            let text = plain.lines(record, None);
            lines.extend(text.iter().map(|line| format!("{line}\n")));
            for text in lines.iter().filter(|text| !text.is_empty()) {
                let line = text.strip_suffix('\n').unwrap();
                assert!(!line.contains(is_treacherous), "{line:?}");
            }
            let Event::CommandsUnavailable(_) = record.event else {
                // The session's output is data: a player gets every byte of it.
                let event: Value = serde_json::from_str(&lines[1]).unwrap();
                assert_eq!(event[2], HOSTILE.replace('\n', "\r\n"));
                continue;
            };
            let read: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(read["reason"], HOSTILE);
        }
        for line in plain.finish() {
            assert!(!line.contains(is_treacherous), "{line:?}");
        }
    }

    #[test]
    fn a_character_that_is_cut_in_two_is_held_back() {
        let mut text = ExportText::default();
        assert_eq!(text.take(b"a\xe2\x82"), "a");
        assert_eq!(text.take(b"\xac!"), "\u{20ac}!");
        assert_eq!(text.take(b"\xff\xe2\x82"), "\u{fffd}");
        assert_eq!(text.take(b"\xac"), "\u{20ac}");
        assert_eq!(text.take(b"\xf0\x9f"), "");
        assert_eq!(text.take(b"x"), "\u{fffd}x");
    }
}
