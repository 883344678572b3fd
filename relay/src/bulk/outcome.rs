//! The outcome on one device.

use std::time::Duration;

use holdfast_protocol::ids::DeviceName;
use holdfast_protocol::wire::Exit;
use serde::Serialize;

use super::lines::{Beginning, harmless};
use crate::json;

/// The outcome on one device.
#[derive(Debug)]
pub(super) struct BulkOutcome {
    /// The device.
    pub(super) device: DeviceName,
    /// The exit of its process; `None` if there was none, or it was cut off.
    pub(super) exit: Option<Exit>,
    /// The text beside it.
    pub(super) note: Option<String>,
    /// The time that it took from its turn on.
    pub(super) took: Duration,
    /// The kept part of its two streams.
    pub(super) kept: Option<[Beginning; 2]>,
}

/// The outcome for machines. These names are relied upon: they may be added to, never changed.
#[derive(Serialize)]
struct Row {
    device: String,
    ok: bool,
    /// `null` without an exit status.
    exit: Option<u32>,
    /// The signal that ended it; `null` if none did.
    signal: Option<String>,
    seconds: f64,
    note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<String>,
    /// True if there was more than is kept of either.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<bool>,
}

impl BulkOutcome {
    pub(super) fn is_ok(&self) -> bool {
        self.exit == Some(Exit::Status(0))
    }

    /// Returns it as a row of a table: device, exit, time, note. Nothing in it drives a terminal.
    pub(super) fn cells(&self) -> [String; 4] {
        let exit = match (self.exit, self.signal()) {
            (Some(Exit::Status(status)), _) => status.to_string(),
            (_, Some(signal)) => signal,
            _ => "-".to_owned(),
        };
        let note = self.note.as_deref().unwrap_or_default();
        [
            self.device.to_string(),
            exit,
            format!("{:.1} s", self.took.as_secs_f64()),
            harmless(note.as_bytes()),
        ]
    }

    /// Returns it as a line of JSON, with its line feed.
    pub(super) fn json(&self) -> Vec<u8> {
        let kept = self.kept.as_ref();
        json::line(&Row {
            device: self.device.to_string(),
            ok: self.is_ok(),
            exit: match self.exit {
                Some(Exit::Status(status)) => Some(status),
                _ => None,
            },
            signal: self.signal(),
            seconds: self.took.as_secs_f64(),
            note: self.note.clone(),
            stdout: kept.map(|[out, _]| out.text()),
            stderr: kept.map(|[_, err]| err.text()),
            cut: kept.map(|[out, err]| out.is_cut || err.is_cut),
        })
    }

    fn signal(&self) -> Option<String> {
        match self.exit {
            Some(Exit::Signal { signal, .. }) => Some(format!("{signal:?}").to_uppercase()),
            _ => None,
        }
    }
}
