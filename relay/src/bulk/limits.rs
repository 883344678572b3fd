//! Bounds of bulk commands, each with its reason.

use std::time::Duration;

/// The most of them that a user may ask for: each is a session, with a copy of what is under way to and from it.
pub(crate) const MAX_BULK_PARALLEL: usize = 64;

/// Lines of all sessions of one command that wait for its client to read.
pub(crate) const BULK_LINES: usize = 64;

/// The longest line of output behind a device's name, in bytes; a longer one goes on in the next.
pub(crate) const MAX_BULK_LINE: usize = 4 * 1024;

/// Bytes of each of a device's two streams that `exec --json` keeps until the device's line is written.
pub(crate) const MAX_BULK_KEPT: usize = 32 * 1024;

/// The interval at which the progress of a command on a fleet is drawn, and devices that are waited for are looked at.
pub(crate) const BULK_POLL: Duration = Duration::from_millis(250);

/// Largest file that `cp` takes: it lies on the relay's disk until all devices have it.
pub(crate) const MAX_COPY: u64 = 1024 * 1024 * 1024;

/// Files that lie there at a time, each of another user.
pub(crate) const MAX_COPIES: usize = 4;

/// The time that a client of `cp` may pause before its file is complete.
pub(crate) const COPY_TIMEOUT: Duration = Duration::from_secs(300);

/// Bytes of a file in one SFTP packet: the least that every server must take.
pub(crate) const COPY_PACKET: usize = 32 * 1024;

/// Packets of a file that are under way to one device without an answer. With 100 ms to the device and back this makes
/// 5 MB/s, and of [`MAX_BULK_PARALLEL`] devices 32 MiB on the relay.
pub(crate) const COPY_PACKETS: usize = 16;
