//! Bounds of what the store keeps, each with its reason.

use std::time::Duration;

/// Tunnels of the run before that are reset.
pub(crate) const MAX_RESETS: u32 = 131_072;

/// Most roles that a relay knows, the presets aside. A decision looks at one user's roles only; this bounds
/// the listing.
pub(crate) const MAX_ROLES: usize = 1_024;

/// Most roles of one user: a decision looks through all of them.
pub(crate) const MAX_ROLES_OF_USER: usize = 32;

/// Most principals of one user.
pub(crate) const MAX_PRINCIPALS_OF_USER: usize = 32;

/// Certificate authorities that are trusted: a company has a few.
pub(crate) const MAX_AUTHORITIES: usize = 64;

/// Most revoked keys, key ids and ranges of serial numbers. This bounds the table, its listing, and what a relay keeps
/// of it in memory.
pub(crate) const MAX_REVOCATIONS: usize = 65_536;

/// Locks that stand at a time: each session that begins is held against all of them.
pub(crate) const MAX_LOCKS: u32 = 4_096;

/// Bytes of one text of an event; a longer one is cut, and its length noted.
pub(crate) const MAX_AUDIT_TEXT: usize = 32 * 1024;

/// Identifiers that a refusal names of those that begin as the one that was typed: a sentence stays a sentence.
pub(crate) const MAX_AMBIGUOUS: u32 = 8;

/// The time that a writer waits for another process's transaction. Ours take milliseconds; a machine that
/// needs longer than this has to report it.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The time that a query waits for its turn inside this process, before the caller gets the error that the store
/// is too slow: longer than [`BUSY_TIMEOUT`], so that the cause is reported and not the queue.
pub(super) const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// The time that a transaction may take for one statement and what its caller does before the next. After that it is
/// taken back and the next writer has its turn: a caller that waits for something else in the middle of a change must not
/// hold up all others. Statements take milliseconds. It is shorter than [`BUSY_TIMEOUT`] and [`TURN_TIMEOUT`], so that who
/// waits behind one still gets a turn.
pub(super) const TX_TIMEOUT: Duration = Duration::from_secs(4);

/// Reads that run at once. Each is a thread of SQLite's and a page cache; look-ups take microseconds.
pub(super) const READERS: u32 = 4;

/// Connections to a PostgreSQL server. One of them writes at a time; reads take a round trip and a fraction of a
/// millisecond. A server has 100 by default, for all that use it.
pub(super) const SERVER_CONNECTIONS: usize = 16;

/// The time that a query waits for one of [`SERVER_CONNECTIONS`]. With [`CONNECT_TIMEOUT`] and [`ANSWER_TIMEOUT`] behind
/// it, a caller has its answer or its error within 10 s.
pub(super) const TAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// The time that a connection to a server may take, with TLS and the password.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The time that a server may take for one statement: those of the store take milliseconds, and a listing of a hundred
/// thousand recordings a second.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// The time that a writer waits for the writers of its own process before it on a server: longer than
/// [`TX_TIMEOUT`], so that one that makes no progress is taken back first.
pub(super) const WRITE_TURN_TIMEOUT: Duration = Duration::from_millis(4_500);

/// The time that the beginning of a write takes at most behind its turn, with a connection and the server's lock.
pub(super) const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The time that the tables of a new version may take.
pub(super) const MIGRATION_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection that is not used for so long is closed: a firewall between may have forgotten it.
pub(super) const IDLE_CONNECTION: Duration = Duration::from_secs(120);

/// The relays of a cluster: as many as a device's roster names.
pub(super) const MAX_MEMBERS: usize = holdfast_protocol::limits::MAX_RELAYS;

/// A measurement of the server's clock that took longer says too little about it.
pub(super) const CLOCK_ROUND_TRIP: Duration = Duration::from_millis(500);

/// Bytes of rows that are copied from one database to another at a time: a commit takes some milliseconds, and copying so
/// much takes longer.
pub(super) const TRANSFER_BATCH: usize = 1024 * 1024;

/// The time that a server may take for one step of such a copy: emptying the tables of a large unfinished one is the
/// longest.
pub(super) const TRANSFER_STEP: Duration = Duration::from_secs(60);

/// Places of texts that could not be copied as they are, by name.
pub(super) const MAX_REPLACED_NAMED: usize = 8;

/// Bytes of a row's key in a sentence.
pub(super) const MAX_SHOWN_KEY: usize = 32;
