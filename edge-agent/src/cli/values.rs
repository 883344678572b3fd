//! The values of arguments, as they are typed.

use std::time::Duration;

use holdfast_protocol::identity::token::{Token, TokenError};
use holdfast_protocol::ids::{LabelKey, LabelValue};
use holdfast_protocol::limits::{MAX_KEEPALIVE, MIN_KEEPALIVE, MIN_SPOOL_BYTES};
use holdfast_protocol::recording::upload::UploadPolicy;

use crate::session::subsystem::SftpServer;

/// Reads a token.
pub(super) fn parse_token(text: &str) -> Result<Token, TokenError> {
    text.trim().parse()
}

/// Reads `KEY=VALUE`.
pub(super) fn parse_label(text: &str) -> Result<(LabelKey, LabelValue), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("a label is KEY=VALUE, such as role=camera")?;
    let key = LabelKey::new(key).map_err(|error| error.to_string())?;
    let value = LabelValue::new(value).map_err(|error| error.to_string())?;
    Ok((key, value))
}

/// Reads `internal` or a path.
pub(super) fn parse_sftp_server(text: &str) -> Result<SftpServer, String> {
    match text {
        "internal" => Ok(SftpServer::Internal),
        _ if text.starts_with('/') => Ok(SftpServer::Device(text.to_owned())),
        _ => Err("it is internal, or an absolute path".to_owned()),
    }
}

/// Reads a keepalive within its bounds.
pub(super) fn parse_keepalive(text: &str) -> Result<Duration, String> {
    let seconds = text
        .strip_suffix('s')
        .unwrap_or(text)
        .parse()
        .map(Duration::from_secs);
    match seconds {
        Ok(time) if (MIN_KEEPALIVE..=MAX_KEEPALIVE).contains(&time) => Ok(time),
        _ => Err(format!(
            "a keepalive is {} to {} seconds, such as 25s",
            MIN_KEEPALIVE.as_secs(),
            MAX_KEEPALIVE.as_secs()
        )),
    }
}

/// Reads a size, such as `64MiB`.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..) {
        Some("" | "B") => 0,
        Some("KiB") => 10,
        Some("MiB") => 20,
        Some("GiB") => 30,
        _ => return Err("a size is a number and B, KiB, MiB or GiB, such as 64MiB".to_owned()),
    };
    let number = digits.parse::<u64>().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "a size is a number and B, KiB, MiB or GiB, such as 64MiB".to_owned())
}

/// Reads a size that a spool may have.
pub(super) fn parse_spool_size(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        size if size >= MIN_SPOOL_BYTES => Ok(size),
        _ => Err(format!(
            "a spool holds at least {}MiB",
            MIN_SPOOL_BYTES >> 20
        )),
    }
}

/// Reads an upload policy.
pub(super) fn parse_policy(text: &str) -> Result<UploadPolicy, String> {
    let wrong = || {
        "an upload policy is idle, always, manual or a window such as 'window 02:00-05:00'"
            .to_owned()
    };
    match text {
        "idle" => Ok(UploadPolicy::Idle),
        "always" => Ok(UploadPolicy::Always),
        "manual" => Ok(UploadPolicy::Manual),
        _ => {
            let window = text.strip_prefix("window ").ok_or_else(wrong)?;
            let (from, to) = window.trim().split_once('-').ok_or_else(wrong)?;
            let from = minute(from).ok_or_else(wrong)?;
            let to = minute(to).ok_or_else(wrong)?;
            Ok(UploadPolicy::Window { from, to })
        }
    }
}

/// Returns the minute of the day of `HH:MM`.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let (hour, minute) = (two(hour)?, two(minute)?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keepalive_stays_in_its_bounds() {
        assert_eq!(parse_keepalive("25s"), Ok(Duration::from_secs(25)));
        assert_eq!(parse_keepalive("5"), Ok(Duration::from_secs(5)));
        for bad in ["", "4s", "121s", "1m", "-1"] {
            assert!(parse_keepalive(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_windows_are_read_as_they_are_meant() {
        for (text, size) in [("0", 0), ("512B", 512), ("3KiB", 3072), ("64MiB", 64 << 20)] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for bad in [
            "",
            "MiB",
            "-1",
            "64 MiB",
            "64MB",
            "1.5GiB",
            "99999999999999GiB",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert!(parse_spool_size("1MiB").is_err());
        let night = UploadPolicy::Window {
            from: 23 * 60 + 5,
            to: 5 * 60,
        };
        assert_eq!(parse_policy("window 23:05-05:00"), Ok(night));
        for bad in [
            "",
            "window",
            "window 24:00-05:00",
            "window 2:00-05:00",
            "window 02:60-05:00",
        ] {
            assert!(parse_policy(bad).is_err(), "{bad}");
        }
    }
}
