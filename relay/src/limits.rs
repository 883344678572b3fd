//! The relay's own bounds and timeouts, each with its reason; those that both ends of a tunnel must agree
//! on stand in `holdfast_protocol::limits`.

use std::time::Duration;

/// Most bytes of one stream of a tunnel that may wait here unread.
pub(crate) const STREAM_WINDOW: u32 = 512 * 1024;

/// Most bytes of all streams of a tunnel that may wait here unread, beside a [`STREAM_WINDOW`] for each
/// session: with quinn's default it is unlimited.
pub(crate) const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// Forwards of one tunnel that have the room of a whole stream each: when more than so many clients read nothing,
/// others of the same device may wait for them.
pub(crate) const FORWARD_WINDOWS: u32 = 64;

/// Most bytes of one tunnel that wait for the device's acknowledgement.
pub(crate) const SEND_WINDOW: u64 = 1024 * 1024;

/// Bytes of datagrams that may wait in the tunnel socket's queue in the kernel, for all devices together: some
/// that send a whole window at once. The kernel's default of 208 KiB loses every eighth packet of a bulk copy.
pub(crate) const TUNNEL_RECEIVE_QUEUE: usize = 4 * 1024 * 1024;

/// Streams that a device may open: the control stream and, later, a few for recordings.
pub(crate) const MAX_DEVICE_STREAMS: u32 = 8;

/// Tunnels whose handshake is not over yet; above it, a source must prove its address first (Retry).
pub(crate) const RETRY_ABOVE_HANDSHAKES: usize = 128;

/// Devices whose handshake, `Hello`, welcome or enrolment is not over yet; above it, new ones are ignored.
pub(crate) const MAX_HANDSHAKES: usize = 2_048;

/// Between two stateless resets. After a crash each device of a fleet of 100,000 beats once in 25 s and is
/// answered so; with quinn's 20 ms most of them would wait for their own timeout.
pub(crate) const RESET_INTERVAL: Duration = Duration::from_micros(250);

/// The interval at which a relay that starts sends a batch of resets to the tunnels of the run before.
pub(crate) const RESET_TICK: Duration = Duration::from_millis(10);

/// Resets in one batch: 2,000 a second. Devices dial within the first delay of their back-off, a quarter of a second,
/// so that 500 come at once, which [`MAX_HANDSHAKES`] allows.
pub(crate) const RESETS_PER_TICK: usize = 20;

/// The time that after the first round those that are not back are sent a second reset.
pub(crate) const RESET_AGAIN: Duration = Duration::from_secs(1);

/// Tunnels of the run before that are reset.
pub(crate) const MAX_RESETS: u32 = 131_072;

/// Addresses whose connection id is noted: more than a relay has tunnels, so that senders without one crowd out no
/// device.
pub(crate) const MAX_NOTED_IDS: usize = 262_144;

/// Addresses beyond twice the tunnels that may be noted before the others are forgotten: handshakes that are under way.
pub(crate) const NOTED_IDS_SLACK: usize = 4_096;

/// The time that a connection may take from its first packet to its `Hello`.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// The time that a device that joins may take for each further message.
pub(crate) const ENROL_TIMEOUT: Duration = Duration::from_secs(10);

/// Devices that join at a time. Each waits up to [`ENROL_TIMEOUT`] and costs some 40 KiB; those beyond are asked to try
/// again.
pub(crate) const MAX_JOINS: usize = 512;

/// The same of one source, an IPv4 address or an IPv6 /64: a join takes some milliseconds, so that a whole site behind
/// one address gets through.
pub(crate) const MAX_JOINS_OF_SOURCE: usize = 64;

/// Lines of the log that one source may cause in a [`LOG_WINDOW`] without a login or membership, of each kind.
pub(crate) const LOG_LINES_OF_SOURCE: u32 = 5;

/// The same of all sources.
pub(crate) const LOG_LINES: u32 = 100;

/// See [`LOG_LINES_OF_SOURCE`].
pub(crate) const LOG_WINDOW: Duration = Duration::from_secs(60);

/// Bytes taken from a control stream at a time.
pub(crate) const CONTROL_READ: usize = 4 * 1024;

