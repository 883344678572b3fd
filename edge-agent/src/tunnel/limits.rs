//! Bounds of the tunnel and of its QUIC connection, each with its reason.

use std::time::Duration;

use quinn::VarInt;

/// Bytes of datagrams that may wait in the socket's queue in the kernel: the relay's send window. The
/// kernel's default of 208 KiB loses every eighth packet of a bulk copy. It is memory only while it is used.
pub(crate) const RECEIVE_QUEUE: usize = 1024 * 1024;

/// Forwards that have the room of a whole stream of their own. When more than so many stand still at once, because
/// their targets read nothing, other streams may wait for them; a device of 64 MiB has no room for more.
pub(crate) const FORWARD_WINDOWS: u32 = 32;

/// Most bytes of one stream that may wait here unread: it holds the bandwidth-delay product of 20 Mbit/s
/// at 100 ms, and is small enough for a device with 64 MiB.
pub(crate) const STREAM_WINDOW: VarInt = VarInt::from_u32(512 * 1024);

/// Most bytes of all streams that may wait here unread, beside a [`STREAM_WINDOW`] for each session: sessions
/// whose processes read nothing must not hold up the others, nor the control stream.
pub(crate) const CONNECTION_WINDOW: VarInt = VarInt::from_u32(2 * 1024 * 1024);

/// Most bytes of all streams that wait for the relay's acknowledgement.
pub(crate) const SEND_WINDOW: u64 = 1024 * 1024;

/// Most streams that the relay may have open: one a session or forward, and some that are just ending.
pub(crate) const MAX_STREAMS: VarInt = VarInt::from_u32(768);

/// IP addresses of one relay that are tried.
pub(crate) const MAX_ADDRESSES: usize = 4;

/// Limits how long one IP address may take for its handshake, before the next is tried.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(4);

/// Bytes taken from the control stream at a time.
pub(crate) const CONTROL_READ: usize = 4 * 1024;

/// The control stream's priority: above every session's.
pub(crate) const CONTROL_PRIORITY: i32 = 100;

/// Events that may wait for the tunnel's driver.
pub(crate) const TUNNEL_EVENTS: usize = 32;

/// After a change of addresses or routes, the time in which more of them are taken as one.
pub(crate) const ADDRESS_SETTLE: Duration = Duration::from_millis(200);

/// A tunnel that is lost sooner counts as a failed attempt to dial, so that the pause before the next one
/// grows. Two devices with one key (a cloned card) take the tunnel from each other for ever: without it,
/// several times a second.
pub(crate) const STEADY_TUNNEL: Duration = Duration::from_secs(60);

/// Limits how long the first tunnel has to be heard again when a second one could be had.
pub(crate) const OLD_TUNNEL_GRACE: Duration = Duration::from_secs(2);

/// Limits how long `join` asks the relay whether a member still is one: several round trips of a slow link, and short
/// enough for a script that joins at each start.
pub(crate) const RECHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Limits how long the close of an old tunnel may take.
pub(crate) const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Tunnels that are kept beside the current one for the sessions over them. Relays are upgraded one after the other, each
/// in hours; a tunnel takes some 100 KiB.
pub(crate) const MAX_RETIRING: usize = 3;

/// The time for which a tunnel is kept that no session goes over: its relay may be about to open a stream, because it has
/// not learned yet that there is another one.
pub(crate) const RETIRE_GRACE: Duration = Duration::from_secs(5);

/// The longest time before another relay is dialled when one has closed the tunnel before the device has left it: it
/// stopped, and the others expect its devices.
pub(crate) const STOPPED_REDIAL: Duration = Duration::from_secs(1);
