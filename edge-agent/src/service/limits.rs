//! Bounds of upgrades and of the status socket, each with its reason.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Largest program that an upgrade takes: a release has 2 MiB, and one with all that a debugger wants some 60.
pub(crate) const MAX_PROGRAM: u64 = 128 * 1024 * 1024;

/// Largest signature file: four lines, two of them comments.
pub(crate) const MAX_SIGNATURE: u64 = 16 * 1024;

/// Largest journal of an upgrade: two digests, a path, and the reason of a failure.
pub(crate) const MAX_JOURNAL: u64 = 32 * 1024;

/// Limits how long a new program has to get a tunnel: several attempts to dial, and a modem that comes up beside it.
pub(crate) const DEFAULT_TRIAL: &str = "2m";

/// The shortest and the longest that may be asked for instead.
pub(crate) const MIN_TRIAL: Duration = Duration::from_secs(1);

/// See [`MIN_TRIAL`].
pub(crate) const MAX_TRIAL: Duration = Duration::from_secs(3600);

/// Sets how often a new program may start without getting a tunnel: once, and twice more after what only looks like
/// its fault (a power cut, a watchdog on a busy device).
pub(crate) const MAX_TRIAL_STARTS: u32 = 3;

/// Limits how long a new program may take for each answer before it is put in its place: its self-test dials.
pub(crate) const SELF_TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Most that is read of such an answer.
pub(crate) const MAX_CANDIDATE_ANSWER: u64 = 4 * 1024;

/// Limits how long the sessions of an agent that stops or is replaced may take to end: the grace between HUP and KILL,
/// and a little.
pub const UPGRADE_GRACE: Duration = Duration::from_secs(7);

/// Sets how often the old program, aside, looks how the trial goes.
pub(crate) const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Limits how much longer than the trial it waits, at least and at most; between them a fourth of it. The new program
/// comes first, and has to start, on a device that may be busy with that alone.
pub(crate) const WATCH_MARGIN: RangeInclusive<Duration> =
    Duration::from_secs(5)..=Duration::from_secs(30);

/// Limits how long it tries to get the state folder's lock from an agent that it ends.
pub(crate) const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest question on the status socket: a digest and a version.
pub(crate) const MAX_QUESTION: u64 = 1024;

/// Largest answer to `status`, and how long it may take.
pub(crate) const MAX_STATUS: u64 = 64 * 1024;

/// See [`MAX_STATUS`].
pub(crate) const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