/// Messages for one device's control stream that may wait. They are rosters, echoes and a final status; when
/// more wait, the device does not read, and an echo more or less changes nothing.
pub(crate) const CONTROL_QUEUE: usize = 8;

/// The control stream's priority: above every session's.
pub(crate) const CONTROL_PRIORITY: i32 = 100;

/// Priority of streams with a terminal over those without.
pub(crate) const INTERACTIVE_PRIORITY: i32 = 10;

/// Upload streams of one device at a time. It uses one; another may begin before the relay knows that one is over.
pub(crate) const MAX_UPLOAD_STREAMS: usize = 2;

/// Recordings that are opened and compared at once: each takes a processor and some megabytes.
pub(crate) const RECORDING_CHECKS: usize = 2;

/// The maximum that the recordings of one device take where the configuration says nothing: a year of some busy hours
/// each day, and one device that lies fills no disk alone.
pub(crate) const RECORDINGS_DEVICE_MAX: u64 = 64 * 1024 * 1024 * 1024;

/// The disk space that uploads leave free where the configuration says nothing: the database and the log of a busy
/// relay grow by less in a week, so that sessions still run.
pub(crate) const RECORDINGS_MIN_FREE: u64 = 256 * 1024 * 1024;

/// The interval at which a session that goes on has written down what was seen of it: what passed after that is not
/// vouched for if the relay is killed.
pub(crate) const RECORDING_NOTE: Duration = Duration::from_secs(10);

/// The interval at which checks that failed are tried again, and what is late or old is looked for.
pub(crate) const RECORDING_TICK: Duration = Duration::from_secs(60);

/// Recordings that are looked at in one go of that.
pub(crate) const RECORDING_PAGE: u32 = 256;

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

/// The interval at which the store learns when devices were last heard, all of them in one transaction.
pub(crate) const PRESENCE_FLUSH: Duration = Duration::from_secs(5);

/// The interval at which the relay looks whether an admin command has changed the store.
pub(crate) const STORE_POLL: Duration = Duration::from_millis(250);

/// The time for which a decision may be used without a new look at the version of access, by what the enforcement of a
/// change finds already. [`STORE_POLL`] bounds it where the store answers; this is for where it does not.
pub(crate) const DECISION_FRESH: Duration = Duration::from_secs(5);

/// The time that a look-up in the store may take on a path that a user waits on.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// The time from accepting an SSH connection to its authentication, however chatty the peer (OpenSSH's
/// `LoginGraceTime` is 120 s; a machine needs one).
pub(crate) const LOGIN_GRACE: Duration = Duration::from_secs(30);

/// Wrong signatures on one SSH connection: no client signs wrongly by mistake, and none needs a second try.
pub(crate) const MAX_AUTH_FAILURES: usize = 6;

/// Keys that one SSH connection may offer. OpenSSH's server takes six, which locks out users with more keys in
/// their agent; each offer costs a look-up by an index and [`AUTH_REJECTION_TIME`].
pub(crate) const MAX_KEY_OFFERS: usize = 32;

/// Bytes that a peer may send before it has authenticated: a handshake with a large key and six attempts
/// takes less than a tenth.
pub(crate) const MAX_UNAUTHENTICATED_BYTES: u64 = 512 * 1024;

/// Every rejected authentication takes at least so long, so that its time tells nothing.
pub(crate) const AUTH_REJECTION_TIME: Duration = Duration::from_millis(50);

/// SSH connections in all: each costs about 100 KiB.
pub(crate) const MAX_CONNECTIONS: usize = 10_000;

/// SSH connections that have not authenticated yet, of all sources (`MaxStartups`).
pub(crate) const MAX_UNAUTHENTICATED: usize = 512;

/// The same of one source: an IPv4 address or an IPv6 /64.
pub(crate) const MAX_UNAUTHENTICATED_PER_SOURCE: usize = 64;

/// Sources that are remembered for their penalties; above it the one that ends soonest is forgotten.
pub(crate) const MAX_PENALISED_SOURCES: usize = 16_384;

