//! Looking for a text in what was shown.

use std::sync::Arc;

use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::record::Event as Recorded;
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;

use super::super::{Context, DONE, Done, Failure, Out};
use super::rows::SHORT_ID;
use crate::commands::answer::table::count;
use crate::recording::archive::{Part, Read};
use crate::recording::export::notice::Notice;
use crate::recording::export::{Plain, TimedLine, Title, content_end_text, damage_text, seconds};
use crate::recording::limits::RECORDING_PAGE;
use crate::recording::verify::clock;
use crate::store::{RecordingFilter, RecordingRow};
use crate::sync::Mutex;

/// The exit statuses beside [`DONE`], which are those of grep. They are relied upon.
const NOT_FOUND: u8 = 1;
pub(super) const FAILED: u8 = 2;

/// A line that has the text, for machines. These names are relied upon: they may be added to, never changed.
#[derive(Serialize)]
struct Hit<'a> {
    recording: String,
    /// Seconds from its beginning to when the first byte of the line was shown.
    time: f64,
    user: &'a str,
    device: &'a str,
    device_id: String,
    login: &'a str,
    line: &'a str,
    /// The reason why the recording is not what passed.
    tampered: Option<&'a str>,
    /// The reason why nothing of it is proved yet.
    unproved: Option<&'a str>,
}

/// The outcome of a search through recordings.
#[derive(Default)]
struct Searched {
    is_found: bool,
    /// Recordings whose content is not kept to its end.
    cut: usize,
    /// The recordings that could not be read whole, and the reason of the newest one.
    unread: Vec<SessionId>,
    why: String,
}

/// Writes each line that has the pattern in it, with its recording and the time at which its first byte was shown.
pub(super) async fn run(
    pattern: &str,
    filter: &RecordingFilter,
    as_json: bool,
    context: &Context,
    out: &mut Out<'_>,
) -> Result<Done, Failure> {
    let mut last: Option<RecordingRow> = None;
    let mut searched = Searched::default();
    loop {
        let page = context
            .store
            .recordings_page(filter, last.as_ref(), RECORDING_PAGE);
        let rows = page.await?;
        for row in &rows {
            let mut said = Printer {
                row,
                as_json,
                notice: None,
                out,
            };
            search(pattern, context, &mut said, &mut searched).await?;
        }
        last = rows.into_iter().next_back();
        if last.is_none() {
            return Ok(searched.done(as_json));
        }
    }
}

impl Searched {
    fn done(self, as_json: bool) -> Done {
        let not_searched = match self.cut {
            0 => String::new(),
            cut => format!(
                "not searched in {}: content that is not kept",
                count(cut, "recording")
            ),
        };
        let unread = self.unread.first().map(|id| {
            let many = count(self.unread.len(), "recording");
            format!(
                "{many} could not be read whole, the newest of them {id}: {}; see `relay recordings verify {id}`",
                self.why
            )
        });
        let code = match (&unread, self.is_found) {
            (Some(_), _) => FAILED,
            (None, true) => DONE,
            (None, false) => NOT_FOUND,
        };
        // For machines, stdout has hits and nothing else.
        let (text, complaint) = match (not_searched.is_empty(), as_json) {
            (true, _) => (String::new(), unread.unwrap_or_default()),
            (false, false) => (format!("{not_searched}\n"), unread.unwrap_or_default()),
            (false, true) => {
                let said = [unread, Some(not_searched)];
                let said: Vec<String> = said.into_iter().flatten().collect();
                (String::new(), said.join("; "))
            }
        };
        Done {
            text,
            code,
            complaint,
        }
    }
}

/// The places in a recording where nothing can be found.
#[derive(Default)]
struct Unsearched {
    /// The ends of content that is not kept, in words.
    cut: Vec<String>,
    /// The first damaged block, in words, and the line in its place.
    damage: Option<(String, Option<TimedLine>)>,
}

