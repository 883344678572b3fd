//! Bounds of the command line, each with its reason.

use std::time::Duration;

/// The time that a command waits for the first start of a relay on its state folder, as where both were typed at once.
/// The start makes keys and tables and syncs them, which takes a second or two on a slow disk.
pub(super) const FIRST_START_TIMEOUT: Duration = Duration::from_secs(5);

/// The interval at which it looks.
pub(super) const FIRST_START_POLL: Duration = Duration::from_millis(50);

/// The time after which it says what it waits for: a start that is under way is mostly over by then.
pub(super) const FIRST_START_QUIET: Duration = Duration::from_millis(500);

/// The interval of the lines that say how far a long migration is.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
