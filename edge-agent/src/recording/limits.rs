//! Bounds of recordings and of the commands that are followed for them, each with its reason.

use std::time::Duration;

/// QUIC priority of recordings that are uploaded: below every session's.
pub(crate) const UPLOAD_PRIORITY: i32 = -10;

/// Most bytes of a path that are recorded: `PATH_MAX` of Linux.
pub(crate) const MAX_FILE_PATH: usize = 4096;

/// Most processes of all sessions that are followed at once: a build has some hundreds.
pub(crate) const MAX_WATCHED_PROCESSES: usize = 4096;

/// The most commands that are kept before it is known whose they are: a login shell's own first ones.
pub(crate) const MAX_WAITING_COMMANDS: usize = 64;

/// Most bytes of a command's arguments that are recorded.
pub(crate) const MAX_COMMAND_ARGUMENTS: u64 = 4096;

/// Bytes of arguments and folders that a session's programs may add to its recording in a second: half of what the
/// relay expects at most, the rest being for that they ran and how they ended. Beyond it, arguments are left out.
pub(crate) const COMMAND_BYTES_PER_SECOND: u64 =
    holdfast_protocol::limits::RECORDING_PER_SECOND_OF_COMMANDS / 2;

/// The same at once: a script of a thousand programs begins.
pub(crate) const COMMAND_BYTES_AT_ONCE: u64 = 256 * 1024;

/// The most process events that the kernel keeps while the agent is busy: some hundreds.
pub(crate) const COMMAND_EVENTS_BUFFER: usize = 512 * 1024;

/// Limits how long the kernel may take to answer; also how often the listening thread checks whether it is still
/// needed.
pub(crate) const COMMAND_EVENTS_TIMEOUT: Duration = Duration::from_millis(500);

/// Limits how long a command waits for room in the spool before it is left out.
pub(crate) const COMMAND_RECORD_TIMEOUT: Duration = Duration::from_millis(250);

/// Stack of the thread that listens for process events.
pub(crate) const COMMAND_STACK: usize = 128 * 1024;

/// Stack of the thread that writes into the spool. It is memory only as far as it is used.
pub(crate) const WRITER_STACK: usize = 256 * 1024;

/// Limits how long a stopping agent waits until the ends of its recordings are written. What is not written then
/// ends as after a power cut.
pub(crate) const RECORDING_STOP_GRACE: Duration = Duration::from_secs(3);

/// On a small file system the spool leaves this part of it alone (one in so many), where the config says
/// nothing.
pub(crate) const SPOOL_SHARE: u64 = 4;

/// A clock that shows an earlier time (2025-01-01, in seconds since 1970) was never set.
pub(crate) const EARLIEST_CLOCK: i64 = 1_735_689_600;

/// The most that the file beside the spool may hold that says which boot it is of: a boot id and 1,000 sessions.
pub(crate) const MAX_BOOT_FILE: usize = 64 + 1_000 * 39;

/// Bytes taken at a time of what the relay says about an upload.
pub(crate) const UPLOAD_READ: usize = 4 * 1024;

/// The most that the file may hold by which a spool's folder is known again: a UUID.
pub(crate) const MAX_SPOOL_ID: u64 = 64;
