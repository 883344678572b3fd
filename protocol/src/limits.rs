//! Every bound and timeout that both ends of a tunnel must agree on, each with its reason.
//!
//! Bounds that only one program knows about are in that program's own `limits.rs`.

mod recording;

use core::time::Duration;

pub use self::recording::*;

/// The ALPN of the tunnel. A change of the major version is a new name; within it, messages only grow.
pub const ALPN: &[u8] = b"holdfast/1";

/// The newest minor version of the messages that this code speaks.
///
/// 1: recordings (`Open`'s terms, the roster's recording key, upload streams).
/// 2: forwards ([`crate::wire::ForwardRequest::Connect`] and what is said of them).
/// 3: what else a session is restricted to ([`crate::wire::SessionTerms`]), and forwards of Unix sockets.
/// 4: forwards are recorded in a shared log ([`crate::wire::ForwardRequest::Log`]).
/// 5: the later part of a session's terms ([`crate::wire::SessionTerms::denied_logins`] and what follows it), the
/// codes of a reset ([`crate::wire::ResetCode`]), an output that is not read any more
/// ([`crate::codec::frame::SessionMessage::CloseStdout`]), which run of an agent speaks ([`crate::wire::Instance`]), which
/// recordings a device holds ([`crate::wire::InventoryPart`]), and a tunnel that is kept when a relay sends its devices
/// away ([`crate::wire::RelayMessage::Drain`]).
pub const MINOR_VERSION: u16 = 5;

/// The ALPN of a link between two relays of a cluster, on the same port as the tunnels.
pub const PEER_ALPN: &[u8] = b"holdfast-peer/1";

/// The newest minor version of the messages between relays ([`crate::wire::peer`]) that this code speaks.
pub const PEER_MINOR_VERSION: u16 = 1;

/// The minor version from which on devices forward.
pub const FORWARD_MINOR: u16 = 2;

/// The minor version from which on devices forward Unix sockets.
pub const PATH_MINOR: u16 = 3;

/// The minor version from which on devices hold a session to its terms.
pub const TERMS_MINOR: u16 = 3;

/// The minor version from which on devices record forwards.
pub const FORWARD_LOG_MINOR: u16 = 4;

/// The minor version from which on devices refuse an account by its user id.
pub const DENIED_LOGINS_MINOR: u16 = 5;

/// The minor version from which on devices tell an order to stop from the loss of an observer.
pub const ON_DISCONNECT_MINOR: u16 = 5;

/// The minor version from which on devices close a process's output that is not read any more.
pub const CLOSE_STDOUT_MINOR: u16 = 5;

/// The minor version from which on devices keep the content of a stream without a terminal up to a bound.
pub const CONTENT_MAX_MINOR: u16 = 5;

/// The minor version from which on a device that a relay sends away keeps its tunnel for what runs over it.
pub const DRAIN_MINOR: u16 = 5;

/// Minor version from which on a device follows sftp as its relay does, so that the operations in a recording are those
/// that the relay has seen.
pub const FILE_OPERATIONS_MINOR: u16 = 5;

/// Most logins that a session's terms deny: more than any policy names, and within the room that an `Open` has for the
/// rest.
pub const MAX_DENIED_LOGINS: usize = 64;

/// Most other names of an account that a device reports: more than any system gives one user id.
pub const MAX_ACCOUNT_NAMES: usize = 16;

/// Longest device name: a DNS label, so that a name can stand in a host name.
pub const MAX_DEVICE_NAME: usize = 63;

/// Longest login: Linux's `LOGIN_NAME_MAX` is 256 with the final NUL, but `useradd` stops at 32.
pub const MAX_LOGIN: usize = 32;

/// Longest operator name, as the login: they often are the same word.
pub const MAX_USER: usize = 64;

/// Longest label key and value: what Kubernetes allows, so that labels can be carried over.
pub const MAX_LABEL_KEY: usize = 63;
/// See [`MAX_LABEL_KEY`].
pub const MAX_LABEL_VALUE: usize = 63;

/// Most labels of one device: enough for any inventory, few enough for one row on a screen.
pub const MAX_LABELS: usize = 16;

/// Longest address text (`host:port`): 253 bytes of DNS name, a colon and a port.
pub const MAX_ADDRESS: usize = 259;

/// Most relays on one roster; a device tries each of them.
pub const MAX_RELAYS: usize = 8;

