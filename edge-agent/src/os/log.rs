//! The agent's log: one line each on stderr, which systemd, procd and
//! OpenRC collect. There are three levels and no filter: a device says little.

use std::fmt;
use std::io::Write as _;

use holdfast_protocol::escape::OneLine;

/// Describes how a line begins: the prefixes of sd-daemon(3), when the line goes to the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogLevel {
    /// Something an operator of the device should look at.
    Warning,
    /// The course of things: tunnels and sessions.
    Info,
}

/// Writes one line, whatever the text holds: a relay's words, a name, a path. A log that cannot be written must never
/// stop a tunnel, so errors are dropped.
pub(crate) fn line(level: LogLevel, text: fmt::Arguments<'_>) {
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let prefix = match (journal, level) {
        (true, LogLevel::Warning) => "<4>",
        (true, LogLevel::Info) => "<6>",
        (false, LogLevel::Warning) => "edge-agent: warning: ",
        (false, LogLevel::Info) => "edge-agent: ",
    };
    let text = text.to_string();
    let _ = writeln!(std::io::stderr().lock(), "{prefix}{}", OneLine(&text));
}

/// `info!("…")`: the course of things.
#[macro_export]
macro_rules! info {
    ($($text:tt)*) => { $crate::os::log::line($crate::os::log::LogLevel::Info, format_args!($($text)*)) };
}

/// `warn!("…")`: something to look at.
#[macro_export]
macro_rules! warn {
    ($($text:tt)*) => { $crate::os::log::line($crate::os::log::LogLevel::Warning, format_args!($($text)*)) };
}