/// Looks through one recording. If there is content of it that could not be searched, its hits are followed by where
/// that is.
async fn search(
    pattern: &str,
    context: &Context,
    said: &mut Printer<'_, '_>,
    searched: &mut Searched,
) -> Result<(), Failure> {
    let id = said.row.session.id;
    let Some(facts) = context.store.recording(id).await? else {
        return Ok(());
    };
    let plain = Arc::new(Mutex::new((Plain::new(Title::of(&facts)), 0)));
    let unsearched = Arc::new(Mutex::new(Unsearched::default()));
    let (reading, lacking, wanted) = (plain.clone(), unsearched.clone(), pattern.to_owned());
    let archive = &context.facts.archive;
    let opened = archive.open(facts.clone()).await;
    said.notice = opened.notice();
    let mut hits = opened.read(move |micros, part| {
        let mut plain = reading.lock();
        plain.1 = micros;
        if let Part::Record(record, _) = part
            && let Recorded::ContentEnds(ends) = &record.event
        {
            let cut = &mut lacking.lock().cut;
            // One for each stream, whatever else a recording says.
            cut.truncate(2);
            cut.push(format!("[{}]", content_end_text(ends)));
        }
        let mut lines = match part {
            Part::Record(record, mark) => plain.0.timed_lines(micros, record, mark),
            Part::Damage(at) => {
                let mut lines = plain.0.timed_damage(micros, at);
                // The relay's own line is no hit.
                let gap = lines.pop();
                let first = || (damage_text(at), gap);
                lacking.lock().damage.get_or_insert_with(first);
                lines
            }
        };
        lines.retain(|line| line.text.contains(&wanted));
        (!lines.is_empty()).then_some(lines)
    });
    let (mut found, mut end) = (false, None);
    while let Some(item) = hits.recv().await {
        match item {
            Read::Item(lines) => {
                said.begin(&mut found).await?;
                said.hits(&lines).await?;
            }
            Read::End(read) => end = Some(read),
        }
    }
    let (rest, micros) = {
        let mut plain = plain.lock();
        (std::mem::take(&mut plain.0).timed_finish(), plain.1)
    };
    let rest: Vec<TimedLine> = rest
        .into_iter()
        .filter(|line| line.text.contains(pattern))
        .collect();
    if !rest.is_empty() {
        said.begin(&mut found).await?;
        said.hits(&rest).await?;
    }
    let Unsearched { cut, damage } = std::mem::take(&mut *unsearched.lock());
    let (damage, gap) = damage.unzip();
    if found {
        if let Some(gap) = gap.flatten() {
            said.remarks(gap.micros, &[gap.text]).await?;
        }
        said.remarks(micros, &cut).await?;
    }
    let unread = match end {
        Some(Ok(read)) => damage.or_else(|| archive.altered(&facts, &read)),
        Some(Err(error)) => Some(error.to_string()),
        None => Some("it cannot be read to its end".to_owned()),
    };
    if let Some(why) = unread {
        if searched.unread.is_empty() {
            searched.why = why;
        }
        searched.unread.push(id);
    }
    searched.is_found |= found;
    searched.cut += usize::from(!cut.is_empty());
    Ok(())
}

/// The output about one recording.
struct Printer<'a, 'o> {
    row: &'a RecordingRow,
    as_json: bool,
    /// The words before its first hit.
    notice: Option<Notice>,
    out: &'a mut Out<'o>,
}

impl Printer<'_, '_> {
    /// Writes, before the first hit, why it is not what passed, or not proved.
    async fn begin(&mut self, found: &mut bool) -> Result<(), Failure> {
        let why = self.notice.as_ref().map(Notice::text);
        let why = why.filter(|_| !*found);
        *found = true;
        match why {
            Some(why) => self.remarks(0, &[why]).await,
            None => Ok(()),
        }
    }

    async fn hits(&mut self, lines: &[TimedLine]) -> Result<(), Failure> {
        let (tampered, unproved) = match &self.notice {
            Some(notice @ Notice::Tampered(_)) => (Some(notice.reason().to_owned()), None),
            Some(notice @ Notice::Unproved) => (None, Some(notice.reason().to_owned())),
            None => (None, None),
        };
        for TimedLine { micros, text } in lines {
            if !self.as_json {
                self.remarks(*micros, std::slice::from_ref(text)).await?;
                continue;
            }
            let session = &self.row.session;
            let hit = Hit {
                recording: session.id.to_string(),
                time: seconds(*micros),
                user: session.user.as_str(),
                device: session.device_name.as_str(),
                device_id: session.device.to_string(),
                login: session.login.as_str(),
                line: text,
                tampered: tampered.as_deref(),
                unproved: unproved.as_deref(),
            };
            self.write(&crate::json::line(&hit)).await?;
        }
        Ok(())
    }

    /// Writes lines for people, which are not for machines.
    async fn remarks(&mut self, micros: u64, lines: &[String]) -> Result<(), Failure> {
        if self.as_json {
            return Ok(());
        }
        let id = self.row.session.id.to_string();
        let id = id.get(..SHORT_ID).unwrap_or(&id);
        for line in lines {
            let line = format!("{id}  {}  {line}\n", clock(micros));
            self.write(line.as_bytes()).await?;
        }
        Ok(())
    }

    async fn write(&mut self, line: &[u8]) -> Result<(), Failure> {
        let written = self.out.write_all(line).await;
        written.map_err(|error| Failure::unwritten(&error))
    }
}
