//! Bounds of sessions and forwards, each with its reason.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::os::limits::MAX_GROUPS;

/// Most sessions at once, where the config says nothing: a fleet's whole on-call crew with a few
/// windows each, and yet no more than 64 MiB of buffers when every one of them is stalled.
pub(crate) const MAX_SESSIONS: u32 = 64;

/// Most forwarded connections at once: what one operator's browser opens through a device, for a few of them. Each
/// holds at most twice [`FORWARD_PIECE`] here, and what [`FORWARD_WINDOWS`](crate::tunnel::limits::FORWARD_WINDOWS)
/// says.
pub(crate) const MAX_FORWARDS: u32 = 512;

/// Most bytes of a forward that are read at once, and that wait for a target that takes none. With sessions it is
/// more, because there are fewer of them.
pub(crate) const FORWARD_PIECE: usize = 16 * 1024;

/// Most recordings of forwards at once, one for each SSH connection that forwards: as many as sessions, whose
/// buffers they have.
pub(crate) const MAX_FORWARD_RECORDINGS: u32 = MAX_SESSIONS;

/// Limits how long a recording of forwards that is to end waits for the ends of forwards that are under way. What is
/// open then is recorded as that.
pub(crate) const FORWARDS_GRACE: Duration = Duration::from_secs(2);

/// Connections that wait in the kernel for one port on which the device listens.
pub(crate) const LISTEN_BACKLOG: i32 = 64;

/// Connections of one such port that were accepted, and that the relay has not taken yet. More wait in the kernel.
pub(crate) const MAX_ARRIVALS: usize = 16;

/// Limits how long an accepted connection is kept.
pub(crate) const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Sets the interval at which a full queue of connections is checked for room.
pub(crate) const ARRIVAL_POLL: Duration = Duration::from_millis(500);

/// Names that are looked up at once, each in a thread.
pub(crate) const MAX_LOOKUPS: usize = 8;

/// Addresses of one name that are tried.
pub(crate) const MAX_FORWARD_ADDRESSES: usize = 8;

/// Most bytes that one read of a process's output takes: large enough that system calls don't count
/// beside the copying, small enough that a session has its keystrokes' turn soon.
pub(crate) const OUTPUT_READ: usize = 64 * 1024;

/// Least room for one read, for when the kernel cannot say how much there is.
pub(crate) const MIN_OUTPUT_READ: usize = 512;

/// Most bytes of input that wait in a session for a process that takes none. Beyond it the stream is
/// not read, and QUIC's flow control holds the operator back.
pub(crate) const INPUT_QUEUE_BYTES: usize = 64 * 1024;

/// Most pieces of input that wait: each keeps the datagram alive that it came in, so that bytes alone
/// would bound nothing.
pub(crate) const INPUT_QUEUE_PIECES: usize = 64;

/// Most pieces that are taken from a QUIC stream at once.
pub(crate) const STREAM_READ_PIECES: usize = 32;

/// Bytes that a session moves before it lets the others (and the socket) have a turn.
pub(crate) const TURN_BYTES: usize = 256 * 1024;

/// Most bytes that are sent of what the terminal still holds when its leader has exited and a background job keeps it
/// open: a kernel holds some 12 KiB, and the job may go on writing for ever.
pub(crate) const LAST_OUTPUT: usize = 64 * 1024;

/// Limits how long a stream that the relay opened may stay without its `Open`.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Turns that the tunnel has between a request and its start, so that a withdrawal which came with it is seen.
/// A turn reads a datagram or a few, another hands them to the connection: enough for what a relay says in half
/// a minute to a device that does not answer. With nothing else to do they take microseconds.
pub(crate) const WITHDRAWAL_TURNS: u32 = 64;

/// Most helpers at once that dial Unix sockets: each is a process for some milliseconds, and more wait.
pub(crate) const MAX_DIAL_HELPERS: usize = 8;

/// Most Unix sockets at once that are listened on: each has a process of some hundred KiB beside it, which
/// removes it.
pub(crate) const MAX_KEEPERS: usize = 64;

/// Most folders that are looked at for one that a killed helper left behind: each start looks again.
pub(crate) const MAX_STALE_SOCKETS: usize = 64;

/// Sets how often a socket is made anew where something is in its place.
pub(crate) const BIND_ATTEMPTS: u32 = 5;

/// Between two of these: a process ends in less.
pub(crate) const BIND_PAUSE: Duration = Duration::from_millis(50);

/// Limits how long the way from the helper's instructions to the account's shell may take: a home on a slow network
/// file system is waited for, one on a dead server is not. PAM, which opens its session before, has the same time.
pub(crate) const LAUNCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Limits how long the last bytes of a session may take to be acknowledged before it counts as over.
pub(crate) const FINISH_TIMEOUT: Duration = Duration::from_secs(30);

