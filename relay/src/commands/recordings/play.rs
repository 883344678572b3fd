//! `play`: a recording in the terminal, at its pace.

use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::record::{Event as Recorded, Record, RecordingStart, Stream};
use tokio::io::AsyncWriteExt as _;
use tokio::time::sleep_until;

use crate::audit::Event;
use crate::clock;
use crate::commands::Done;
use crate::commands::call::{Call, Command, Right};
use crate::commands::recordings::{distrusted, find, look, looked, lost, not_whole, unfinished};
use crate::commands::{Caller, Context, Failure, Out};
use crate::recording::archive::{Part, Read};
use crate::recording::export::mark::{Mark, MarkedLines};
use crate::recording::export::notice::Notice;
use crate::recording::export::screen::{CLOSE, OPEN, Screen};
use crate::recording::export::{ExportText, Plain, Title, event_text, gap_line, redacted_text};
use crate::recording::verify;
use crate::session::registry::console::Shows;
use crate::session::registry::life::Activity;
use crate::store::RecordingFacts;
use crate::sync::Mutex;

/// The time that the last picture stays.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Watch a recorded session
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay play 3f9a
  ssh -t -p 2222 relay play 3f9a --speed 2 --idle-limit 1s --from 1:30

Ctrl-C ends it. Only characters and colours of the recording reach your terminal.")]
pub(crate) struct Args {
    /// The recording's id, or the beginning of it
    id: String,
    /// The factor of the speed
    #[arg(long, value_name = "TIMES", default_value = "1", value_parser = speed)]
    speed: f64,
    /// Shorten longer pauses to this
    #[arg(long, value_name = "SPAN", value_parser = span)]
    idle_limit: Option<Duration>,
    /// Begin there: 1:30, or 90s
    #[arg(long, value_name = "TIME", value_parser = from, default_value = "0s")]
    from: Duration,
}

fn speed(text: &str) -> Result<f64, &'static str> {
    let speed = text.parse::<f64>().ok();
    let speed = speed.filter(|speed| (0.01..=1_000.0).contains(speed));
    speed.ok_or("expected a number from 0.01 to 1000")
}

fn span(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text).map_err(|_| "expected a span of time such as 500ms or 1s")
}

fn from(text: &str) -> Result<Duration, &'static str> {
    let Some((minutes, seconds)) = text.split_once(':') else {
        return span(text);
    };
    let parsed = (minutes.parse::<u32>(), seconds.parse::<u8>());
    let (Ok(minutes), Ok(seconds @ 0..60)) = parsed else {
        return Err("expected a time such as 1:30 or 90s");
    };
    Ok(Duration::from_secs(
        u64::from(minutes) * 60 + u64::from(seconds),
    ))
}

