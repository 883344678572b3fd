//! Every bound and timeout that only the agent knows about, each with its reason. What both ends must
//! agree on stands in [`holdfast_protocol::limits`].

use std::ops::RangeInclusive;
use std::time::Duration;

use quinn::VarInt;

/// Bytes of datagrams that may wait in the socket's queue in the kernel: the relay's send window. The
/// kernel's default of 208 KiB loses every eighth packet of a bulk copy. It is memory only while it is used.
pub const RECEIVE_QUEUE: usize = 1024 * 1024;

/// Most sessions at once, where the config says nothing: a fleet's whole on-call crew with a few
/// windows each, and yet no more than 64 MiB of buffers when every one of them is stalled.
pub const MAX_SESSIONS: u32 = 64;

/// Most forwarded connections at once: what one operator's browser opens through a device, for a few of them. Each
/// holds at most twice [`FORWARD_PIECE`] here, and what [`FORWARD_WINDOWS`] says.
pub const MAX_FORWARDS: u32 = 512;

/// Most bytes of a forward that are read at once, and that wait for a target that takes none. With sessions it is
/// more, because there are fewer of them.
pub const FORWARD_PIECE: usize = 16 * 1024;

/// Forwards that have the room of a whole stream of their own. When more than so many stand still at once, because
/// their targets read nothing, other streams may wait for them; a device of 64 MiB bears no more.
pub const FORWARD_WINDOWS: u32 = 32;

/// Most recordings of forwards at once, one for each SSH connection that forwards: as many as sessions, whose
/// buffers they have.
pub const MAX_FORWARD_RECORDINGS: u32 = MAX_SESSIONS;

/// How long a recording of forwards that is to end waits for the ends of forwards that are under way. What is open
/// then is recorded as that.
pub const FORWARDS_GRACE: Duration = Duration::from_secs(2);

/// Connections that wait in the kernel for one port on which the device listens.
pub const LISTEN_BACKLOG: i32 = 64;

/// Connections of one such port that were accepted, and that the relay has not taken yet. More wait in the kernel.
pub const MAX_ARRIVALS: usize = 16;

/// How long one of them is kept.
pub const ARRIVAL_PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether there is room for another.
pub const ARRIVAL_POLL: Duration = Duration::from_millis(500);

/// Names that are looked up at once, each in a thread.
pub const MAX_LOOKUPS: usize = 8;

/// Addresses of one name that are tried.
pub const MAX_FORWARD_ADDRESSES: usize = 8;

/// Most bytes that one read of a process's output takes: large enough that system calls don't count
/// beside the copying, small enough that a session has its keystrokes' turn soon.
pub const OUTPUT_READ: usize = 64 * 1024;

/// Least room for one read, for when the kernel cannot say how much there is.
pub const MIN_OUTPUT_READ: usize = 512;

/// Most bytes of input that wait in a session for a process that takes none. Beyond it the stream is
/// not read, and QUIC's flow control holds the operator back.
pub const INPUT_QUEUE_BYTES: usize = 64 * 1024;

/// Most pieces of input that wait: each keeps the datagram alive that it came in, so that bytes alone
/// would bound nothing.
pub const INPUT_QUEUE_PIECES: usize = 64;

/// Most pieces that are taken from a QUIC stream at once.
pub const STREAM_READ_PIECES: usize = 32;

/// Bytes that a session moves before it lets the others (and the socket) have a turn.
pub const TURN_BYTES: usize = 256 * 1024;

/// What the terminal still holds when its leader has exited and a background job keeps it open is sent
/// up to here: a kernel holds some 12 KiB, and the job may go on writing for ever.
pub const LAST_OUTPUT: usize = 64 * 1024;

/// Pipe size that is asked for, for stdin and stdout: a fourth of what the kernel allows anybody, so
/// that a bulk copy needs few wake-ups. A refusal of the kernel costs only speed.
pub const PIPE_BYTES: usize = 256 * 1024;

/// How long a stream that the relay opened may stay without its `Open`.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Turns that the tunnel has between a request and its start, so that a withdrawal which came with it is seen.
/// A turn reads a datagram or a few, another hands them to the connection: enough for what a relay says in half
/// a minute to a device that does not answer. With nothing else to do they take microseconds.
pub const WITHDRAWAL_TURNS: u32 = 64;

/// Most helpers at once that dial Unix sockets: each is a process for some milliseconds, and more wait.
pub const MAX_DIAL_HELPERS: usize = 8;