/// A connection with a wrong signature costs its source so much time (as `PerSourcePenalties authfail`). Keys that are
/// refused and connections without an attempt cost nothing: an address is shared by many people.
pub(crate) const PENALTY_FAILED: Duration = Duration::from_secs(5);

/// A source is not kept out for so long after a login from it: who works there is not shut out for a neighbor.
pub(crate) const TRUST_AFTER_LOGIN: Duration = Duration::from_secs(3600);

/// Sources whose last login is remembered; above it the one with the oldest login is forgotten.
pub(crate) const MAX_TRUSTED_SOURCES: usize = 16_384;

/// Networks in `penalty_exempt`.
pub(crate) const MAX_PENALTY_EXEMPT: usize = 256;

/// Refused connections that are kept open for a moment, so that their clients read why; others are closed at once.
pub(crate) const MAX_LINGERING_REFUSALS: usize = 64;

/// The time that such a connection is kept open.
pub(crate) const REFUSAL_LINGER: Duration = Duration::from_secs(2);

/// Penalties count only from here on.
pub(crate) const PENALTY_MINIMUM: Duration = Duration::from_secs(60);

/// No source is kept out longer.
pub(crate) const PENALTY_MAXIMUM: Duration = Duration::from_secs(600);

/// Requests of one SSH connection for proofs of host keys. OpenSSH's client sends one at most; each costs a signature a
/// key.
pub(crate) const MAX_HOST_KEY_PROOFS: usize = 4;

/// Channels of one SSH connection at a time, forwards aside.
pub(crate) const MAX_CHANNELS: usize = 64;

/// Forwards of one SSH connection at a time: a browser behind `-D` opens some hundred.
pub(crate) const MAX_FORWARDS: usize = 512;

/// Channels to an operator's SSH agent that one session has at once: programs ask one question and go.
pub(crate) const MAX_AGENT_CHANNELS: usize = 16;

/// Connections that have come to one port of `-R` and whose channel is being opened: as many as wait on a device.
pub(crate) const MAX_ARRIVALS_OF_LISTENER: usize = 16;

/// The same of all ports and agent sockets of one SSH connection: a device that announces what never came holds up
/// itself alone.
pub(crate) const MAX_ARRIVALS_OF_CONNECTION: usize = 32;

/// The same of one client, with all that runs inside its jumps. Each costs some 30 KiB.
pub(crate) const MAX_ARRIVALS_OF_CLIENT: usize = 128;

/// Ports that devices listen on for one SSH connection.
pub(crate) const MAX_LISTENERS: usize = 32;

/// The time that a device may take to listen. The connection that asks for it is not read meanwhile: russh wants the
/// answer at once.
pub(crate) const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// The time that a client may take to open a channel for a connection that has come to a device.
pub(crate) const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes from the operator that wait on all channels of one connection together. When it is used up, nothing more
/// is read of that connection until a device takes something.
pub(crate) const CONNECTION_QUEUE: usize = 64 * 1024 * 1024;

/// Above so many waiting bytes on all channels of a connection together, each of them counts as loaded that has more
/// than [`CHANNEL_SHARE`].
pub(crate) const CONNECTION_LOADED: usize = 16 * 1024 * 1024;

/// Above so many, each of them counts as full.
pub(crate) const CONNECTION_FULL: usize = 48 * 1024 * 1024;

/// See [`CONNECTION_LOADED`].
pub(crate) const CHANNEL_SHARE: usize = 64 * 1024;

/// Bytes from the operator that wait for one channel's device. russh returns window on receipt, so this,
/// not the SSH window, is the bound: what makes a queue full, and what its neighbours' windows let in besides.
pub(crate) const CHANNEL_QUEUE: usize = 4 * 1024 * 1024;

/// Above so many waiting bytes, a channel's client gets half of [`SSH_WINDOW`]: together with what is under way when
/// it comes to [`CHANNEL_LOADED`], that is no more than [`CHANNEL_FULL`].
pub(crate) const CHANNEL_FILLING: usize = 256 * 1024;

/// Above so many waiting bytes, a channel's client gets [`TRICKLE_WINDOW`]. It keeps the device busy for the two
/// round trips that it takes to open the window again.
pub(crate) const CHANNEL_LOADED: usize = 768 * 1024;

