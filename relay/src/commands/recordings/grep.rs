//! Looking for a text in what was shown.

use std::sync::{Arc, Mutex, PoisonError};

use holdfast_protocol::recording::record::Event as Recorded;
use tokio::io::AsyncWriteExt as _;

use super::super::{Context, Failure, Out};
use super::rows::SHORT_ID;
use crate::commands::answer::table::count;
use crate::recording::archive::{Part, Read};
use crate::recording::export::{Plain, Title, content_end_text, tampered_text};
use crate::recording::limits::RECORDING_PAGE;
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
    let mut cut = 0;
    loop {
        let page = context
            .store
            .recordings_page(filter, last.as_ref(), RECORDING_PAGE);
        let rows = page.await?;
        for row in &rows {
            cut += usize::from(search(pattern, row, context, out).await?);
        }
        last = rows.into_iter().next_back();
        if last.is_none() {
            return Ok(match cut {
                0 => String::new(),
                cut => format!(
                    "not searched in {}: content that is not kept\n",
                    count(cut, "recording")
                ),
            });
        }
    }
}

/// Returns whether there is content of it that could not be searched: then its hits are followed by where that begins.
async fn search(
    pattern: &str,
    row: &RecordingRow,
    context: &Context,
    out: &mut Out<'_>,
) -> Result<bool, Failure> {
    let Some(facts) = context.store.recording(row.session.id).await? else {
        return Ok(false);
    };
    let id = row.session.id.to_string();
    let id = id.get(..SHORT_ID).unwrap_or(&id).to_owned();
    let plain = Arc::new(Mutex::new((Plain::new(Title::of(&facts)), 0)));
    let cut = Arc::new(Mutex::new(Vec::new()));
    let (reading, cutting, wanted) = (plain.clone(), cut.clone(), pattern.to_owned());
    let opened = context.facts.archive.open(facts).await;
    let mut tampered = opened.tampered.clone();
    let mut hits = opened.read(move |micros, part| {
        let mut plain = reading.lock().unwrap_or_else(PoisonError::into_inner);
        plain.1 = micros;
        if let Part::Record(record, _) = part
            && let Recorded::ContentEnds(ends) = &record.event
        {
            let mut cut = cutting.lock().unwrap_or_else(PoisonError::into_inner);
            // One for each stream, whatever else a recording says.
            cut.truncate(2);
            cut.push(format!("[{}]", content_end_text(ends)));
        }
        let mut lines = match part {
            Part::Record(record, mark) => plain.0.lines(record, mark),
            Part::Damage(at) => plain.0.damage(at),
        };
        lines.retain(|line| line.contains(&wanted));
        (!lines.is_empty()).then_some((micros, lines))
    });
    let mut found = false;
    while let Some(item) = hits.recv().await {
        if let Read::Item((micros, lines)) = item {
            found = true;
            if let Some(why) = tampered.take() {
                say(out, &id, 0, &[tampered_text(&why)]).await?;
            }
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
    if let Some(why) = tampered.filter(|_| !rest.is_empty()) {
        say(out, &id, 0, &[tampered_text(&why)]).await?;
    }
    say(out, &id, micros, &rest).await?;
    let cut = std::mem::take(&mut *cut.lock().unwrap_or_else(PoisonError::into_inner));
    if found || !rest.is_empty() {
        say(out, &id, micros, &cut).await?;
    }
    Ok(!cut.is_empty())
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
