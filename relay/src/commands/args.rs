//! The arguments that commands have in common: labels, spans of time and times.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::{LabelKey, LabelValue};

use super::Failure;
use crate::clock::Timestamp;
use crate::model::invalid::Invalid;
use crate::store::limits::MAX_AMBIGUOUS;

/// Longest life of a token: longer ones are forgotten, not used.
const MAX_TTL: Duration = Duration::from_secs(366 * 86_400);

/// `KEY=VALUE`.
#[derive(Clone, Debug)]
pub(super) struct Label(pub LabelKey, pub LabelValue);

impl FromStr for Label {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.parse()? {
            LabelChange(key, Some(value)) => Ok(Self(key, value)),
            LabelChange(..) => Err("a label value must not be empty".into()),
        }
    }
}

/// `KEY=VALUE` sets a label, `KEY=` removes it.
#[derive(Clone, Debug)]
pub(super) struct LabelChange(pub LabelKey, pub Option<LabelValue>);

impl FromStr for LabelChange {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (key, value) = text
            .split_once('=')
            .ok_or("expected KEY=VALUE, as in role=camera")?;
        let key = LabelKey::new(key).map_err(|error| error.to_string())?;
        if value.is_empty() {
            return Ok(Self(key, None));
        }
        let value = LabelValue::new(value).map_err(|error| error.to_string())?;
        Ok(Self(key, Some(value)))
    }
}

/// Returns a span of time such as `30s`, `10m`, `1h`, `7d`.
pub(super) fn ttl(text: &str) -> Result<Duration, Invalid> {
    let expected = || "expected a span of time such as 30s, 10m, 1h or 7d".to_owned();
    let span = humantime::parse_duration(text).map_err(|_| expected())?;
    if span < Duration::from_secs(1) || span > MAX_TTL {
        return Err("must be from 1s to 366d".into());
    }
    Ok(span)
}

/// Returns a number of things, of which there is one at least.
pub(super) fn count(text: &str) -> Result<u32, Invalid> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(expected_number("1")),
    }
}

/// Returns the most of things that are wanted; 0: all.
pub(super) fn limit(text: &str) -> Result<u32, Invalid> {
    text.parse().map_err(|_| expected_number("0 (all)"))
}

fn expected_number(least: &str) -> Invalid {
    format!("expected a whole number from {least} to {}", u32::MAX).into()
}

/// Returns the failure that the beginning of an id fits several things, which are named.
pub(super) fn ambiguous(what: &str, begins: &str, ids: &[String]) -> Failure {
    let most = MAX_AMBIGUOUS as usize;
    let more = if ids.len() > most { ", …" } else { "" };
    let named: Vec<&str> = ids.iter().take(most).map(String::as_str).collect();
    Failure(format!(
        "more than one {what} begins with \"{}\", give more of the id: {}{more}",
        Escaped(begins),
        named.join(", ")
    ))
}

/// A time: as it is, or as a span back from now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    At(Timestamp),
    Ago(Duration),
}

impl Moment {
    /// Returns the time that it means, if it is `now`.
    pub(super) fn at(&self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => *time,
            Self::Ago(span) => now.before(*span),
        }
    }
}

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(span) = humantime::parse_duration(text) {
            return Ok(Self::Ago(span));
        }
        // As `relay` prints times, with as much of them as was typed.
        let text = text.trim_end_matches(" UTC");
        let whole = match text.len() {
            10 => format!("{text} 00:00:00"),
            16 => format!("{text}:00"),
            _ => text.to_owned(),
        };
        let time = humantime::parse_rfc3339_weak(&whole).map_err(
            |_| "expected a span back from now (30m, 1d) or a time in UTC (2026-11-22 05:06)",
        )?;
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Self::At(Timestamp(0).after(since)))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(time) => f.write_str(&time.rfc3339()),
            Self::Ago(span) => write!(f, "{} ago", humantime::format_duration(*span)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_a_span() {
        let now = Timestamp(1_795_323_960_000_000);
        let at = |text: &str| text.parse::<Moment>().unwrap().at(now);
        assert_eq!(at("1d"), now.before(Duration::from_secs(86_400)));
        for same in [
            "2026-11-22 05:06 UTC",
            "2026-11-22 05:06",
            "2026-11-22T05:06:00Z",
            "2026-11-22 05:06:00",
        ] {
            assert_eq!(at(same), now, "{same}");
        }
        assert_eq!(at("2026-11-22").rfc3339(), "2026-11-22T00:00:00.000000Z");
        for bad in [
            "",
            "soon",
            "-1d",
            "2026-13-01",
            "05:06",
            "2026-11-22 05:06 CET",
        ] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
    }
}
