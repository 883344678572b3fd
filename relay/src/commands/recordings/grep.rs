//! Looking for a text in what was shown.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncWriteExt as _;

use super::super::{Context, Failure, Out};
use super::rows::SHORT_ID;
use crate::limits::RECORDING_PAGE;
use crate::recording::archive::Read;
use crate::recording::export::{Plain, Title};
use crate::recording::verify::clock;
use crate::store::{RecordingFilter, RecordingRow};

/// Writes each line that has the pattern in it, with its recording and the time at which it was whole.
pub(super) async fn run(
    pattern: &str,
    filter: &RecordingFilter,
    context: &Context,
    out: &mut Out<'_>,
) -> Result<String, Failure> {
    let mut last: Option<RecordingRow> = None;
    loop {
        let page = context
            .store
            .recordings_page(filter, last.as_ref(), RECORDING_PAGE);
        let rows = page.await?;
        for row in &rows {
            search(pattern, row, context, out).await?;
        }
        last = rows.into_iter().next_back();
        if last.is_none() {
            return Ok(String::new());
        }
    }
}

async fn search(
    pattern: &str,
    row: &RecordingRow,
    context: &Context,
    out: &mut Out<'_>,
) -> Result<(), Failure> {
    let Some(facts) = context.store.recording(row.session.id).await? else {
        return Ok(());
    };
    let id = row.session.id.to_string();
    let id = id.get(..SHORT_ID).unwrap_or(&id).to_owned();
    let plain = Arc::new(Mutex::new((Plain::new(Title::of(&facts)), 0)));
    let (reading, wanted) = (plain.clone(), pattern.to_owned());
    let archive = &context.facts.archive;
    let mut hits = archive.read(facts, move |micros, record, mark| {
        let mut plain = reading.lock().unwrap_or_else(PoisonError::into_inner);
        plain.1 = micros;
        let mut lines = plain.0.lines(record, mark);
        lines.retain(|line| line.contains(&wanted));
        (!lines.is_empty()).then_some((micros, lines))
    });
    while let Some(item) = hits.recv().await {
        if let Read::Item((micros, lines)) = item {
            say(out, &id, micros, &lines).await?;
        }
    }
    let (rest, micros) = {
        let mut plain = plain.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut plain.0).finish(), plain.1)
    };
    let rest: Vec<String> = rest
        .into_iter()
        .filter(|line| line.contains(pattern))
        .collect();
    say(out, &id, micros, &rest).await
}

async fn say(out: &mut Out<'_>, id: &str, micros: u64, lines: &[String]) -> Result<(), Failure> {
    for line in lines {
        let line = format!("{id}  {}  {line}\n", clock(micros));
        out.write_all(line.as_bytes())
            .await
            .map_err(|error| Failure::unwritten(&error))?;
    }
    Ok(())
}