/// QUIC priority of sessions with a terminal: a keystroke goes before a bulk copy.
pub(crate) const INTERACTIVE_PRIORITY: i32 = 10;

/// QUIC priority of all other sessions.
pub(crate) const BULK_PRIORITY: i32 = 0;

/// Limits how long PAM may take to open a session: a directory server that is slow is waited for. Twice this, for a
/// second look with root, is within [`LAUNCH_TIMEOUT`].
pub(crate) const PAM_TIMEOUT: Duration = Duration::from_secs(12);

/// Limits how long `su` may take to close a PAM session that was not opened in time, before it is killed; and to take
/// the end of its killed shell, before it is asked to end.
pub(crate) const PAM_END_TIMEOUT: Duration = Duration::from_secs(2);

/// Limits how long the waiting shell of a PAM session that is over may live on, before it is killed: it ends at once,
/// unless its account has stopped it.
pub(crate) const PAM_CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Limits how long `su` may take to close a PAM session after that, before it is killed: an encrypted home on a slow
/// card is written back and unmounted within it, but a module that hangs does not stay.
pub(crate) const PAM_UNMOUNT_TIMEOUT: Duration = Duration::from_mins(5);

/// Limits how long a session waits for another one of its connection to open a PAM session, before it opens its own: PAM
/// takes some milliseconds, unless a directory server does not answer.
pub(crate) const PAM_TURN_TIMEOUT: Duration = Duration::from_secs(2);

/// Limits how long a PAM session stays open after the last session that used it, for the next one of the same
/// connection: what a script does between two commands.
pub(crate) const PAM_LINGER: Duration = Duration::from_secs(1);

/// Most PAM sessions that stay open so. Each is three waiting processes, of about 2 MiB.
pub(crate) const MAX_UNUSED_LOGINS: usize = 4;

/// Most PAM sessions that are being closed while a further one is opened. Each is three processes, whose account can keep
/// them for [`PAM_CLOSE_TIMEOUT`], and a module that hangs for [`PAM_UNMOUNT_TIMEOUT`]: who logs in over and over would
/// fill the memory of a small device. A good one is closed within milliseconds.
pub(crate) const MAX_CLOSING_LOGINS: usize = 16;

/// Sets the interval at which the end of `su` is checked.
pub(crate) const PAM_END_POLL: Duration = Duration::from_millis(20);

/// Most bytes of the variables that PAM gives a session: the kernel bounds one of them to twice this, and the usual
/// environment has some hundred bytes.
pub(crate) const MAX_LOGIN_ENVIRONMENT: usize = 64 * 1024;

/// Most bytes that PAM's modules say to who logs in: a message of the day is less.
pub(crate) const MAX_LOGIN_TEXT: usize = 16 * 1024;

/// Largest task of the helper that has PAM open a session: a login, the logins that are denied, and a path.
pub(crate) const MAX_LOGIN_TASK: usize = 64 * 1024;

/// Largest answer of it: the variables, the text (which may grow when it is no UTF-8),
/// [`MAX_GROUPS`](crate::os::limits::MAX_GROUPS) and the limits.
pub(crate) const MAX_LOGIN_ANSWER: usize =
    2 * MAX_LOGIN_ENVIRONMENT + 4 * MAX_LOGIN_TEXT + 8 * MAX_GROUPS + 4 * 1024;

/// Most open files of a session's processes, until they raise it themselves: the kernel's own first limit. The agent's
/// service may have more, for the agent.
pub(crate) const SESSION_OPEN_FILES: u64 = 1024;

/// Timer slack of a process that nothing was said of, in nanoseconds: the kernel's own, of its first process.
pub(crate) const USUAL_TIMER_SLACK: NonZeroU64 = NonZeroU64::new(50_000).unwrap();

/// One account's sessions have at most this part of the tasks (one in so many) that the agent's service may have: the
/// agent, and an operator who logs in to look, need the rest.
pub(crate) const TASKS_SHARE_ACCOUNT: u64 = 2;

/// One session has at most this part of its account's: another one of the same account can still end it.
pub(crate) const TASKS_SHARE_SESSION: u64 = 2;

/// Fewest tasks that are allowed to a session, however small the system: a shell with a build beside it.
pub(crate) const MIN_TASKS: u64 = 64;

/// Sets how often a session's cgroup is tried while the one of its account is being removed.
pub(crate) const CGROUP_ATTEMPTS: u32 = 8;

/// Most accounts, and most sessions of each, whose cgroups are looked at when a session has ended; the next end goes
/// on.
pub(crate) const MAX_SWEPT_CGROUPS: usize = 256;