/// The level up to which a channel that is loaded may still fill by itself, with what its messages cost. Above it, its
/// neighbours' clients get [`TRICKLE_WINDOW`] too, because russh gives to one what it got for another.
pub(crate) const CHANNEL_FULL: usize = 3 * 1024 * 1024 + 480 * 1024;

/// The window of a channel beside one that is loaded: what that one may take of it, twice, fits between
/// [`CHANNEL_FULL`] and [`CHANNEL_QUEUE`].
pub(crate) const SHARED_WINDOW: u32 = 256 * 1024;

/// The window of a loaded channel: the least that makes russh ask again (it does so below half of it).
pub(crate) const TRICKLE_WINDOW: u32 = 2;

/// The longest time that each packet of a trickle is held, if the queue does not empty before.
pub(crate) const TRICKLE_PAUSE: Duration = Duration::from_millis(20);

/// Bytes of a trickle that wait beside [`CHANNEL_QUEUE`]: half a day of it.
pub(crate) const TRICKLE_QUEUE: usize = 4 * 1024 * 1024;

/// Messages of no more bytes than this wait together with those before them, if there are any.
pub(crate) const SMALL_MESSAGE: usize = 1024;

/// Bytes of small messages that wait as one.
pub(crate) const MESSAGE_CHUNK: usize = 4 * 1024;

/// The cost of one queued message beside its bytes: a flood of empty messages fills the queue too.
pub(crate) const MESSAGE_OVERHEAD: usize = 64;

/// A channel whose device has taken nothing for so long is closed when its queue is full and its neighbours on the
/// same connection want to go on.
pub(crate) const STALLED_CHANNEL: Duration = Duration::from_secs(60);

/// The SSH window and packet size that we offer (OpenSSH: 2 MiB and 32 KiB).
pub(crate) const SSH_WINDOW: u32 = 2 * 1024 * 1024;
/// See [`SSH_WINDOW`].
pub(crate) const SSH_PACKET: u32 = 32 * 1024;

/// russh's queue of outgoing messages of one connection, of at most 32 KiB each.
pub(crate) const SSH_EVENTS: usize = 16;

/// Data of one channel that is gathered into one SSH packet.
pub(crate) const SPLICE_BUFFER: usize = 32 * 1024;

/// Environment variables that one channel may ask for, those that are not allowed included.
pub(crate) const MAX_ENV_REQUESTS: usize = 256;

/// The silence after which a terminal reports that its device does not answer.
pub(crate) const SILENCE_NOTICE: Duration = Duration::from_secs(12);

/// The interval at which a session looks whether its device is silent.
pub(crate) const SILENCE_POLL: Duration = Duration::from_secs(1);

/// The interval at which `wait` looks whether its device is there: a person waits for it, and many may.
pub(crate) const WAIT_POLL: Duration = Duration::from_secs(1);

/// The time that a device may take to accept or refuse a session.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The time that the final status of a session may take to reach the operator.
pub(crate) const FINAL_STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// Host certificates of the jump way that are kept ready.
pub(crate) const MAX_HOST_CERTIFICATES: usize = 1_024;

/// The time that a host certificate is valid. It is made anew at every start of the relay.
pub(crate) const HOST_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// The time that one console command may take, its input and the reading of its answer included.
pub(crate) const CONSOLE_TIMEOUT: Duration = Duration::from_secs(60);

/// An operator's client that is silent for so long is asked whether it lives (`ClientAliveInterval`);
/// after [`SSH_KEEPALIVE_MAX`] questions without an answer its connection is closed.
pub(crate) const SSH_KEEPALIVE: Duration = Duration::from_secs(60);
/// See [`SSH_KEEPALIVE`].
pub(crate) const SSH_KEEPALIVE_MAX: usize = 3;

/// The time that a connection that was ordered to end may take before its socket is closed.
pub(crate) const DISCONNECT_GRACE: Duration = Duration::from_secs(1);

/// The time that the wait for an overlong sentence of a connection's life may be: bytes of a description.
pub(crate) const MAX_DESCRIPTION: usize = 1_024;

