//! `export`: a recording in a format that other programs read.

use std::sync::Arc;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::recording::record::{Event as Recorded, Record, Stream};
use tokio::io::AsyncWriteExt as _;

use crate::audit::Event;
use crate::commands::Done;
use crate::commands::call::{Call, Command, Right};
use crate::commands::recordings::{distrusted, find, look, looked, lost, not_whole, unfinished};
use crate::commands::{Caller, Context, Failure, Out};
use crate::recording::archive::{Part, Read};
use crate::recording::export::ran::Ran;
use crate::recording::export::{
    Asciicast, Plain, Title, content_end_text, damage_line, damage_text, json_line,
};
use crate::session::registry::console::Shows;
use crate::store::RecordingFacts;
use crate::sync::Mutex;

/// A recorded session for other programs
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay export 3f9a --format asciicast > session.cast
  relay export 3f9a --format json | jq -r 'select(.event == \"command\") | .argv | join(\" \")'
  relay export 3f9a --format raw --stream stderr")]
pub(crate) struct Args {
    /// The recording's id, or the beginning of it
    id: String,
    /// asciicast (version 3), json (one record a line), txt (the screen's text) or raw (the output's bytes)
    #[arg(long, value_parser = format)]
    format: Format,
    /// The stream, for `raw`: stdin, stdout or stderr
    #[arg(long, value_parser = stream, default_value = "stdout")]
    stream: Stream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Asciicast,
    Json,
    Txt,
    Raw,
}

fn format(text: &str) -> Result<Format, &'static str> {
    match text {
        "asciicast" => Ok(Format::Asciicast),
        "json" => Ok(Format::Json),
        "txt" => Ok(Format::Txt),
        "raw" => Ok(Format::Raw),
        _ => Err("the formats are asciicast, json, txt and raw"),
    }
}

fn stream(text: &str) -> Result<Stream, &'static str> {
    match text {
        "stdin" => Ok(Stream::Stdin),
        "stdout" => Ok(Stream::Stdout),
        "stderr" => Ok(Stream::Stderr),
        _ => Err("the streams are stdin, stdout and stderr"),
    }
}

impl Args {
    fn entry(&self) -> Event {
        looked(&self.id, "export")
    }
}

impl Command for Args {
    fn need(&self) -> Right {
        Right::Recordings
    }

    fn event(&self) -> Option<Event> {
        Some(self.entry())
    }

    fn streams(&self) -> bool {
        true
    }

    fn shows(&self, caller: &Caller) -> Shows {
        super::shown(caller)
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        run(&self, call.caller, call.context, call.out).await
    }
}

async fn run(
    args: &Args,
    caller: &Caller,
    context: &Context,
    out: &mut Out<'_>,
) -> Result<Done, Failure> {
    let facts = find(&args.id, caller, context).await?;
    look(context, &facts, args.entry()).await?;
    let id = facts.row.session.id;
    let (unfinished, lost) = (unfinished(&facts), lost(&facts));
    let plain = Plain::new(Title::of(&facts));
    let plain = Arc::new(Mutex::new((plain, Ran::default())));
    let (tampered, mut shown) = pass(facts, args, context, plain.clone(), out).await?;
    if args.format == Format::Txt {
        let (mut rest, ran) = {
            let mut plain = plain.lock();
            let (plain, ran) = std::mem::take(&mut *plain);
            (plain.finish(), ran)
        };
        rest.extend(summary(&ran));
        shown |= !rest.is_empty();
        write(out, joined(&rest).as_bytes()).await?;
    }
    out.flush()
        .await
        .map_err(|error| Failure::unwritten(&error))?;
    match (tampered, unfinished) {
        // What was written stays; its reader must know what it is.
        (Some(why), _) => Ok(distrusted(id, &why)),
        (None, Some(state)) => Err(not_whole(id, state, shown)),
        (None, None) => Ok(lost.unwrap_or_else(|| String::new().into())),
    }
}

