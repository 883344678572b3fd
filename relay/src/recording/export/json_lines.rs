//! A recording as JSON, one record a line.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use holdfast_protocol::recording::reader::DamagedBlock;
use holdfast_protocol::recording::record::{
    CommandRun, Event, FileOperation, Gap, Record, RecordingStart, StartedWork,
};
use holdfast_protocol::wire::Exit;
use serde_json::{Map, Value, json};

use super::forwards;
use super::mark::Mark;
use super::text::{EscapedOrText, exit_word, seconds, snake};
use super::title::Title;
use crate::json;
use crate::model::role::Ability;
use crate::recording::limits::MAX_SHOWN_COMMAND;
use crate::recording::verify::name;
use crate::store::SessionFacts;

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

/// Returns the line in place of blocks that cannot be read, as JSON. The names are relied upon.
pub(crate) fn damage_line(micros: u64, at: DamagedBlock) -> Vec<u8> {
    let DamagedBlock { segment, block } = at;
    let event = json!({
        "time": seconds(micros), "event": "damage", "segment": segment, "block": block,
    });
    json::line(&event)
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

fn exit_facts(exit: &Exit) -> Value {
    match exit {
        Exit::Status(status) => json!({ "status": status }),
        Exit::Signal { .. } => json!({ "signal": exit_word(exit) }),
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
