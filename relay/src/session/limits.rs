//! Bounds of sessions and forwards, each with its reason.

use std::time::Duration;

/// The time for which a decision may be used without a new look at the version of access, by what the enforcement of a
/// change finds already. [`STORE_POLL`](crate::limits::STORE_POLL) bounds it where the store answers; this is for where
/// it does not.
pub(crate) const DECISION_FRESH: Duration = Duration::from_secs(5);

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

/// Data of one channel that is gathered into one SSH packet.
pub(crate) const SPLICE_BUFFER: usize = 32 * 1024;

/// The silence after which a terminal reports that its device does not answer.
pub(crate) const SILENCE_NOTICE: Duration = Duration::from_secs(12);

/// The interval at which a session looks whether its device is silent.
pub(crate) const SILENCE_POLL: Duration = Duration::from_secs(1);

/// The time that a device may take to accept or refuse a session.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(30);

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

/// The shortest interval at which the store learns that a session began or ended.
pub(crate) const REGISTRY_FLUSH: Duration = Duration::from_millis(100);

/// The interval at which the store learns what moved through the live sessions, all of them in one transaction.
pub(crate) const TRAFFIC_FLUSH: Duration = Duration::from_secs(1);

/// The time that the sessions that a lock matches may take to let go of their device, before the relay looks again.
/// It takes no more than a turn of their tasks.
pub(crate) const ENFORCE_TIMEOUT: Duration = Duration::from_secs(2);

/// Files of one SFTP session that the device is closing while their client has its answer already: as many as it may
/// have open.
pub(crate) const MAX_SFTP_CLOSING: usize = 1024;

/// The time that a packet may be under way before it is taken for lost: a lock is to be acknowledged within a second.
pub(crate) const MAX_ARRIVAL: Duration = Duration::from_millis(500);

/// Pieces of one session's output that wait to be shown, of at most [`SPLICE_BUFFER`] each: above it, the device waits.
pub(crate) const BULK_PIECES: usize = 4;

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

/// The interval at which a relay that drains looks what is left: an administrator waits for the end.
pub(crate) const DRAIN_TICK: Duration = Duration::from_secs(1);

/// Devices in a second that a relay which drains sends to the others: as many as dial at once without filling the places
/// for handshakes.
pub(crate) const DRAIN_RATE: usize = 500;

/// The longest time in milliseconds after which a device is sent away. It goes within twice that, and dials in 10 s: it is
/// gone within 75 s.
pub(crate) const MAX_DRAIN_SPREAD: u32 = 30_000;

/// After the deadline of a drain, the time in which the relays of operators end sessions over its tunnels with a
/// sentence, before the tunnels are closed.
pub(crate) const DRAIN_CLOSE: Duration = Duration::from_secs(5);