/// Most Unix sockets at once that are listened on: each has a process of some hundred KiB beside it, which
/// removes it.
pub const MAX_KEEPERS: usize = 64;

/// Most folders that are looked at for one that a killed helper left behind: each start looks again.
pub const MAX_STALE_SOCKETS: usize = 64;

/// How often a socket is made anew where something stands in its place.
pub const BIND_ATTEMPTS: u32 = 5;

/// Between two of these: a process ends in less.
pub const BIND_PAUSE: Duration = Duration::from_millis(50);

/// How long the way from the helper's start to the account's shell may take: a home on a slow network
/// file system is waited for, one on a dead server is not.
pub const LAUNCH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the last bytes of a session may take to be acknowledged before it counts as over.
pub const FINISH_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks at the processes that go on after their sessions: until then one that has ended stays a zombie.
pub const LEFT_POLL: Duration = Duration::from_secs(5);

/// Between two looks at a process where the kernel (before 5.3) can't tell of its end.
pub const EXIT_POLL: Duration = Duration::from_millis(50);

/// QUIC priority of sessions with a terminal: a keystroke goes before a bulk copy.
pub const INTERACTIVE_PRIORITY: i32 = 10;

/// QUIC priority of all other sessions.
pub const BULK_PRIORITY: i32 = 0;

/// Largest `/etc/passwd`, `/etc/group` or `/etc/shadow` that is read: some 40,000 accounts.
pub const MAX_ACCOUNT_FILE: u64 = 4 * 1024 * 1024;

/// Most bytes of `/etc/environment` that are read: more than a program's whole environment usually has.
pub const MAX_ENVIRONMENT_FILE: u64 = 64 * 1024;

/// Before this moment (2020) a clock was never set, and says nothing about an account's expiry.
pub const CLOCK_IS_SET: Duration = Duration::from_secs(1_577_836_800);

/// How long the device's directory may take to answer for one name.
pub const NSS_TIMEOUT: Duration = Duration::from_secs(4);

/// Most bytes of its answer: an account in very many groups.
pub const MAX_NSS_LINE: usize = 64 * 1024;

/// How long PAM may take to open a session: a directory server that is slow is waited for. Twice this, for a second
/// look with root, is within [`LAUNCH_TIMEOUT`].
pub const PAM_TIMEOUT: Duration = Duration::from_secs(12);

/// How long `su` may take to close a PAM session that was not opened in time, before it is killed.
pub const PAM_END_TIMEOUT: Duration = Duration::from_secs(2);

/// How often it is looked whether it has.
pub const PAM_END_POLL: Duration = Duration::from_millis(20);

/// Most bytes of the variables that PAM gives a session: the kernel bounds one of them to twice this, and the usual
/// environment has some hundred bytes.
pub const MAX_LOGIN_ENVIRONMENT: usize = 64 * 1024;

/// Most bytes that PAM's modules say to who logs in: a message of the day is less.
pub const MAX_LOGIN_TEXT: usize = 16 * 1024;

/// Largest task of the helper that has PAM open a session: a login, the logins that are denied, and a path.
pub const MAX_LOGIN_TASK: usize = 64 * 1024;

/// Largest answer of it: the variables, the text (which may grow when it is no UTF-8), [`MAX_GROUPS`] and the limits.
pub const MAX_LOGIN_ANSWER: usize =
    2 * MAX_LOGIN_ENVIRONMENT + 4 * MAX_LOGIN_TEXT + 8 * MAX_GROUPS + 4 * 1024;

/// Most open files of a session's processes, until they raise it themselves: the kernel's own first limit. The agent's
/// service may have more, for the agent.
pub const SESSION_OPEN_FILES: u64 = 1024;

/// One account's sessions have at most this part of the tasks (one in so many) that the agent's service may have: the
/// agent, and whoever logs in to look, need the rest.
pub const TASKS_SHARE_ACCOUNT: u64 = 2;

/// One session has at most this part of its account's: another one of the same account can still end it.
pub const TASKS_SHARE_SESSION: u64 = 2;

/// Fewest tasks that are allowed to a session, however small the system: a shell with a build beside it.
pub const MIN_TASKS: u64 = 64;

/// How often a session's cgroup is tried while the one of its account is being removed.
pub const CGROUP_ATTEMPTS: u32 = 8;