impl Args {
    fn entry(&self) -> Event {
        looked(&self.id, "play")
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

    fn activity(&self, terminal: bool) -> Activity {
        if terminal {
            Activity::Input
        } else {
            Activity::Bytes
        }
    }

    fn parting(&self) -> &'static str {
        CLOSE
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
    let open = out.write_all(OPEN.as_bytes()).await;
    let played = match open {
        Ok(()) => tokio::select! {
            played = play(args, facts, context, out) => played,
            // At the relay's own shell; over ssh the console gives the command up and closes the screen.
            _ = tokio::signal::ctrl_c() => Ok(String::new().into()),
        },
        Err(error) => Err(Failure::unwritten(&error)),
    };
    // The screen is closed whatever came of it; a viewer that is gone needs none.
    let _ = out.write_all(CLOSE.as_bytes()).await;
    let _ = out.flush().await;
    played
}

async fn play(
    args: &Args,
    facts: RecordingFacts,
    context: &Context,
    out: &mut Out<'_>,
) -> Result<Done, Failure> {
    let (id, unfinished) = (facts.row.session.id, unfinished(&facts));
    let archive = &context.facts.archive;
    let opened = archive.open(facts.clone()).await;
    let tampered = opened.tampered.clone();
    let mut show = Show::new(args.from, Title::of(&facts), opened.notice());
    let reached = Arc::new(Mutex::new(0));
    let reads = reached.clone();
    let mut frames = opened.read(move |micros, part| {
        *reads.lock() = micros;
        show.part(micros, part)
    });
    let began = clock::instant();
    let (mut due, mut last) = (Duration::ZERO, args.from);
    let mut shown = false;
    while let Some(item) = frames.recv().await {
        let (at, drawn) = match item {
            Read::Item(frame) => frame,
            Read::End(Ok(end)) => {
                let tampered = tampered.or_else(|| archive.altered(&facts, &end));
                if let (None, Some(state)) = (&tampered, unfinished) {
                    return Err(not_whole(id, state, shown));
                }
                if tampered.is_none() {
                    if let Some(lost) = lost(&facts) {
                        return Ok(lost);
                    }
                    begins_within(id, args.from, *reached.lock())?;
                }
                sleep_until(began + due + LAST_LOOK).await;
                return Ok(match tampered {
                    Some(why) => distrusted(id, &why),
                    None => String::new().into(),
                });
            }
            Read::End(Err(error)) => {
                let text = format!("the recording cannot be read from where it is stored: {error}");
                return Err(Failure(text));
            }
        };
        shown = true;
        let pause = at.saturating_sub(last);
        last = last.max(at);
        let pause = args.idle_limit.map_or(pause, |limit| pause.min(limit));
        due = due.saturating_add(pause.div_f64(args.speed));
        sleep_until(began + due).await;
        let written = async {
            out.write_all(drawn.as_bytes()).await?;
            out.flush().await
        };
        written.await.map_err(|error| Failure::unwritten(&error))?;
    }
    Err(Failure::new("the recording cannot be shown to its end"))
}

/// Checks that there is something to show from this time on, of a recording that lasts so long.
fn begins_within(id: SessionId, from: Duration, micros: u64) -> Result<(), Failure> {
    if from <= Duration::from_micros(micros) {
        return Ok(());
    }
    let from = u64::try_from(from.as_micros()).unwrap_or(u64::MAX);
    let (from, length) = (verify::clock(from), verify::clock(micros));
    Err(Failure(format!(
        "recording {id} is {length} long: there is nothing from {from} on, give an earlier `--from`"
    )))
}

/// Draws a recording's records, from a certain time on.
struct Show {
    from: Duration,
    title: Title,
    /// The words before everything else.
    notice: Option<Notice>,
    screen: Option<Screen>,
    terminal: bool,
    texts: [ExportText; 2],
    plain: Plain,
    marked: MarkedLines,
    /// The last that was shown has a mark.
    has_mark: bool,
    /// Bytes of input that are redacted, so far.
    redacted: u64,
}

impl Show {
    fn new(from: Duration, title: Title, notice: Option<Notice>) -> Self {
        Self {
            from,
            title,
            notice,
            screen: None,
            terminal: false,
            texts: Default::default(),
            plain: Plain::default(),
            marked: MarkedLines::default(),
            has_mark: false,
            redacted: 0,
        }
    }

    fn part(&mut self, micros: u64, part: Part<'_>) -> Option<(Duration, String)> {
        match part {
            Part::Record(record, mark) => self.frame(micros, record, mark),
            Part::Damage(at) => {
                let mut text = String::new();
                if self.screen.is_none() {
                    // The record of the start is among what is lost.
                    self.begin(None);
                    let notice = self.notice.take();
                    text.extend(notice.map(|notice| format!("{}\r\n", notice.text())));
                }
                text += &self.marked_text(&format!("\r\n{}", gap_line(at)));
                self.draw(Duration::from_micros(micros), &text)
            }
        }
    }

