//! One recording in full, and its verification.

use std::sync::{Arc, Mutex, PoisonError};

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::recording::reader::Verdict;
use serde_json::{Value, json as value};

use super::super::table::{card, table};
use super::super::{Context, Failure, json};
use super::{row, what};
use crate::clock::Timestamp;
use crate::hex::hex;
use crate::recording::archive::Read;
use crate::recording::ran::Ran;
use crate::recording::verify::{VerdictText, signed_verdict};
use crate::store::{RecordingFacts, RecordingState};

pub(super) async fn show(
    facts: &RecordingFacts,
    context: &Context,
    as_json: bool,
) -> Result<String, Failure> {
    let verdict = verdict(facts, context);
    let ran = ran(facts, context).await;
    let chain = facts.segments.last().map(|(_, link)| hex(&link.0));
    if as_json {
        let mut text = serde_json::to_value(row(&facts.row)).unwrap_or(Value::Null);
        if let Value::Object(text) = &mut text {
            text.insert(
                "client".to_owned(),
                value!(facts.row.session.client.to_string()),
            );
            text.insert("segments".to_owned(), value!(facts.segments.len()));
            text.insert("chain".to_owned(), value!(chain));
            text.insert("verdict".to_owned(), value!(verdict));
            let signature = facts.row.signature.as_deref().map(hex);
            text.insert("signature".to_owned(), value!(signature));
            if let Ok(Value::Object(ran)) = serde_json::to_value(&ran) {
                text.extend(ran);
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
            format!("{} bytes in {} segments", row.bytes, facts.segments.len()),
        ),
        (
            "hold",
            match &row.hold {
                Some(_) => super::hold::of(facts),
                None => "-".to_owned(),
            },
        ),
        ("chain", chain.unwrap_or_else(|| "-".to_owned())),
    ];
    match &verdict {
        None => lines.push(("verdict", "none yet".to_owned())),
        Some(verdict) => {
            let said = if row.verified == Some(true) {
                "verified"
            } else {
                "not verified"
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
                let text = format!(
                    "{} bytes relayed, {} proved, {} redacted, {} missing{lack}",
                    stream.relayed, stream.proved, stream.redacted, stream.missing
                );
                (name, text)
            }));
            let missing = verdict.unfollowed.as_deref().map(unfollowed);
            lines.extend(missing.map(|missing| ("files", missing)));
        }
    }
    if let Some(lack) = ran.lack() {
        lines.push(("commands", lack));
    }
    let mut text = card(&lines);
    if !ran.commands.is_empty() {
        let head = ["TIME", "PID", "PARENT", "EXIT", "COMMAND", "FOLDER"];
        text.push('\n');
        text.push_str(&table(head, &ran.rows()));
    }
    Ok(text)
}

/// What it tells of commands, as far as it can be read.
async fn ran(facts: &RecordingFacts, context: &Context) -> Ran {
    let told = Arc::new(Mutex::new(Ran::default()));
    let reading = told.clone();
    let read = context
        .facts
        .archive
        .read(facts.clone(), move |micros, record| {
            let mut ran = reading.lock().unwrap_or_else(PoisonError::into_inner);
            ran.handle(micros, record);
            None::<()>
        });
    let mut read = read;
    let mut whole = false;
    while let Some(item) = read.recv().await {
        if let Read::End(end) = item {
            whole = end.is_ok();
        }
    }
    let mut ran = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if !whole && ran.commands_unavailable.is_none() {
        ran.commands_unavailable = Some("the recording cannot be read to its end".to_owned());
    }
    ran
}

/// Reads it again from where it is stored: the seals hold, and the chain is the one that was signed.
pub(super) async fn verify(facts: &RecordingFacts, context: &Context) -> Result<String, Failure> {
    let id = facts.row.session.id;
    let fails = |why: String| Err(Failure(format!("recording {id} {why}")));
    let mut read = context.facts.archive.read(facts.clone(), |_, _| None::<()>);
    let mut end = None;
    while let Some(item) = read.recv().await {
        if let Read::End(outcome) = item {
            end = Some(outcome);
        }
    }
    let (found, link) = match end {
        Some(Ok(end)) => end,
        Some(Err(error)) => {
            return fails(format!("cannot be read from where it is stored: {error}"));
        }
        None => return fails("cannot be read".to_owned()),
    };
    let state = facts.row.state;
    // What the upload has found comes first: what was not taken is not stored here.
    if state == RecordingState::Tampered {
        let reason = facts.row.reason.as_deref().unwrap_or("it was altered");
        return fails(format!("is tampered: {reason}"));
    }
    if let Verdict::Tampered { at, fault } = found {
        return fails(format!(
            "was altered after it was stored: segment {}, block {}: {fault}",
            at.segment, at.block
        ));
    }
    if !state.is_terminal() {
        return fails(format!("is not here yet: it is {}", state.as_str()));
    }
    let Some(verdict) = verdict(facts, context) else {
        let why = match facts.row.verdict {
            None => "has no verdict yet: ask again in a minute",
            Some(_) => "has a verdict that the cluster key did not sign",
        };
        return fails(why.to_owned());
    };
    if verdict.recording != id.to_string() || verdict.chain != hex(&link.0) {
        return fails("is not the one that the cluster key signed a verdict on".to_owned());
    }
    let segments = facts.segments.len();
    let said = match (state, facts.row.verified) {
        (RecordingState::Complete, Some(true)) => "complete and verified".to_owned(),
        (RecordingState::Complete, _) => {
            format!("complete, not all of it proved: {}", lacks(&verdict))
        }
        (state, _) => format!(
            "{}: {}",
            state.as_str(),
            facts.row.reason.as_deref().unwrap_or("no reason known")
        ),
    };
    Ok(format!(
        "recording {id}: {said} ({segments} segments, chain {})\n",
        hex(&link.0)
    ))
}

fn lacks(verdict: &VerdictText) -> String {
    let mut lacks: Vec<String> = verdict
        .streams
        .iter()
        .filter_map(|stream| Some(format!("{}: {}", stream.stream, stream.lack.as_deref()?)))
        .collect();
    lacks.extend(verdict.unfollowed.as_deref().map(unfollowed));
    lacks.join(", ")
}

fn unfollowed(why: &str) -> String {
    format!("file operations may be missing: {}", Escaped(why))
}

fn verdict(facts: &RecordingFacts, context: &Context) -> Option<VerdictText> {
    let (text, signature) = (
        facts.row.verdict.as_deref()?,
        facts.row.signature.as_deref()?,
    );
    signed_verdict(text, signature, context.facts.archive.cluster())
}