/// Milliseconds after which a device dials again when the relay stops, before its own jitter.
pub(crate) const DRAIN_REDIAL: u32 = 500;

/// The content of a stream without a terminal that a recording keeps where no role of its user says anything: more than
/// people read, and a quarter of a device's spool.
pub(crate) const DEFAULT_CONTENT_BYTES: u64 = 16 * 1024 * 1024;

/// The time at which an idle session ends where no role of its user says anything.
pub(crate) const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Shortest idle timeout of a role: below it a pause for thought would end a session.
pub(crate) const MIN_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest idle timeout of a role that is no `never`.
pub(crate) const MAX_IDLE_TIMEOUT: Duration = Duration::from_secs(366 * 86_400);

/// Shortest `max_session` of a role: a session has to begin at least.
pub(crate) const MIN_MAX_SESSION: Duration = Duration::from_secs(1);

/// Longest `max_session` of a role; who wants more leaves it out.
pub(crate) const MAX_MAX_SESSION: Duration = Duration::from_secs(366 * 86_400);

/// Longest name of a role, in bytes: as a user's.
pub(crate) const MAX_ROLE_NAME: usize = 64;

/// Most roles that a relay knows, the presets aside. A decision looks at one user's roles only; this bounds
/// the listing.
pub(crate) const MAX_ROLES: usize = 1_024;

/// Most roles of one user: a decision looks through all of them.
pub(crate) const MAX_ROLES_OF_USER: usize = 32;

/// Most allow rules of one role, and most deny rules.
pub(crate) const MAX_RULES: usize = 64;

/// Most labels that one rule names: as many as a device has.
pub(crate) const MAX_RULE_LABELS: usize = holdfast_protocol::limits::MAX_LABELS;

/// Most values of one label in a rule.
pub(crate) const MAX_RULE_VALUES: usize = 64;

/// Most logins that one rule names.
pub(crate) const MAX_RULE_LOGINS: usize = 256;

/// Most source networks of one role.
pub(crate) const MAX_ROLE_NETWORKS: usize = 256;

/// Most users that a policy document names.
pub(crate) const MAX_POLICY_USERS: usize = 10_000;

/// Most keys of one user in a policy document.
pub(crate) const MAX_KEYS_OF_USER: usize = 64;

/// Most principals of one user.
pub(crate) const MAX_PRINCIPALS_OF_USER: usize = 32;

/// Longest principal of a certificate that a user may have, in bytes.
pub(crate) const MAX_PRINCIPAL: usize = 256;

/// Longest e-mail address, in bytes: what RFC 5321 section 4.5.3.1.3 leaves of a path.
pub(crate) const MAX_EMAIL: usize = 254;

/// Shorter RSA keys are within reach of a patient attacker (NIST SP 800-131A).
pub(crate) const MIN_RSA_BITS: usize = 2048;

/// Principals of one certificate: each is looked up at a login. OpenSSH takes 256; no user has 64 names.
pub(crate) const MAX_CERTIFICATE_PRINCIPALS: usize = 64;

/// Certificate authorities that are trusted: a company has a few.
pub(crate) const MAX_AUTHORITIES: usize = 64;

/// Longest name of an authority, in bytes.
pub(crate) const MAX_AUTHORITY_NAME: usize = 64;

/// Most revoked keys, key ids and ranges of serial numbers. This bounds the table, its listing, and what a relay keeps
/// of it in memory.
pub(crate) const MAX_REVOCATIONS: usize = 65_536;

/// Longest revoked key id, in bytes: a certificate with a longer one does not pass before authentication.
pub(crate) const MAX_KEY_ID: usize = 4_096;

/// Connections and sessions that hold a slot of a quota on one relay: each is a row in the store and a place
/// in the queue that gives it back.
pub(crate) const MAX_LEASES: usize = 65_536;

/// Slots that are given back in one transaction.
pub(crate) const LEASE_BATCH: usize = 256;

/// The time that a user at a limit waits for a slot that is just being given back: the client of a session
/// that has ended may be here again before the relay has heard that its connection is closed.
pub(crate) const LEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The interval at which a slot is looked for that another relay may have given back.
pub(crate) const LEASE_POLL: Duration = Duration::from_millis(100);

