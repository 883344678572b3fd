//! The relay's own log, on stderr. Every message and every field goes through one formatter, which keeps an event on
//! its one line, whatever peers have put into it: a close reason, a name, an error's text.

use std::fmt::{self, Write as _};
use std::io;

use holdfast_protocol::escape::{Escaped, Escaping};
use tracing::field::{Field, Visit};
use tracing::{Subscriber, subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;

use self::outage::OutageFilter;

/// Writes the log to stderr from now on, in the detail that `RUST_LOG` asks for.
pub(crate) fn to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = io::IsTerminal::is_terminal(&io::stderr());
    // It is the first thing that a serving relay does: no other log can be there.
    let _ = subscriber::set_global_default(to(io::stderr, filter, ansi));
}

/// Returns a log to `writer`.
fn to<W>(writer: W, filter: EnvFilter, ansi: bool) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .fmt_fields(LogFields)
        .with_writer(writer)
        .with_ansi(ansi);
    tracing_subscriber::registry()
        .with(filter)
        .with(OutageFilter)
        .with(lines)
}

/// Formats the message and the fields of an event or a span.
#[derive(Clone, Copy, Debug)]
struct LogFields;

impl<'w> FormatFields<'w> for LogFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = LogLine {
            writer: &mut writer,
            separator: "",
            written: Ok(()),
        };
        fields.record(&mut line);
        line.written
    }
}

struct LogLine<'l, 'w> {
    writer: &'l mut Writer<'w>,
    separator: &'static str,
    written: fmt::Result,
}

impl LogLine<'_, '_> {
    fn field(&mut self, field: &Field, text: &str) -> fmt::Result {
        let (name, separator) = (field.name(), self.separator);
        self.separator = " ";
        self.writer.write_str(separator)?;
        if name == "message" {
            return Escaping(&mut *self.writer).write_str(text);
        }
        // What would not be one word is quoted, so that it cannot pass for further fields.
        let shown = Escaped(text).to_string();
        match shown == text && !text.is_empty() && !text.contains([' ', '=']) {
            true => write!(self.writer, "{name}={shown}"),
            false => write!(self.writer, "{name}=\"{shown}\""),
        }
    }
}

impl Visit for LogLine<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if self.written.is_ok() {
            self.written = self.field(field, value);
        }
    }
}

pub(crate) mod outage {
    //! An outage of the database: a line of the log when it begins, one a minute while it lasts, and one when it is
    //! over. What fails for that meanwhile, many times a second, has no line of its own.

    use std::fmt::{self, Display};
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::Instant;
    use tracing::field::{Field, Visit};
    use tracing::{Event, Level, Subscriber, info, warn};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::Context;

    use crate::clock;
    use crate::limits::OUTAGE_LINE;
    use crate::sync::Mutex;

    /// The outage that lasts, if there is one.
    static OUTAGE: Mutex<Option<Outage>> = Mutex::new(None);
    /// True while there is one: looked at after each answer.
    static IS_DOWN: AtomicBool = AtomicBool::new(false);

    struct Outage {
        /// The server and the database, without a password.
        database: String,
        began: Instant,
        last_line: Instant,
        /// The number of attempts that have failed.
        failed: u64,
    }

    /// Notes that the database did not answer.
    pub(crate) fn failed(database: &str, error: &impl Display) {
        let now = clock::instant();
        let mut outage = OUTAGE.lock();
        let known = outage.as_mut().filter(|outage| outage.database == database);
        let Some(known) = known else {
            *outage = Some(Outage {
                database: database.to_owned(),
                began: now,
                last_line: now,
                failed: 1,
            });
            IS_DOWN.store(true, Ordering::Relaxed);
            drop(outage);
            warn!("{error}. Logins, changes and commands fail until it is back");
            return;
        };
        known.failed = known.failed.saturating_add(1);
        if now.duration_since(known.last_line) < OUTAGE_LINE {
            return;
        }
        known.last_line = now;
        let (seconds, failed) = (now.duration_since(known.began).as_secs(), known.failed);
        drop(outage);
        warn!(failed, "{error}. It is so for {seconds} s");
    }

    /// Notes that the database has answered.
    pub(crate) fn answered(database: &str) {
        if !IS_DOWN.load(Ordering::Relaxed) {
            return;
        }
        let mut outage = OUTAGE.lock();
        let over = outage.take_if(|outage| outage.database == database);
        let Some(over) = over else { return };
        IS_DOWN.store(false, Ordering::Relaxed);
        drop(outage);
        let (seconds, failed) = (over.began.elapsed().as_secs(), over.failed);
        info!(
            failed,
            "the database {database} answers again, after {seconds} s"
        );
    }