/// Most accounts, and most sessions of each, whose cgroups are looked at when a session has ended; the next end goes on.
pub const MAX_SWEPT_CGROUPS: usize = 256;

/// Most symbolic links on the way to a folder of the agent's: as many as the kernel follows.
pub const MAX_FOLDER_LINKS: u32 = 40;

/// Most supplementary groups: far above any device, far below the kernel's 65,536.
pub const MAX_GROUPS: usize = 1024;

/// Most patterns for environment variables in the config.
pub const MAX_ENV_PATTERNS: usize = 64;

/// Most bytes of one stream that may wait here unread: it holds the bandwidth-delay product of 20 Mbit/s
/// at 100 ms, and is small enough for a device with 64 MiB.
pub const STREAM_WINDOW: VarInt = VarInt::from_u32(512 * 1024);

/// Most bytes of all streams that may wait here unread, beside a [`STREAM_WINDOW`] for each session: sessions
/// whose processes read nothing must not hold up the others, nor the control stream.
pub const CONNECTION_WINDOW: VarInt = VarInt::from_u32(2 * 1024 * 1024);

/// Most bytes of all streams that wait for the relay's acknowledgement.
pub const SEND_WINDOW: u64 = 1024 * 1024;

/// Most streams that the relay may have open: one a session or forward, and some that are just ending.
pub const MAX_STREAMS: VarInt = VarInt::from_u32(768);

/// IP addresses of one relay that are tried.
pub const MAX_ADDRESSES: usize = 4;

/// How long one IP address may take for its handshake, before the next is tried.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(4);

/// Bytes taken from the control stream at a time.
pub const CONTROL_READ: usize = 4 * 1024;

/// The control stream's priority: above every session's.
pub const CONTROL_PRIORITY: i32 = 100;

/// QUIC priority of recordings that are uploaded: below every session's.
pub const UPLOAD_PRIORITY: i32 = -10;

/// Most bytes of a path that are recorded: `PATH_MAX` of Linux.
pub const MAX_FILE_PATH: usize = 4096;

/// Most processes of all sessions that are followed at once: a build has some hundreds.
pub const MAX_WATCHED_PROCESSES: usize = 4096;

/// What is kept of commands before it is known whose they are: a login shell's own first ones.
pub const MAX_WAITING_COMMANDS: usize = 64;

/// Most bytes of a command's arguments that are recorded.
pub const MAX_COMMAND_ARGUMENTS: u64 = 4096;

/// Bytes of arguments and folders that a session's programs may add to its recording in a second: half of what the relay
/// expects at most, the rest being for that they ran and how they ended. Beyond it, arguments are left out.
pub const COMMAND_BYTES_PER_SECOND: u64 =
    holdfast_protocol::limits::RECORDING_PER_SECOND_OF_COMMANDS / 2;

/// The same at once: a script of a thousand programs begins.
pub const COMMAND_BYTES_AT_ONCE: u64 = 256 * 1024;

/// What the kernel keeps of process events while the agent is busy: some hundreds.
pub const COMMAND_EVENTS_BUFFER: usize = 512 * 1024;

/// How long the kernel may take to answer; also how often the listening thread sees that nobody needs it.
pub const COMMAND_EVENTS_PATIENCE: Duration = Duration::from_millis(500);

/// How long a command waits for room in the spool before it is left out.
pub const COMMAND_RECORD_PATIENCE: Duration = Duration::from_millis(250);

/// Stack of the thread that listens for process events.
pub const COMMAND_STACK: usize = 128 * 1024;

/// Most files and folders that one SFTP client may have open: what OpenSSH's server allows where the system
/// sets its usual limit, and all that are followed for a recording.
pub const MAX_SFTP_HANDLES: usize = holdfast_protocol::limits::MAX_SFTP_OPEN;

/// Most handles of one SFTP client whose files could not be opened, and which it has not closed: as many as the relay names
/// at a time.
pub const MAX_SFTP_FAILED: usize = 64;

/// Most files of one SFTP client that go with its session: who copies a file has one.
pub const MAX_SFTP_TEMPORARY: usize = 16;

/// Room for requests that have come: a packet of the largest size, and as much as a pipe of [`PIPE_BYTES`]
/// holds.
pub const SFTP_INPUT: usize = 512 * 1024;

/// Answers of SFTP are sent when there is so much of them, or nothing else to answer: enough that system
/// calls don't count, little enough that the client has work soon.
pub const SFTP_ANSWERS: usize = 64 * 1024;

