//! The reasons why something can't be recorded, in words that an operator reads.

use core::fmt;

use embedded_io::ErrorKind;
use thiserror::Error;

use crate::recording::medium::{NO_SPACE, READ_ONLY};
use crate::recording::record::GapReason;
use crate::recording::segment::WriteError;

/// The reason why something can't be recorded. The text follows `recording unavailable on DEVICE: `.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unavailable {
    /// The spool holds as much as it may.
    #[error("spool full ({} of {} MiB{}{})", Mib(*used), Mib(*max), Since(*oldest), FailedBefore(*kept, kept_for))]
    Full {
        /// Its content.
        used: u64,
        /// The most bytes that it may hold.
        max: u64,
        /// The share of that which is kept for sessions that need it more.
        kept: u64,
        /// The kind of these sessions.
        kept_for: &'static str,
        /// The time when the oldest of it was written, in seconds since 1970.
        oldest: Option<i64>,
    },
    /// The file system has no more free space than it must keep.
    #[error("disk full ({} MiB free, {} MiB are kept free)", Mib(*free), Mib(*reserve))]
    DiskFull {
        /// Free bytes.
        free: u64,
        /// Bytes that stay free.
        reserve: u64,
    },
    /// As many recordings wait as the spool can oversee.
    #[error("spool full (too many recordings wait for the relay)")]
    TooManyFiles,
    /// The medium failed.
    #[error("the spool cannot be written ({})", kind_text(*.0))]
    Medium(ErrorKind),
    /// The roster has no recording key.
    #[error("the device has no recording key: the relay has not sent one")]
    NoKey,
    /// The session can't be sealed, or is too long.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A session of this identifier was recorded before.
    #[error("this session was recorded before")]
    Twice,
    /// Nothing is being recorded for this session.
    #[error("nothing is being recorded for this session")]
    NotRecording,
}

impl Unavailable {
    /// Returns what a gap says of it.
    pub(super) fn gap_reason(&self) -> GapReason {
        match self {
            Self::DiskFull { .. } | Self::Medium(NO_SPACE) => GapReason::DiskFull,
            Self::Medium(_) => GapReason::Medium,
            _ => GapReason::SpoolFull,
        }
    }
}

fn kind_text(kind: ErrorKind) -> &'static str {
    match kind {
        NO_SPACE => "no space left",
        READ_ONLY => "the file system is read-only",
        ErrorKind::PermissionDenied => "permission denied",
        ErrorKind::NotFound => "its folder is gone",
        _ => "input/output error",
    }
}

/// Mebibytes with one decimal.
struct Mib(u64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0 / (1024 * 1024 / 10);
        let whole = self.0 >> 20;
        let tenth = (tenths - whole * 10).min(9);
        write!(f, "{whole}.{tenth}")
    }
}

struct FailedBefore(u64, &'static str);

impl fmt::Display for FailedBefore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            kept => write!(f, "; {} MiB are kept for {}", Mib(kept), self.1),
        }
    }
}

struct Since(Option<i64>);

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(seconds) = self.0 else {
            return Ok(());
        };
        // Howard Hinnant's days-to-civil, of years that begin in March.
        let days = seconds.div_euclid(86_400) + 719_468;
        let second = seconds.rem_euclid(86_400);
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let march = (5 * day + 2) / 153;
        let (month, day) = ((march + 2) % 12 + 1, day - (153 * march + 2) / 5 + 1);
        let year = year + era * 400 + i64::from(month <= 2);
        let (hour, minute) = (second / 3_600, second / 60 % 60);
        write!(
            f,
            ", oldest waiting since {year:04}-{month:02}-{day:02} {hour:02}:{minute:02}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn the_text_says_what_is_full_and_since_when() {
        let full = |oldest| Unavailable::Full {
            used: 67_108_860,
            max: 64 << 20,
            kept: 0,
            kept_for: "",
            oldest,
        };
        assert_eq!(full(None).to_string(), "spool full (63.9 of 64.0 MiB)");
        for (seconds, date) in [
            (0, "1970-01-01 00:00Z"),
            (951_868_799, "2000-02-29 23:59Z"),
            (951_868_800, "2000-03-01 00:00Z"),
            (1_795_343_400, "2026-11-22 10:30Z"),
        ] {
            let text = full(Some(seconds)).to_string();
            let expected = [
                "spool full (63.9 of 64.0 MiB, oldest waiting since ",
                date,
                ")",
            ];
            assert_eq!(text, expected.concat());
        }
        let kept = Unavailable::Full {
            used: 41_943_040,
            max: 64 << 20,
            kept: 24 << 20,
            kept_for: "strict sessions with a terminal",
            oldest: Some(0),
        };
        assert_eq!(
            kept.to_string(),
            "spool full (40.0 of 64.0 MiB, oldest waiting since 1970-01-01 00:00Z; 24.0 MiB are kept for strict sessions with a terminal)"
        );
        let failed = Unavailable::Medium(READ_ONLY);
        assert_eq!(
            failed.to_string(),
            "the spool cannot be written (the file system is read-only)"
        );
    }
}