    /// Leaves out lines whose error names a database that does not answer.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct OutageFilter;

    impl<S: Subscriber> Layer<S> for OutageFilter {
        fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
            if !IS_DOWN.load(Ordering::Relaxed) || *event.metadata().level() > Level::WARN {
                return true;
            }
            let mut error = ErrorField::default();
            event.record(&mut error);
            let outage = OUTAGE.lock();
            let is_same = |outage: &Outage| error.0.contains(&outage.database);
            !outage.as_ref().is_some_and(is_same)
        }
    }

    /// The text of the field `error`.
    #[derive(Debug, Default)]
    struct ErrorField(String);

    impl Visit for ErrorField {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            if field.name() == "error" {
                self.0 = format!("{value:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::time::Duration;

    use holdfast_protocol::escape::is_treacherous;
    use tokio::time::advance;
    use tracing::{error, info, info_span, warn};

    use super::outage::{answered, failed};
    use super::*;
    use crate::sync::Mutex;

    /// Forges a line of the log, then drives a terminal, in each way that there is.
    const HOSTILE: &str = "x\n2026-11-22T05:06:07Z  INFO login user=root\r\u{1b}[2J\u{9b}31m\u{85}\u{202e}\u{2028}\u{e0041}\u{7f}";

    #[derive(Clone, Default)]
    pub(super) struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        /// Returns a log that is kept.
        pub(super) fn log(&self) -> impl Subscriber + Send + Sync + use<> {
            let writer = self.clone();
            to(move || writer.clone(), EnvFilter::new("trace"), false)
        }

        /// Returns what is in it.
        pub(super) fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns what is in the log after `events`.
    fn logged(events: impl FnOnce()) -> String {
        let kept = Kept::default();
        subscriber::with_default(kept.log(), events);
        kept.text()
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let error = io::Error::other(HOSTILE);
        let source: &(dyn std::error::Error + 'static) = &error;
        let log = logged(|| {
            let span = info_span!("connection", reason = %HOSTILE);
            let _entered = span.enter();
            info!(reason = %HOSTILE, "tunnel down");
            info!(reason = HOSTILE, of = ?HOSTILE, %error, "ended");
            error!(error = source, "a message with {HOSTILE}");
        });
        let lines: Vec<&str> = log.split_terminator('\n').collect();
        assert_eq!(lines.len(), 3, "{log:?}");
        for line in &lines {
            assert!(!line.contains(is_treacherous), "{line:?}");
        }
        let quoted = "tunnel down reason=\"x\\n2026-11-22T05:06:07Z  INFO login user=root\\r\\u{1b}[2J\\u{9b}31m";
        assert!(log.contains(quoted), "{log}");
    }

    #[test]
    fn a_value_cannot_pass_for_another_field() {
        let log = logged(|| {
            info!(user = %"bob login=root", count = 7, empty = "", plain = "ok", "session start");
        });
        let fields = "session start user=\"bob login=root\" count=7 empty=\"\" plain=ok\n";
        assert!(log.ends_with(fields), "{log}");
    }

    #[tokio::test(start_paused = true)]
    async fn outage_has_a_line_a_minute_and_its_failures_have_none() {
        let name = "postgres://hf@db/outage";
        let why = format!("the database {name} cannot be reached (refused)");
        let kept = Kept::default();
        let log = kept.log();
        let _default = tracing::subscriber::set_default(log);
        let fail = || {
            failed(name, &why);
            warn!(error = %why, "the heartbeat was not stored");
            error!(error = %format_args!("the store failed: {why}"), "a segment cannot be stored");
        };
        answered(name);
        // Two minutes of four attempts a second.
        for _ in 0..480 {
            fail();
            advance(Duration::from_millis(250)).await;
        }
        warn!(error = "the disk is full", "something else");
        answered(name);
        answered(name);
        warn!(error = %why, "the heartbeat was not stored");
        let text = kept.text();
        let lines: Vec<&str> = text.lines().collect();
        let expected = [
            "cannot be reached (refused). Logins, changes and commands fail until it is back",
            "cannot be reached (refused). It is so for 60 s failed=241",
            "something else error=\"the disk is full\"",
            "the database postgres://hf@db/outage answers again, after 120 s failed=480",
            "the heartbeat was not stored error=",
        ];
        assert_eq!(lines.len(), expected.len(), "{text}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.contains(expected), "{line}");
        }
    }
}