/// Bytes of a folder's names that the kernel gives at once: 128 short names, whose answer stays under the
/// 34,000 bytes that every client takes.
pub const SFTP_LISTING: usize = 4 * 1024;

/// Most numbers of users and groups that one request of SFTP names: the answer fits in a packet.
pub const MAX_SFTP_IDS: usize = 512;

/// Most names of users, and of groups, that are kept for listings.
pub const MAX_SFTP_NAMES: usize = 1024;

/// Bytes that one system call copies within the device.
pub const SFTP_COPY: usize = 8 * 1024 * 1024;

/// How often a path within a root is tried while somebody moves folders under it.
pub const SFTP_ROOT_ATTEMPTS: u32 = 64;

/// Stack of the thread that writes into the spool. It is memory only as far as it is used.
pub const WRITER_STACK: usize = 256 * 1024;

/// How long a stopping agent waits until the ends of its recordings are written. What is not written then
/// ends as after a power cut.
pub const RECORDING_STOP_GRACE: Duration = Duration::from_secs(3);

/// On a small file system the spool leaves this part of it alone (one in so many), where the config says
/// nothing.
pub const SPOOL_SHARE: u64 = 4;

/// A clock that shows an earlier time (2025-01-01, in seconds since 1970) was never set.
pub const EARLIEST_CLOCK: i64 = 1_735_689_600;

/// Events that may wait for the tunnel's driver.
pub const TUNNEL_EVENTS: usize = 32;

/// After a change of addresses or routes, the time in which more of them are taken as one.
pub const ADDRESS_SETTLE: Duration = Duration::from_millis(200);

/// A tunnel that is lost sooner counts as a failed attempt to dial, so that the pause before the next one
/// grows. Two devices with one key (a cloned card) take the tunnel from each other for ever: without it,
/// several times a second.
pub const STEADY_TUNNEL: Duration = Duration::from_secs(60);

/// When a second tunnel could be had, how long the first one still has to be heard again.
pub const OLD_TUNNEL_GRACE: Duration = Duration::from_secs(2);

/// How long an old tunnel's last words may take.
pub const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Largest program that an upgrade takes: a release has 2 MiB, and one with all that a debugger wants some 60.
pub const MAX_PROGRAM: u64 = 128 * 1024 * 1024;

/// Largest signature file: four lines, two of them comments.
pub const MAX_SIGNATURE: u64 = 16 * 1024;

/// Largest journal of an upgrade: two digests, a path, and the reason of a failure.
pub const MAX_JOURNAL: u64 = 32 * 1024;

/// How long a new program has to get a tunnel: several attempts to dial, and a modem that comes up beside it.
pub const TRIAL: Duration = Duration::from_secs(120);

/// The shortest and the longest that may be asked for instead.
pub const MIN_TRIAL: Duration = Duration::from_secs(1);
/// See [`MIN_TRIAL`].
pub const MAX_TRIAL: Duration = Duration::from_secs(3600);

/// How often a new program may start without getting a tunnel: once, and twice more after what only looks like its
/// fault (a power cut, a watchdog on a busy device).
pub const MAX_TRIAL_STARTS: u32 = 3;

/// How long a new program may take for each answer before it is put in its place: its self-test dials.
pub const SELF_TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Most that is read of such an answer.
pub const MAX_CANDIDATE_ANSWER: u64 = 4 * 1024;

/// How long the sessions of an agent that stops or is replaced may take to end: the grace between HUP and KILL, and a little.
pub const UPGRADE_GRACE: Duration = Duration::from_secs(7);

/// How often the old program, aside, looks how the trial goes.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How much longer than the trial it waits, at least and at most; between them a fourth of it. The new program comes
/// first, and has to start, on a device that may be busy with that alone.
pub const WATCH_MARGIN: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(30);

/// How long it tries to get the state folder's lock from an agent that it ends.
pub const TAKE_OVER_PATIENCE: Duration = Duration::from_secs(10);

/// Longest question on the status socket: a digest and a version.
pub const MAX_QUESTION: u64 = 1024;

/// Largest answer to `status`, and how long it may take.
pub const MAX_STATUS: u64 = 64 * 1024;
/// See [`MAX_STATUS`].
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// The most that the file beside the spool may hold that says which boot it is of: a boot id and 1,000 sessions.
pub const MAX_BOOT_FILE: usize = 64 + 1_000 * 39;