/// Those who wait so at a time; above it the answer is given at once.
pub(crate) const MAX_LEASE_WAITERS: usize = 256;

/// The time that the end of a session waits until the store has its slot back.
pub(crate) const LEASE_RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two attempts to give slots back to a store that fails.
pub(crate) const LEASE_RETRY: Duration = Duration::from_secs(1);

/// Locks that stand at a time: each session that begins is held against all of them.
pub(crate) const MAX_LOCKS: u32 = 4_096;

/// Longest message of a lock or a kill, in bytes: it is to fit on a line or two of a terminal.
pub(crate) const MAX_LOCK_MESSAGE: usize = 256;

/// The shortest interval at which the store learns that a session began or ended.
pub(crate) const REGISTRY_FLUSH: Duration = Duration::from_millis(100);

/// The interval at which the store learns what moved through the live sessions, all of them in one transaction.
pub(crate) const TRAFFIC_FLUSH: Duration = Duration::from_secs(1);

/// Bytes of a session's command that listings show.
pub(crate) const MAX_SHOWN_COMMAND: usize = 1_024;

/// The time that the sessions that a lock matches may take to let go of their device, before the relay looks again.
/// It takes no more than a turn of their tasks.
pub(crate) const ENFORCE_TIMEOUT: Duration = Duration::from_secs(2);

/// The time that a command that takes something away waits for the relays to confirm it.
pub(crate) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// The interval at which it looks.
pub(crate) const CONFIRM_POLL: Duration = Duration::from_millis(20);

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

/// Bytes of one text of an event; a longer one is cut, and its length noted.
pub(crate) const MAX_AUDIT_TEXT: usize = 32 * 1024;

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

/// Refusals of one user and kind that may be written at once in a minute: more than a script that runs into a limit
/// causes by itself, and few enough for one user never to fill the log.
pub(crate) const AUDIT_REFUSAL_ROWS: u32 = 100;

/// Users whose refusals are summed apart, each kind by itself.
pub(crate) const MAX_SUMMED_ACTORS: usize = 1_024;

/// Names that one sum lists.
pub(crate) const MAX_SUMMED_USERS: usize = 8;

/// Names and keys that are kept of one connection that does not log in: as many as it may try.
pub(crate) const MAX_TRIED: usize = MAX_AUTH_FAILURES;

/// Bytes that are kept of a name that was tried: longer ones are no user's.
pub(crate) const MAX_TRIED_NAME: usize = 256;

/// The interval at which old rows of the audit log are looked for.
pub(crate) const AUDIT_REMOVAL: Duration = Duration::from_secs(3600);

/// Old rows that are removed in one commit, which holds up other writers for some ten milliseconds.
pub(crate) const AUDIT_REMOVAL_ROWS: u32 = 2_000;

/// Between two such commits.
pub(crate) const AUDIT_REMOVAL_PAUSE: Duration = Duration::from_millis(200);

/// Files of one SFTP session that the device is closing while their client has its answer already: as many as it may
/// have open.
pub(crate) const MAX_SFTP_CLOSING: usize = 1024;

/// The time that a packet may be under way before it is taken for lost: a lock is to be acknowledged within a second.
pub(crate) const MAX_ARRIVAL: Duration = Duration::from_millis(500);

/// Devices that `exec` and `cp` work on at a time, by default.
pub(crate) const BULK_PARALLEL: usize = 20;

/// The most of them that a user may ask for: each is a session, with a copy of what is under way to and from it.
pub(crate) const MAX_BULK_PARALLEL: usize = 64;

/// Pieces of one session's output that wait to be shown, of at most [`SPLICE_BUFFER`] each: above it, the device waits.
pub(crate) const BULK_PIECES: usize = 4;

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

/// Most bytes of a read that the relay asks for before the client does: OpenSSH's client reads up to 255 KiB at a time.
pub(crate) const MAX_SFTP_GUESS: u32 = 256 * 1024;

/// The time that such a read may stand for what the file holds: a client that wants it asks within a round trip.
pub(crate) const SFTP_GUESS_LIFE: Duration = Duration::from_secs(2);

