//! Bounds of the audit log, each with its reason.

use std::time::Duration;

/// Events that wait for the audit log's writer; above it, the sender of one waits.
pub(crate) const AUDIT_QUEUE: usize = 512;

/// Rows of the audit log in one commit: it costs one fsync, however many they are.
pub(crate) const AUDIT_BATCH: usize = 256;

/// Events that are kept in memory while the log cannot be written; those beyond are only counted.
pub(crate) const AUDIT_HELD: usize = 4_096;

/// The interval at which it is tried whether the log can be written again.
pub(crate) const AUDIT_PROBE: Duration = Duration::from_millis(500);

/// A place that takes the log's rows for longer counts as broken until it has.
pub(crate) const AUDIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Facts that one event adds to what all have.
pub(crate) const MAX_AUDIT_FACTS: usize = 32;

/// Bytes of one line of the log's file: some texts of the greatest length, each byte of them escaped.
pub(crate) const MAX_AUDIT_LINE: u64 = 2 * 1024 * 1024;

/// Rows that are read from the log at once.
pub(crate) const AUDIT_PAGE: u32 = 256;

/// Failed logins of one source, what one user is refused, and one device's coming and going are summed over so
/// long.
pub(crate) const AUDIT_SUM_WINDOW: Duration = Duration::from_secs(60);

/// The interval at which it is looked whether a sum is due.
pub(crate) const AUDIT_SUM_POLL: Duration = Duration::from_secs(5);

/// Sources whose failures are summed apart; all others share one sum. So a flood from everywhere is at
/// most twice as many rows a minute, and two.
pub(crate) const MAX_SUMMED_SOURCES: usize = 256;

/// Devices whose coming and going is summed apart: as many as a large fleet has.
pub(crate) const MAX_SUMMED_DEVICES: usize = 131_072;

/// Rows that one device's coming and going may write at once in a minute: offline and back, twice.
pub(crate) const AUDIT_DEVICE_ROWS: u32 = 4;

/// Connections that come to one device, for `ssh -R` or an SSH agent, and are opened: so many a minute have rows of their
/// own, one for each end. A device can announce any number; a page of a web application opens some ten.
pub(crate) const AUDIT_ARRIVAL_ROWS: u32 = 60;

/// Refusals of one user and kind that may be written at once in a minute: more than a script that runs into a limit
/// causes by itself, and few enough for one user never to fill the log.
pub(crate) const AUDIT_REFUSAL_ROWS: u32 = 100;

/// Users whose refusals are summed apart, each kind by itself.
pub(crate) const MAX_SUMMED_ACTORS: usize = 1_024;

/// Names that one sum lists.
pub(crate) const MAX_SUMMED_USERS: usize = 8;

/// The interval at which old rows of the audit log are looked for.
pub(crate) const AUDIT_REMOVAL: Duration = Duration::from_secs(3600);

/// Old rows that are removed in one commit, which holds up other writers for some ten milliseconds.
pub(crate) const AUDIT_REMOVAL_ROWS: u32 = 2_000;

/// Between two such commits.
pub(crate) const AUDIT_REMOVAL_PAUSE: Duration = Duration::from_millis(200);
