//! Lines of the log that a peer can cause at will, most of them without a login or membership: so many a minute are
//! written, of one source and in all, and the next line says how many were left out. The audit log has sums of its own, which lose nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{LazyLock, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::limits::{LOG_LINES, LOG_LINES_OF_SOURCE, LOG_WINDOW};
use crate::sync::Mutex;

/// The kind of line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LimitedLine {
    /// A device was not enrolled.
    Enrolment,
    /// A device broke the protocol.
    Protocol,
    /// A device did not take its refusal.
    Refusal,
    /// A member's tunnel came or went.
    Tunnel,
    /// A certificate was refused.
    Certificate,
    /// No user logged in within the grace time.
    NoLogin,
    /// The name inside a jump names nothing.
    Jump,
    /// A device announced a connection, which was opened, ended or came to nothing.
    Arrival,
    /// A device's uploads are refused.
    Upload,
    /// A load balancer's header is missing, or something that is none of ours sends one.
    ProxyHeader,
    /// A relay that is no member of the cluster was refused.
    Peer,
}

/// The number of lines that were left out before a line that is written.
pub(crate) type LeftOut = u64;

#[derive(Debug, Default)]
struct Books {
    began: Duration,
    of_source: HashMap<(LimitedLine, String), u32>,
    in_all: HashMap<LimitedLine, u32>,
    left_out: HashMap<LimitedLine, LeftOut>,
}

impl Books {
    fn admits(&mut self, line: LimitedLine, source: &str, now: Duration) -> Option<LeftOut> {
        if now.saturating_sub(self.began) >= LOG_WINDOW {
            self.began = now;
            self.of_source.clear();
            self.in_all.clear();
        }
        let in_all = self.in_all.entry(line).or_default();
        // What is full in all needs no books of its sources, which are so bounded.
        if *in_all < LOG_LINES {
            let key = (line, source.to_owned());
            let of_source = self.of_source.entry(key).or_default();
            if *of_source < LOG_LINES_OF_SOURCE {
                *of_source += 1;
                *in_all += 1;
                return Some(self.left_out.remove(&line).unwrap_or_default());
            }
        }
        let left_out = self.left_out.entry(line).or_default();
        *left_out = left_out.saturating_add(1);
        None
    }
}

/// Returns whether a line may be written that `source` caused, and how many like it were left out before.
#[must_use]
pub(crate) fn admits(line: LimitedLine, source: impl ToString) -> Option<LeftOut> {
    static BEGAN: LazyLock<Instant> = LazyLock::new(clock::instant);
    books().admits(line, &source.to_string(), BEGAN.elapsed())
}

/// Notes that a source was authenticated: what it caused before counts no more.
pub(crate) fn forget(source: impl ToString) {
    let source = source.to_string();
    books().of_source.retain(|(_, of), _| *of != source);
}

fn books() -> MutexGuard<'static, Books> {
    static BOOKS: LazyLock<Mutex<Books>> = LazyLock::new(Mutex::default);
    BOOKS.lock()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(books: &mut Books, source: &str, times: u32, now: Duration) -> u32 {
        let admitted =
            (0..times).filter(|_| books.admits(LimitedLine::Enrolment, source, now).is_some());
        u32::try_from(admitted.count()).unwrap()
    }

    #[test]
    fn source_is_limited_and_omissions_are_counted() {
        let mut books = Books::default();
        let now = Duration::from_secs(1);
        assert_eq!(written(&mut books, "a", 1_000, now), LOG_LINES_OF_SOURCE);
        // Another one, and another line, have room of their own.
        assert_eq!(
            books.admits(LimitedLine::Enrolment, "b", now),
            Some(u64::from(1_000 - LOG_LINES_OF_SOURCE))
        );
        assert_eq!(books.admits(LimitedLine::Certificate, "a", now), Some(0));
        assert_eq!(books.admits(LimitedLine::Enrolment, "a", now), None);
        let later = now + LOG_WINDOW;
        assert_eq!(books.admits(LimitedLine::Enrolment, "a", later), Some(1));
    }

    #[test]
    fn many_sources_are_bounded_in_lines_and_memory() {
        let mut books = Books::default();
        let mut lines = 0;
        for source in 0..10_000 {
            lines += written(&mut books, &source.to_string(), 1, Duration::ZERO);
        }
        assert_eq!(lines, LOG_LINES);
        assert!(books.of_source.len() <= usize::try_from(LOG_LINES).unwrap());
    }
}
