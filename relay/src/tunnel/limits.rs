//! Bounds of tunnels and their QUIC connections, each with its reason.

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

/// Addresses whose connection id is noted: more than a relay has tunnels, so that senders without one crowd out no
/// device.
pub(crate) const MAX_NOTED_IDS: usize = 262_144;

/// Addresses beyond twice the tunnels that may be noted before the others are forgotten: handshakes that are under way.
pub(crate) const NOTED_IDS_SLACK: usize = 4_096;

/// The time that a connection may take from its first packet to its `Hello`.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Limits how long a relay that was only looked for is waited for after the end was said: one round trip is enough, and
/// nothing is lost without it.
pub(crate) const HANG_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// The time that a device that joins may take for each further message.
pub(crate) const ENROL_TIMEOUT: Duration = Duration::from_secs(10);

/// Devices that join at a time. Each waits up to [`ENROL_TIMEOUT`] and costs some 40 KiB; those beyond are asked to try
/// again.
pub(crate) const MAX_JOINS: usize = 512;

/// The same of one source, an IPv4 address or an IPv6 /64: a join takes some milliseconds, so that a whole site behind
/// one address gets through.
pub(crate) const MAX_JOINS_OF_SOURCE: usize = 64;

/// Bytes taken from a control stream at a time.
pub(crate) const CONTROL_READ: usize = 4 * 1024;

/// Messages for one device's control stream that may wait. They are rosters, echoes and a final status; when
/// more wait, the device does not read, and an echo more or less changes nothing.
pub(crate) const CONTROL_QUEUE: usize = 8;

/// The control stream's priority: above every session's.
pub(crate) const CONTROL_PRIORITY: i32 = 100;

/// The number of times that a run of an agent has come back, after another one had followed it, before the two are two
/// machines: once may be a message that was under way on a slow path.
pub(crate) const CLONE_RETURNS: u8 = 2;

/// Runs of a device's agent that are remembered: more than machines that share one key by accident.
pub(crate) const MAX_CLONE_RUNS: usize = 8;

/// The interval at which it is written down that a device is two machines.
pub(crate) const CLONE_NOTE: Duration = Duration::from_secs(60);

/// The time for which a tunnel is kept whose device has gone to another relay, even if nothing goes over it: an operator
/// whose client has found it before is about to begin.
pub(crate) const KEPT_UNUSED: Duration = Duration::from_secs(5);