/// Writes what the recording becomes, and returns why it is not what passed, if it is not, and whether anything of it
/// was written.
async fn pass(
    facts: RecordingFacts,
    args: &Args,
    context: &Context,
    plain: Arc<Mutex<(Plain, Ran)>>,
    out: &mut Out<'_>,
) -> Result<(Option<String>, bool), Failure> {
    let (form, wanted) = (args.format, args.stream);
    let title = Title::of(&facts);
    let mut cast = Asciicast::new(title.clone());
    let mut become_bytes = move |micros: u64, part: Part<'_>| -> Vec<u8> {
        match (form, part) {
            (Format::Asciicast, Part::Record(record, mark)) => {
                cast.lines(micros, record, mark).into_bytes()
            }
            (Format::Asciicast, Part::Damage(at)) => cast.damage(micros, at).into_bytes(),
            (Format::Json, Part::Record(record, mark)) => json_line(micros, record, mark, &title),
            (Format::Json, Part::Damage(at)) => damage_line(micros, at),
            (Format::Txt, Part::Record(record, mark)) => {
                let mut plain = plain.lock();
                plain.1.handle(micros, record);
                joined(&plain.0.lines(record, mark)).into_bytes()
            }
            (Format::Txt, Part::Damage(at)) => {
                let mut plain = plain.lock();
                joined(&plain.0.damage(at)).into_bytes()
            }
            (Format::Raw, Part::Record(record, _)) if holds(record, wanted) => {
                match &record.event {
                    Recorded::Data(_, bytes) | Recorded::Part(_, bytes) => bytes.0.to_vec(),
                    _ => Vec::new(),
                }
            }
            (Format::Raw, _) => Vec::new(),
        }
    };
    let archive = &context.facts.archive;
    let opened = archive.open(facts.clone()).await;
    let tampered = opened.tampered.clone();
    let mut note = match (opened.notice(), form) {
        (Some(notice), Format::Json) => String::from_utf8_lossy(&notice.json_line()).into_owned(),
        (Some(notice), Format::Txt) => format!("{}\n", notice.text()),
        (Some(notice), Format::Asciicast) => notice.marker(),
        // Bytes alone can carry no word.
        (Some(_), Format::Raw) | (None, _) => String::new(),
    };
    // An asciicast begins with its header.
    if form != Format::Asciicast {
        write(out, std::mem::take(&mut note).as_bytes()).await?;
    }
    let mut items = opened.read(move |micros, part| {
        if form == Format::Raw
            && let Some(why) = end_of_bytes(part, wanted)
        {
            return Some(Err(why));
        }
        let bytes = become_bytes(micros, part);
        Some(Ok(bytes)).filter(|bytes| bytes.as_ref().is_ok_and(|bytes| !bytes.is_empty()))
    });
    let mut shown = false;
    while let Some(item) = items.recv().await {
        match item {
            Read::Item(Ok(bytes)) => {
                shown = true;
                write(out, &bytes).await?;
                write(out, std::mem::take(&mut note).as_bytes()).await?;
            }
            Read::Item(Err(why)) => {
                out.flush()
                    .await
                    .map_err(|error| Failure::unwritten(&error))?;
                return match tampered {
                    Some(tampered) => Ok((Some(format!("{tampered}; {why}")), shown)),
                    None => Err(Failure(why)),
                };
            }
            Read::End(Ok(end)) => {
                return Ok((tampered.or_else(|| archive.altered(&facts, &end)), shown));
            }
            Read::End(Err(error)) => {
                let text = format!("the recording cannot be read from where it is stored: {error}");
                return Err(Failure(text));
            }
        }
    }
    Err(Failure::new("the recording cannot be shown to its end"))
}

/// Returns why the bytes of this stream end before this part, if they do. Bytes alone can carry no mark: they end where
/// the first would have to be.
fn end_of_bytes(part: Part<'_>, wanted: Stream) -> Option<String> {
    match part {
        Part::Record(record, Some(mark)) if holds(record, wanted) => {
            let mark = mark.text();
            Some(format!(
                "what follows is {mark}: `--format json` exports it, with its mark"
            ))
        }
        Part::Record(record, _) => match &record.event {
            Recorded::ContentEnds(ends) if ends.stream == wanted => Some(content_end_text(ends)),
            _ => None,
        },
        Part::Damage(at) => {
            let what = damage_text(at);
            Some(format!(
                "{what}: `--format json` exports what follows, with its mark"
            ))
        }
    }
}

/// Returns whether it is data of this stream.
fn holds(record: &Record<'_>, wanted: Stream) -> bool {
    matches!(&record.event, Recorded::Data(of, _) | Recorded::Part(of, _) if *of == wanted)
}

/// Returns the lines behind the text: what was on a screen has no times.
fn summary(ran: &Ran) -> Vec<String> {
    let mut lines: Vec<String> = ran
        .lack()
        .map(|lack| format!("commands {lack}"))
        .into_iter()
        .collect();
    let rows = ran.rows();
    lines.extend(rows.iter().map(|[time, pid, _, end, folder, line]| {
        let (line, folder, end) = (Escaped(line), Escaped(folder), Escaped(end));
        format!("{time}  {line}  (process {pid} in {folder}, exit {end})")
    }));
    if !lines.is_empty() {
        lines.insert(0, "-- commands".to_owned());
    }
    lines
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

async fn write(out: &mut Out<'_>, bytes: &[u8]) -> Result<(), Failure> {
    out.write_all(bytes)
        .await
        .map_err(|error| Failure::unwritten(&error))
}