/// Reads that the relay asks for before the client does, in one session: with the answers that wait for their client
/// they hold 512 KiB at most. OpenSSH's client needs the beginning of one file, and what is behind it.
pub(crate) const MAX_SFTP_GUESSES: usize = 2;

/// Files that one session has open under names of the relay's, and opens of them that the device has not answered:
/// OpenSSH's client has one at a time.
pub(crate) const MAX_SFTP_NAMED: usize = 64;

/// Longest packet of a write that is looked at, for which it is copied: a file of one such write is worth it.
pub(crate) const MAX_SFTP_SMALL: usize = 32 * 1024;

/// The time that a client of `cp` may pause before its file is complete.
pub(crate) const COPY_TIMEOUT: Duration = Duration::from_secs(300);

/// Bytes of a file in one SFTP packet: the least that every server must take.
pub(crate) const COPY_PACKET: usize = 32 * 1024;

/// Packets of a file that are under way to one device without an answer. With 100 ms to the device and back this makes
/// 5 MB/s, and of [`MAX_BULK_PARALLEL`] devices 32 MiB on the relay.
pub(crate) const COPY_PACKETS: usize = 16;

/// Longest path that `cp` takes, in bytes: Linux's, without the zero.
pub(crate) const MAX_COPY_PATH: usize = 4095;

/// Between two sessions or events of one run in a folded listing: Ansible takes seconds from task to task, and what a
/// person begins a minute later is work of its own.
pub(crate) const RUN_GAP: Duration = Duration::from_secs(60);

/// The same of those over one SSH connection: a kept connection is one piece of work, over its pauses.
pub(crate) const CONNECTION_GAP: Duration = Duration::from_secs(60 * 60);

/// Identifiers that a refusal names of those that begin as the one that was typed: a sentence stays a sentence.
pub(crate) const MAX_AMBIGUOUS: u32 = 8;

/// Audit events that a folded listing holds before it writes them, however long the log is.
pub(crate) const MAX_AUDIT_HELD: usize = 1_000;

/// The narrowest terminal that a table is cut for: below it, nothing could be read.
pub(crate) const MIN_TABLE_WIDTH: usize = 40;

/// Columns of a table are shortened to no less than this.
pub(crate) const MIN_TABLE_COLUMN: usize = 8;

/// Sentences that a channel's client reads before anything runs on it: a flood of refused requests is not answered with
/// a flood of words.
pub(crate) const MAX_CHANNEL_SENTENCES: usize = 8;

/// Characters of a variable's name in such a sentence.
pub(crate) const MAX_SHOWN_VARIABLE: usize = 64;

/// Characters of a sentence that waits for a connection's next session: it may quote a path of any length.
pub(crate) const MAX_SHOWN_SENTENCE: usize = 512;

/// The number of times that a run of an agent has come back, after another one had followed it, before the two are two
/// machines: once may be a message that was under way on a slow path.
pub(crate) const CLONE_RETURNS: u8 = 2;

/// Runs of a device's agent that are remembered: more than machines that share one key by accident.
pub(crate) const MAX_CLONE_RUNS: usize = 8;

/// The time that two machines with one key are remembered after they were last seen at odds. An agent dials at least
/// every 30 s, so they are at odds again soon, or are not any more.
pub(crate) const CLONE_MEMORY: Duration = Duration::from_secs(3600);

/// The interval at which it is written down that a device is two machines.
pub(crate) const CLONE_NOTE: Duration = Duration::from_secs(60);

/// The most that a command reads from stdin or a file: some hundred public keys.
pub(crate) const MAX_INPUT: usize = 64 * 1024;

/// The same of `ca revoke`: a revocation list of some ten thousand entries.
pub(crate) const MAX_REVOCATION_INPUT: usize = 1024 * 1024;

/// The same of `apply`: some ten thousand users with their keys.
pub(crate) const MAX_POLICY_INPUT: usize = 4 * 1024 * 1024;

/// The longest line that the console parses: no command needs more, keys come by stdin.
pub(crate) const MAX_CONSOLE_LINE: usize = 8 * 1024;
