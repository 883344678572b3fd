//! Bounds of recordings, each with its reason.

use std::time::Duration;

/// Upload streams of one device at a time. It uses one; another may begin before the relay knows that one is over.
pub(crate) const MAX_UPLOAD_STREAMS: usize = 2;

/// Recordings of a device that are compared with its inventory: as many as its spool has files.
pub(crate) const MAX_INVENTORY_ROWS: u32 = 16 * 1024;

/// Recordings that are opened and compared at once: each takes a processor and some megabytes.
pub(crate) const RECORDING_CHECKS: usize = 2;

/// The maximum that the recordings of one device take where the configuration says nothing: a year of some busy hours
/// each day, and one device that lies fills no disk alone.
pub(crate) const RECORDINGS_DEVICE_MAX: u64 = 64 * 1024 * 1024 * 1024;

/// The disk space that uploads leave free where the configuration says nothing: the database and the log of a busy
/// relay grow by less in a week, so that sessions still run.
pub(crate) const RECORDINGS_MIN_FREE: u64 = 256 * 1024 * 1024;

/// The interval at which checks that failed are tried again, and what is late or old is looked for.
pub(crate) const RECORDING_TICK: Duration = Duration::from_secs(60);

/// Recordings that are looked at in one go of that.
pub(crate) const RECORDING_PAGE: u32 = 256;

/// The interval at which is written down what was seen of the sessions that go on: what passed after that is not vouched
/// for if the relay is killed.
pub(crate) const RECORDING_NOTE: Duration = Duration::from_secs(10);

/// The same where relays share the database, and the others judge what a dead one has recorded. A session that is busy
/// costs a row of some 10 KiB each time, which waits for no disk.
pub(crate) const RECORDING_NOTE_SHARED: Duration = Duration::from_secs(1);

/// Sessions that are written down in one transaction: on PostgreSQL no other change is made meanwhile, and a login waits
/// for no more than some milliseconds.
pub(crate) const NOTED_AT_ONCE: usize = 16;

/// A request to the recordings' bucket: a segment is at most 1 MiB.
pub(crate) const BUCKET_REQUEST: Duration = Duration::from_secs(20);

/// The number of times that such a request is tried again: the device waits for the answer,
/// keeps what it has, and offers it anew.
pub(crate) const BUCKET_RETRIES: usize = 3;

/// The time after which such a request is given up, with its retries.
pub(crate) const BUCKET_TIMEOUT: Duration = Duration::from_secs(40);

/// Most forwards of a recording that are shown; all of them are in its export.
pub(crate) const MAX_SHOWN_FORWARDS: usize = 1000;

/// Most commands of a recording that are shown; all of them are in its export.
pub(crate) const MAX_SHOWN_COMMANDS: usize = 1000;

/// The records that are read of a recording before they are taken: records of at most 28 KiB.
pub(crate) const READ_AHEAD: usize = 64;

/// The largest terminal that a recording is shown or read on: what a device says of its size is bounded here.
pub(crate) const MAX_SCREEN_COLUMNS: usize = 500;

/// See [`MAX_SCREEN_COLUMNS`].
pub(crate) const MAX_SCREEN_ROWS: usize = 300;

/// The length at which a line of recorded output that has no end is cut.
pub(crate) const MAX_TEXT_LINE: usize = 16 * 1024;

/// The time that recordings are waited for, unless the configuration says otherwise.
pub(crate) const EXPECT_WITHIN: Duration = Duration::from_secs(30 * 86_400);

/// Bytes of a session's command that listings show.
pub(crate) const MAX_SHOWN_COMMAND: usize = 1_024;