    fn frame(
        &mut self,
        micros: u64,
        record: &Record<'_>,
        mark: Option<Mark>,
    ) -> Option<(Duration, String)> {
        let at = Duration::from_micros(micros);
        let text = match &record.event {
            Recorded::Data(stream, bytes) | Recorded::Part(stream, bytes) if mark.is_some() => {
                let mark = mark.unwrap_or(Mark::Unproved);
                let text = self.marked.take_for_terminal(*stream, mark, bytes.0);
                // Whatever the terminal got before, from here on it shows lines.
                self.marked_text(&text)
            }
            Recorded::Start(start) if self.screen.is_none() => {
                self.begin(Some(start));
                format!("{}\r\n", self.notice.take()?.text())
            }
            Recorded::Resize(size) if self.terminal && mark.is_none() => {
                let drawn = self.screen.as_mut()?.resize(*size);
                return (at >= self.from).then_some((at, drawn));
            }
            Recorded::Data(stream, bytes) | Recorded::Part(stream, bytes) => {
                let [stdout, stderr] = &mut self.texts;
                let text = match stream {
                    Stream::Stdin => return None,
                    Stream::Stdout => stdout.take(bytes.0),
                    Stream::Stderr => stderr.take(bytes.0),
                };
                let begins = match std::mem::take(&mut self.has_mark) {
                    true => "\r\n",
                    false => "",
                };
                match self.terminal {
                    true => format!("{begins}{text}"),
                    false => format!("{begins}{}", text.replace('\n', "\r\n")),
                }
            }
            Recorded::Redacted(redacted) => {
                self.redacted = self.redacted.saturating_add(redacted.length.into());
                let note = format!("[input {}]", redacted_text(self.redacted));
                let drawn = self.screen.as_ref()?.note(&Mark::line(mark, &note));
                return (at >= self.from).then_some((at, drawn));
            }
            Recorded::Exit(_) | Recorded::Resize(_) => {
                let line = Mark::line(Some(mark?), &event_text(&record.event));
                self.marked_text(&format!("\r\n{line}"))
            }
            // What has no picture is shown as a line.
            Recorded::File(_)
            | Recorded::FilesUnfollowed(_)
            | Recorded::Gap(_)
            | Recorded::ContentEnds(_)
            | Recorded::ForwardOpened(_)
            | Recorded::ForwardClosed(_) => {
                let lines = self.plain.lines(record, mark);
                lines.iter().map(|line| format!("\r\n{line}\r\n")).collect()
            }
            _ => return None,
        };
        self.draw(at, &text)
    }

    fn draw(&mut self, at: Duration, text: &str) -> Option<(Duration, String)> {
        let screen = self.screen.as_mut()?;
        if at < self.from {
            screen.skip(text);
            return None;
        }
        Some((at, screen.draw(text)))
    }

    /// Returns lines behind what is on the screen: whatever the terminal got before, from here on it shows lines.
    fn marked_text(&mut self, text: &str) -> String {
        match std::mem::replace(&mut self.has_mark, true) {
            true => text.to_owned(),
            false => format!("\x1b[!p\x1b[999;1H{text}"),
        }
    }

    fn begin(&mut self, start: Option<&RecordingStart<'_>>) {
        let terminal = self.title.terminal(start);
        self.terminal = terminal.is_some();
        let size = terminal.map(|(_, size)| size);
        self.screen = Screen::new(size.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_behind_the_end_is_refused() {
        let (id, at) = (SessionId([0x5a; 16]), Duration::from_secs);
        assert!(begins_within(id, at(0), 0).is_ok());
        assert!(begins_within(id, at(6), 6_100_000).is_ok());
        let Failure(why) = begins_within(id, at(600), 6_100_000).unwrap_err();
        let wanted = "5a is 00:06 long: there is nothing from 10:00 on, give an earlier `--from`";
        assert!(why.ends_with(wanted), "{why}");
    }

    #[test]
    fn a_time_is_minutes_and_seconds_or_a_span() {
        assert_eq!(from("1:30"), Ok(Duration::from_secs(90)));
        assert_eq!(from("90s"), Ok(Duration::from_secs(90)));
        for bad in ["1:60", "a:1", "1", ":", "1:2:3"] {
            assert!(from(bad).is_err(), "{bad}");
        }
        assert!(speed("0").is_err() && speed("NaN").is_err() && speed("2").is_ok());
    }
}
