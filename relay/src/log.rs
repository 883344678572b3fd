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
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .fmt_fields(LogFields)
        .with_writer(writer)
        .with_ansi(ansi)
        .finish()
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use holdfast_protocol::escape::is_treacherous;
    use tracing::{error, info, info_span};

    use super::*;
    use crate::sync::Mutex;

    /// Forges a line of the log, then drives a terminal, in each way that there is.
    const HOSTILE: &str = "x\n2026-11-22T05:06:07Z  INFO login user=root\r\u{1b}[2J\u{9b}31m\u{85}\u{202e}\u{2028}\u{e0041}\u{7f}";

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

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
        let writer = kept.clone();
        let log = to(move || writer.clone(), EnvFilter::new("trace"), false);
        subscriber::with_default(log, events);
        let bytes = kept.0.lock().clone();
        String::from_utf8(bytes).unwrap()
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
}
