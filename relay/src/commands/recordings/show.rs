//! One recording in full, and its verification.

use std::io;
use std::sync::Arc;

use holdfast_protocol::count::Count;
use holdfast_protocol::escape::Escaped;
use serde_json::{Value, json as value};

use super::super::{Context, DONE, Done, Failure, json};
use super::rows::{row, what};
use crate::clock::Timestamp;
use crate::commands::answer::table::{card, count, table};
use crate::hex::hex;
use crate::recording::archive::{Part, Read};
use crate::recording::export::damage_text;
use crate::recording::export::forwards::ShownForwards;
use crate::recording::export::ran::Ran;
use crate::recording::verify::{COUNTED, VerdictText};
use crate::store::{RecordingFacts, RecordingState};
use crate::sync::Mutex;

/// The exit statuses of `verify`, beside [`DONE`] and the one of every failure. They are relied upon.
const NOT_PROVED: u8 = 3;
const TRUNCATED: u8 = 4;
pub(super) const TAMPERED: u8 = 5;
pub(super) const LOST: u8 = 6;
const NOT_YET: u8 = 7;
const NOT_KEPT: u8 = 8;

pub(super) async fn show(
    facts: &RecordingFacts,
    context: &Context,
    as_json: bool,
) -> Result<String, Failure> {
    let verdict = context.facts.archive.verdict(facts);
    let (ran, forwards) = looked_into(facts, context).await;
    let chain = facts.segments.last().map(|(_, link)| hex(&link.0));
    if as_json {
        let mut text = serde_json::to_value(row(&facts.row)).unwrap_or(Value::Null);
        if let Value::Object(text) = &mut text {
            text.insert(
                "client".to_owned(),
                value!(facts.row.session.client.to_string()),
            );
            text.insert("segments".to_owned(), value!(facts.stored_segments()));
            text.insert("chain".to_owned(), value!(chain));
            text.insert("verdict".to_owned(), value!(verdict));
            let signature = facts.row.signature.as_deref().map(hex);
            text.insert("signature".to_owned(), value!(signature));
            for more in [serde_json::to_value(&ran), serde_json::to_value(&forwards)] {
                if let Ok(Value::Object(more)) = more {
                    text.extend(more);
                }
            }
        }
        return json(&text);
    }
    let row = &facts.row;
    let ended = row.ended.map_or_else(|| "-".to_owned(), Timestamp::rfc3339);
    let mut lines = vec![
        ("id", row.session.id.to_string()),
        ("user", row.session.user.to_string()),
        (
            "device",
            format!("{} ({})", row.session.device_name, row.session.device),
        ),
        ("login", row.session.login.to_string()),
        ("what", what(row)),
        ("client", row.session.client.to_string()),
        ("started", row.session.started.rfc3339()),
        ("ended", ended),
        ("state", row.state.as_str().to_owned()),
        (
            "reason",
            row.reason.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        (
            "stored",
            format!(
                "{} in {}",
                Count(row.bytes, "byte"),
                count(facts.stored_segments(), "segment")
            ),
        ),
        (
            "hold",
            match &row.hold {
                Some(hold) => super::hold::since(hold),
                None => "-".to_owned(),
            },
        ),
        ("chain", chain.unwrap_or_else(|| "-".to_owned())),
    ];
    match &verdict {
        None => lines.push(("verdict", "none yet".to_owned())),
        Some(verdict) => {
            let said = match row.verified {
                Some(true) => "verified",
                _ if verdict.is_content_not_kept() => "all proved, content not kept",
                _ => "not verified",
            };
            lines.push(("verdict", format!("{said}, signed by the cluster key")));
            lines.extend(verdict.streams.iter().map(|stream| {
                let lack = stream.lack.as_deref();
                let lack = lack.map_or_else(String::new, |lack| format!("; {lack}"));
                let name = match stream.stream.as_str() {
                    "stdin" => "stdin",
                    "stdout" => "stdout",
                    _ => "stderr",
                };
                let unseen = match (stream.unseen, name) {
                    (0, _) => String::new(),
                    (unseen, "stdin") => format!(", {unseen} not sent by the operator"),
                    (unseen, _) => format!(", {unseen} not shown to the operator"),
                };
                let not_kept = match stream.not_kept {
                    0 => String::new(),
                    bytes => format!(", {bytes} proved and not kept"),
                };
                let text = format!(
                    "{} relayed, {} proved, {} redacted, {} missing{not_kept}{unseen}{lack}",
                    Count(stream.relayed, "byte"),
                    stream.proved,
                    stream.redacted,
                    stream.missing
                );
                (name, text)
            }));
            let missing = verdict.unfollowed.as_deref().map(unfollowed);
            lines.extend(missing.map(|missing| ("files", missing)));
        }
    }
    if let Some(said) = verdict.as_ref().and_then(|verdict| verdict.control.clone()) {
        lines.push(("sizes and signals", said));
    }
    if let Some(said) = verdict
        .as_ref()
        .and_then(|verdict| verdict.forwards.clone())
    {
        lines.push(("forwards", said));
    }
    if let Some(said) = verdict.as_ref().and_then(|verdict| verdict.files.clone()) {
        lines.push(("file operations", said));
    }
    if let Some(said) = verdict.and_then(|verdict| verdict.contradiction) {
        lines.push(("contradiction", said));
    }
    if let Some(lack) = ran.lack() {
        lines.push(("commands", lack));
    }
    lines.extend(forwards.lack().map(|lack| ("forwards", lack)));
    let mut text = card(&lines);
    if !forwards.forwards.is_empty() {
        let head = [
            "TIME", "WAY", "TO", "ADDRESS", "FROM", "SENT", "RECEIVED", "END",
        ];
        text.push('\n');
        text.push_str(&table(context.width, head, &forwards.rows()));
    }
    if !ran.commands.is_empty() {
        let head = ["TIME", "PID", "PARENT", "EXIT", "FOLDER", "COMMAND"];
        text.push('\n');
        text.push_str(&table(context.width, head, &ran.rows()));
    }
    Ok(text)
}

/// Returns the commands and forwards of a recording, as far as it can be read.
async fn looked_into(facts: &RecordingFacts, context: &Context) -> (Ran, ShownForwards) {
    let found = Arc::new(Mutex::new((Ran::default(), ShownForwards::default())));
    let reading = found.clone();
    let opened = context.facts.archive.open(facts.clone()).await;
    let mut read = opened.read(move |micros, part| {
        let mut found = reading.lock();
        match part {
            Part::Record(record, _) => {
                found.0.handle(micros, record);
                found.1.handle(micros, record);
            }
            Part::Damage(at) => {
                let lack = &mut found.0.commands_unavailable;
                lack.get_or_insert_with(|| damage_text(at));
            }
        }
        None::<()>
    });
    let mut whole = false;
    while let Some(item) = read.recv().await {
        if let Read::End(end) = item {
            whole = end.is_ok();
        }
    }
    let found = found.lock();
    let (mut ran, forwards) = found.clone();
    if !whole && ran.commands_unavailable.is_none() {
        ran.commands_unavailable = Some("the recording cannot be read to its end".to_owned());
    }
    (ran, forwards)
}

/// Reads it again from where it is stored: the seals hold, and the chain is the one that was signed.
pub(super) async fn verify(facts: &RecordingFacts, context: &Context) -> Result<Done, Failure> {
    let id = facts.row.session.id;
    let fails = |why: String| Err(Failure(format!("recording {id} {why}")));
    let says = |code: u8, what: String| {
        let text = format!("recording {id} {what}\n");
        Ok(Done::with_code(text, code))
    };
    let archive = &context.facts.archive;
    let opened = archive.open(facts.clone()).await;
    let tampered = opened.tampered.clone();
    let mut read = opened.read(|_, _| None::<()>);
    let mut end = None;
    while let Some(item) = read.recv().await {
        if let Read::End(outcome) = item {
            end = Some(outcome);
        }
    }
    let end = match end {
        Some(Ok(end)) => end,
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            return fails(format!(
                "cannot be read from where it is stored: a segment of it is gone, restore it from a backup: {error}"
            ));
        }
        Some(Err(error)) => {
            return fails(format!("cannot be read from where it is stored: {error}"));
        }
        None => return fails("cannot be read".to_owned()),
    };
    let state = facts.row.state;
    // What the upload has found comes first: what was not taken is not stored here.
    if let Some(why) = tampered.or_else(|| archive.altered(facts, &end)) {
        return says(TAMPERED, why);
    }
    if !state.is_terminal() {
        return says(
            NOT_YET,
            format!("is not here yet: it is {}", state.as_str()),
        );
    }
    let Some(verdict) = archive.verdict(facts) else {
        let what = "has no verdict yet: ask again in a minute";
        return says(NOT_YET, what.to_owned());
    };
    let (_, link) = end;
    let segments = count(facts.stored_segments(), "segment");
    let reason = facts.row.reason.as_deref().unwrap_or("no reason known");
    // What was signed decides, and not what the row says of it.
    let (code, said) = match state {
        RecordingState::Complete => match lacks(&verdict) {
            lacks if lacks.is_empty() && facts.row.verified == Some(true) => {
                (DONE, "complete and verified".to_owned())
            }
            lacks if verdict.is_content_not_kept() => (
                NOT_KEPT,
                format!("complete, content not kept: {lacks}; all that passed is proved"),
            ),
            lacks => (
                NOT_PROVED,
                format!("complete, not all of it proved: {lacks}"),
            ),
        },
        RecordingState::Lost => (LOST, format!("lost: {reason}")),
        other => (TRUNCATED, format!("{}: {reason}", other.as_str())),
    };
    let text = format!(
        "recording {id}: {said} ({segments}, chain {})\n",
        hex(&link.0)
    );
    Ok(Done::with_code(text, code))
}

fn lacks(verdict: &VerdictText) -> String {
    let streams = verdict.streams.iter().filter_map(|stream| {
        let lack = stream.lack.as_deref().filter(|lack| *lack != COUNTED)?;
        Some(format!("{}: {lack}", stream.stream))
    });
    let control = verdict.control.iter();
    let control = control.map(|lack| format!("sizes and signals: {lack}"));
    let forwards = verdict.forwards.iter();
    let forwards = forwards.map(|lack| format!("forwards: {lack}"));
    let files = verdict.files.iter();
    let files = files.map(|lack| format!("file operations: {lack}"));
    let mut lacks: Vec<String> = streams
        .chain(control)
        .chain(forwards)
        .chain(files)
        .chain(verdict.contradiction.clone())
        .collect();
    lacks.extend(verdict.unfollowed.as_deref().map(unfollowed));
    lacks.join(", ")
}

fn unfollowed(why: &str) -> String {
    format!("file operations may be missing: {}", Escaped(why))
}
