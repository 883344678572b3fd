//! The state of the spool, as `status` shows it.

use std::fmt;

use holdfast_protocol::count::Count;
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::recording::spool::{Spool, Unavailable};
use serde::{Deserialize, Serialize};

use super::Recorder;
use super::clock::trusted_clock;

/// The state of the spool that `status` shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Its folder.
    pub folder: String,
    /// Bytes that it holds or has promised to hold.
    pub used: u64,
    /// The most that it may hold.
    pub max: u64,
    /// Segments that wait for the relay.
    pub waiting: u64,
    /// The time when the oldest of them was begun, in seconds since 1970 by the device's clock.
    pub waiting_since: Option<i64>,
    /// True if it lies in memory: a power cut takes what waits there.
    pub volatile: bool,
    /// Sessions that are being recorded now.
    pub recording: u32,
    /// Sessions that went on without a recording since the agent's start.
    pub unrecorded: u64,
    /// Bytes of data that were recorded since then, and bytes that were written to the folder for it.
    pub recorded: u64,
    /// See [`Self::recorded`].
    pub written: u64,
    /// Bytes written for each recorded one.
    pub flash_per_byte: Option<f64>,
    /// The trouble of now, or the last one that was not made good by itself.
    pub last_trouble: Option<String>,
    /// True if that is the relay's: nothing on the device mends it.
    #[serde(default)]
    pub trouble_is_relays: bool,
}

impl Recorder {
    /// Returns what `status` shows.
    #[must_use]
    pub fn status(&self) -> SpoolStatus {
        let state = self.lock();
        let spool = state.spool.as_ref().ok();
        let flash = spool.map(Spool::flash).unwrap_or_default();
        let failing = spool.and_then(Spool::trouble).map(Unavailable::Medium);
        let last = state.troubles.last();
        SpoolStatus {
            folder: self.folder.display().to_string(),
            used: spool.map_or(0, Spool::used),
            max: spool.map_or(0, |spool| spool.config().max_bytes),
            waiting: spool.map_or(0, |spool| spool.offers().count() as u64),
            waiting_since: spool.and_then(Spool::oldest),
            volatile: self.is_volatile(),
            recording: u32::try_from(state.live.len()).unwrap_or(u32::MAX),
            unrecorded: state.unrecorded,
            recorded: flash.recorded,
            written: flash.written,
            // Bytes on flash are far below 2^52.
            flash_per_byte: (flash.recorded > 0)
                .then(|| flash.written as f64 / flash.recorded as f64),
            trouble_is_relays: failing.is_none()
                && last.as_ref().is_some_and(|last| last.is_relays),
            last_trouble: failing
                .map(|failing| failing.to_string())
                .or_else(|| last.map(|last| last.text)),
        }
    }
}

impl fmt::Display for SpoolStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "spool: {:.1} of {:.1} MiB",
            mib(self.used),
            mib(self.max)
        )?;
        match (self.waiting, self.waiting_since) {
            (0, _) => {}
            (1, None) => f.write_str(", 1 segment waits for the relay")?,
            (count, None) => write!(f, ", {count} segments wait for the relay")?,
            (count, Some(since)) => {
                let now = trusted_clock().unwrap_or(since);
                let ago = now.saturating_sub(since).max(0);
                match count {
                    1 => write!(f, ", 1 segment waits for the relay, for {ago} s")?,
                    _ => write!(
                        f,
                        ", {count} segments wait for the relay, the oldest for {ago} s"
                    )?,
                }
            }
        }
        if self.volatile {
            f.write_str(", in memory: lost with the power")?;
        }
        if let Some(ratio) = self.flash_per_byte {
            write!(
                f,
                ", flash wear: {ratio:.2} bytes written to the medium per byte recorded"
            )?;
        }
        if self.recording > 0 {
            write!(
                f,
                ", {} being recorded",
                Count(self.recording.into(), "session")
            )?;
        }
        if self.unrecorded > 0 {
            write!(f, ", {} not recorded", Count(self.unrecorded, "session"))?;
        }
        if let Some(trouble) = &self.last_trouble {
            write!(f, "\nlast trouble of the spool: {}", Escaped(trouble))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flash_wear_is_called_what_it_is() {
        let status = SpoolStatus {
            folder: "/var/lib/edge-agent/spool".into(),
            used: 0,
            max: 64 << 20,
            waiting: 0,
            waiting_since: None,
            volatile: false,
            recording: 0,
            unrecorded: 0,
            recorded: 10,
            written: 304,
            flash_per_byte: Some(30.4),
            last_trouble: None,
            trouble_is_relays: false,
        };
        assert_eq!(
            status.to_string(),
            "spool: 0.0 of 64.0 MiB, flash wear: 30.40 bytes written to the medium per byte recorded"
        );
    }
}