/// Longest version or target text in a `Hello`.
pub const MAX_VERSION_TEXT: usize = 64;

/// Largest body of a message on the control stream: a roster of [`MAX_RELAYS`] fits three times over.
pub const MAX_CONTROL_MESSAGE: usize = 8 * 1024;

/// Longest command line: Linux's `MAX_ARG_STRLEN`, the most that one argument of `execve` can hold.
pub const MAX_COMMAND: usize = 128 * 1024;

/// Longest command that a client asked for where another one is forced: it travels in the environment, and
/// Linux takes 128 KiB in one variable.
pub const MAX_ORIGINAL_COMMAND: usize = 96 * 1024;

/// Longest subsystem name.
pub const MAX_SUBSYSTEM: usize = 64;

/// Longest `TERM`: OpenSSH passes any, and names of some hundred bytes are in use.
pub const MAX_TERM: usize = 512;

/// Most terminal modes in one PTY request: RFC 4254 section 8 defines opcodes 1 to 159.
pub const MAX_TERMINAL_MODES: usize = 160;

/// Most environment variables that travel with a session, after the relay's allow-list.
pub const MAX_ENV: usize = 64;

/// Longest name of an environment variable.
pub const MAX_ENV_NAME: usize = 128;

/// Longest value of an environment variable.
pub const MAX_ENV_VALUE: usize = 16 * 1024;

/// Most bytes of environment in one session, names and values together: one of the longest values, and some more.
pub const MAX_ENV_BYTES: usize = 20 * 1024;

/// The first minor version that takes a `TERM` of [`MAX_TERM`] and an environment of [`MAX_ENV_BYTES`]. To those before
/// it goes what they take: [`OLD_MAX_TERM`], [`OLD_MAX_ENV_VALUE`], [`OLD_MAX_ENV_BYTES`].
pub const LONG_ENV_MINOR: u16 = 5;

/// [`MAX_TERM`] before [`LONG_ENV_MINOR`].
pub const OLD_MAX_TERM: usize = 64;

/// [`MAX_ENV_VALUE`] before [`LONG_ENV_MINOR`].
pub const OLD_MAX_ENV_VALUE: usize = 4 * 1024;

/// [`MAX_ENV_BYTES`] before [`LONG_ENV_MINOR`].
pub const OLD_MAX_ENV_BYTES: usize = 16 * 1024;

/// Largest body of an `Open` frame: a command, the one that it replaces, an environment and some
/// room for the rest.
pub const MAX_OPEN_MESSAGE: usize = MAX_COMMAND + MAX_ORIGINAL_COMMAND + MAX_ENV_BYTES + 8 * 1024;

/// Longest root of an sftp session: well within Linux's `PATH_MAX`, and within the room for the rest of an
/// `Open`.
pub const MAX_SFTP_ROOT: usize = 1024;

/// Largest body of any other message on a session stream.
pub const MAX_SESSION_MESSAGE: usize = 4 * 1024;

/// Largest payload of one data frame. Data is handed on as it comes, so this bounds no buffer; it
/// bounds how long one frame of output can keep an exit status waiting behind it.
pub const MAX_DATA_FRAME: usize = 256 * 1024;

/// Longest host that a forward names: a DNS name has at most 253 bytes.
pub const MAX_FORWARD_HOST: usize = 253;

/// Most rules that travel with one forward: of some hundred bytes each, they stay well within
/// [`MAX_OPEN_MESSAGE`].
pub const MAX_FORWARD_RULES: usize = 256;

/// Longest path of a Unix socket: what Linux's `sockaddr_un` holds, without its final NUL.
pub const MAX_SOCKET_PATH: usize = 107;

/// Longest path in a rule: a socket's path may lead through links, and what it really is may be longer. As many as
/// there may be in one forward stay within [`MAX_OPEN_MESSAGE`].
pub const MAX_PATH_RULE: usize = 255;

/// Limits how long a device may look for a name and dial before it says that it could not.
pub const FORWARD_DIAL_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest free text in a refusal.
pub const MAX_REASON: usize = 512;

/// Sets how often an idle agent is heard. Most NATs keep a UDP mapping for 30 s or more.
pub const KEEPALIVE: Duration = Duration::from_secs(25);

