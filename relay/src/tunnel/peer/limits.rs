//! Bounds of the links between relays, each with its reason.

use std::time::Duration;

/// Attempts to find the route to a device: one that is about to come to another relay is there a moment later, and one more
/// notices a link that is dead.
pub(crate) const ROUTE_ATTEMPTS: usize = 3;

/// The pause between them.
pub(crate) const ROUTE_PAUSE: Duration = Duration::from_millis(50);

/// Links from one member at a time: the one in use, and those that it has lost and that are not noticed yet.
pub(crate) const MAX_LINKS_OF_MEMBER: usize = 4;

/// Streams that a member may have open on one link: all sessions and forwards of a busy relay.
pub(crate) const MAX_PEER_STREAMS: u32 = 16_384;

/// Most bytes of one link that wait for the other relay's acknowledgement: a gigabit over 130 ms.
pub(crate) const PEER_SEND_WINDOW: u64 = 16 * 1024 * 1024;

/// A link without a word for so long is gone, and with it the sessions across: longer than a machine pauses that is
/// moved or saved, and shorter than an operator waits.
pub(crate) const PEER_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Sets how often an idle link is heard: several times within [`PEER_IDLE_TIMEOUT`].
pub(crate) const PEER_KEEPALIVE: Duration = Duration::from_secs(5);

/// Limits how long one attempt to dial a relay may take, handshake and welcome together. A login may wait for one
/// attempt of another login, or for an answer on a link that is dead, and then for its own.
pub(crate) const PEER_DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The time that a relay may take to say what it knows of a tunnel.
pub(crate) const PEER_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The time for which an answer proves that a link is alive: a login that begins later asks again, so that it does not
/// wait for a relay that is gone.
pub(crate) const PEER_PROVEN: Duration = Duration::from_secs(1);

/// The time that a relay which has opened a stream may take to say what it is for.
pub(crate) const PEER_OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// The time that a stream waits while the device has as many as it takes: as long as a session waits for it.
pub(crate) const PEER_STREAM_TIMEOUT: Duration = Duration::from_secs(30);

/// First and longest time after a failed attempt within which a relay is not dialled again.
pub(crate) const PEER_REDIAL: Duration = Duration::from_millis(250);
/// See [`PEER_REDIAL`]: an operator tries again in a few seconds.
pub(crate) const MAX_PEER_REDIAL: Duration = Duration::from_secs(2);

/// The interval at which the other relay learns that a device was heard.
pub(crate) const PEER_HEARD: Duration = Duration::from_secs(1);

/// The interval at which who waits for many devices looks which of them other relays have: one SELECT, of as many rows as
/// they have devices.
pub(crate) const ELSEWHERE_POLL: Duration = Duration::from_secs(1);

/// Priority of streams with a terminal over those without.
pub(crate) const INTERACTIVE_PRIORITY: i32 = 10;
