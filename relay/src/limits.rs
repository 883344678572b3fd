//! The relay's bounds and timeouts that several layers share, each with its reason. All others are in the `limits.rs`
//! of the folder that owns them, which is the lowest one that uses them:
//! - `access/limits.rs`: access decisions
//! - `audit/limits.rs`: the audit log
//! - `bulk/limits.rs`: bulk commands
//! - `commands/limits.rs`: commands
//! - `config/limits.rs`: the configuration
//! - `model/limits.rs`: roles and their rules
//! - `recording/limits.rs`: recordings
//! - `session/limits.rs`: sessions and forwards
//! - `ssh/limits.rs`: the SSH front end
//! - `store/limits.rs`: what the store keeps
//! - `tunnel/limits.rs`: tunnels and their QUIC connections; `tunnel/peer/limits.rs`: links between relays
//! - `web/limits.rs`: answers over HTTP
//!
//! Those on which both ends of a tunnel must agree are in `holdfast_protocol::limits`.

use std::time::Duration;

/// Lines of the log that one source may cause in a [`LOG_WINDOW`] without a login or membership, of each kind.
pub(crate) const LOG_LINES_OF_SOURCE: u32 = 5;

/// The same of all sources.
pub(crate) const LOG_LINES: u32 = 100;

/// See [`LOG_LINES_OF_SOURCE`].
pub(crate) const LOG_WINDOW: Duration = Duration::from_secs(60);

/// The interval of the lines of the log about an outage of the database that lasts.
pub(crate) const OUTAGE_LINE: Duration = Duration::from_secs(60);

/// The pause after a connection that could not be accepted. Descriptors have run out, most likely: the next attempt would
/// fail at once, too.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The interval at which the store learns when devices were last heard, all of them in one transaction.
pub(crate) const PRESENCE_FLUSH: Duration = Duration::from_secs(5);

/// The interval of a relay's heartbeats where others may serve from the same database: one may be lost or late, and the
/// next comes well before it counts as dead.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(2);

/// A relay whose own heartbeats have come without a longer pause than this is able to judge those of others.
pub(crate) const HEARTBEAT_PAUSE: Duration = Duration::from_secs(5);

/// A step of the database's clock by more than this is another clock, as after a fail-over: the heartbeats before it say
/// nothing.
pub(crate) const CLOCK_STEP: Duration = Duration::from_secs(1);

/// The interval at which the relay looks whether an admin command has changed the store.
pub(crate) const STORE_POLL: Duration = Duration::from_millis(250);

/// The time that a look-up in the store may take on a path that a user waits on.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// The time that the final status of a session may take to reach the operator.
pub(crate) const FINAL_STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// Milliseconds after which a device dials again when the relay stops, before its own jitter.
pub(crate) const DRAIN_REDIAL: u32 = 500;

/// The time for which a stored heartbeat lets bytes pass. A relay without one for 10 s counts as dead: two seconds less
/// leave room for clocks that differ, and for what is under way.
pub(crate) const STORE_HOLD: Duration = Duration::from_secs(8);

/// The time by which a process that was not stopped is late at most when it notices that the store is lost.
pub(crate) const STORE_LAG: Duration = Duration::from_secs(1);

/// The time for which sessions wait for the store: longer than a restart of its server or a fail-over takes, and as long
/// as an operator waits.
pub(crate) const STORE_PATIENCE: Duration = Duration::from_secs(60);

/// The interval at which it is looked whether the store is lost, for what is said of it. Bytes are held up at once.
pub(crate) const FENCE_LOOK: Duration = Duration::from_millis(250);