/// Sets how often an agent with a live session is heard, so that a NAT rebinding stalls a session for a
/// second and not for [`KEEPALIVE`].
pub const ACTIVE_KEEPALIVE: Duration = Duration::from_secs(1);

/// Shortest and longest keepalive that may be configured.
pub const MIN_KEEPALIVE: Duration = Duration::from_secs(5);
/// See [`MIN_KEEPALIVE`]: it stays well below the idle timeout of the tunnel.
pub const MAX_KEEPALIVE: Duration = Duration::from_secs(120);

/// QUIC's idle timeout on both ends: a tunnel without a word for so long is gone. It is long, because
/// a session outlives a bad link; presence is judged by the keepalive, apart from it.
pub const TUNNEL_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// The round trip that is assumed before it was measured. QUIC's 333 ms makes a lost first packet cost a
/// second; on a link that is slower than this, a handshake packet or two are sent twice.
pub const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Limits how many packets may come before one is acknowledged at once (draft-ietf-quic-ack-frequency). QUIC's
/// own rule is every second one, which costs both ends more than the data on a fast link; on a slow one
/// the 25 ms of its longest delay are what counts. It must stay well below a sender's smallest window
/// ([`crate::tunnel::congestion`]): one that waits 25 ms for each window measures a path of some hundred packets a
/// second, and believes it.
pub const ACK_EVERY: u32 = 2;

/// A device is stale when nothing was heard from it for so many keepalives.
pub const STALE_KEEPALIVES: u32 = 2;

/// Unanswered for so long, a beat is repeated as a probe; after two of them the socket is rebound.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest wait between two rebinds of a path that stays dead.
pub const MAX_REBIND_INTERVAL: Duration = Duration::from_secs(20);

/// Silence after which the agent dials anew beside the old tunnel.
pub const PARALLEL_DIAL_AFTER: Duration = Duration::from_secs(10);

/// The same where the roster has other relays: one of them may be there when this one is not, and a device of a relay
/// that died is back 35 s later, a whole keepalive included.
pub const OTHER_DIAL_AFTER: Duration = Duration::from_secs(5);

/// First and longest delay of the reconnect back-off (full jitter).
pub const BACKOFF_BASE: Duration = Duration::from_millis(250);
/// See [`BACKOFF_BASE`]: a fleet of 100,000 devices that all lost their relay comes back at about
/// 6,600 handshakes a second.
pub const BACKOFF_CAP: Duration = Duration::from_secs(30);

/// Limits how long one attempt to dial may take, handshake and `Welcome` together.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Between the HUP that tells a process to stop and the KILL that makes sure.
pub const HANGUP_GRACE: Duration = Duration::from_secs(5);

/// After the leader of a PTY session has exited, how long its last output may take to drain.
pub const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// Longest SFTP packet that is followed: OpenSSH sends at most 256 KiB.
pub const MAX_SFTP_PACKET: usize = 1024 * 1024;

/// Bytes of an SFTP packet that are kept: two paths of [`MAX_SFTP_PATH`] bytes, with what precedes them.
pub const MAX_SFTP_PREFIX: usize = 9 * 1024;

/// Most bytes of a path in SFTP: `PATH_MAX` of Linux.
pub const MAX_SFTP_PATH: usize = 4096;

/// Longest handle in SFTP, section 6.3 of the draft.
pub const MAX_SFTP_HANDLE: usize = 256;

/// Bytes that a session's unanswered SFTP requests may take while they are followed. OpenSSH's client has 64 of them
/// under way; others ask for a whole file at once, in some ten thousand reads.
pub const MAX_SFTP_PENDING: usize = 2 * 1024 * 1024;

/// The bytes that one of them takes beside its names.
pub const SFTP_PENDING_COST: usize = 64;

/// Open files of one SFTP session that are followed: an sftp-server has no more descriptors.
pub const MAX_SFTP_OPEN: usize = 1024;

/// Operations of an SFTP session that were under way when it ended, of which the relay keeps tags: each open file, read
/// and written, and as many requests.
pub const MAX_SFTP_UNDER_WAY: usize = 3 * MAX_SFTP_OPEN;

/// Bytes of a server's words in an SFTP status that are kept: a sentence.
pub const MAX_SFTP_STATUS_TEXT: usize = 512;

/// The longest word that the nearest command is looked for, in bytes: the work grows with it, and no command is longer.
pub const MAX_NEAREST_WORD: usize = 32;
