//! The tunnels that stand. The newest of a device wins, and the clean-up of an older one cannot remove
//! its successor.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock};
use std::time::Duration;

use holdfast_protocol::ids::{DeviceId, DeviceName, Generation};
use holdfast_protocol::limits::{
    DRAIN_MINOR, MAX_KEEPALIVE, MIN_KEEPALIVE, MINOR_VERSION, STALE_KEEPALIVES,
};
use holdfast_protocol::tunnel::congestion::quinn::lift_for_close;
use holdfast_protocol::wire::{CloseCode, Hello, RelayMessage};
use quinn::{Connection, VarInt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::clones::Run;
use crate::audit::DeviceFacts;
use crate::clock::{self, Timestamp};
use crate::store::{Device, TunnelId};
use crate::sync::Mutex;
use crate::tunnel::limits::{CONNECTION_WINDOW, FORWARD_WINDOWS, KEPT_UNUSED, STREAM_WINDOW};

/// An established tunnel.
pub(crate) struct Tunnel {
    /// The device.
    pub device: DeviceId,
    /// Orders the tunnels of this device.
    pub generation: Generation,
    /// The minor version that both ends speak.
    pub minor: u16,
    /// The QUIC connection.
    pub connection: Connection,
    /// The address that the device sends from, before any NAT, as it says.
    pub local_address: Option<SocketAddr>,
    /// The seconds by which its clock was ahead of ours when it said `Hello`.
    pub clock_skew: i64,
    /// The run of the agent that holds it; an older agent does not say.
    pub run: Option<Run>,
    /// The time at which it was welcomed: before any session on it began.
    pub opened: Timestamp,
    /// The time that the device may be silent before it does not count as there.
    pub stale_after: Duration,
    control: mpsc::Sender<RelayMessage>,
    heard: AtomicI64,
    /// Datagrams received when the device was last heard.
    datagrams: AtomicU64,
    sessions: AtomicU32,
    forwards: AtomicU32,
    /// Ports that the device listens on over this tunnel.
    listeners: AtomicU32,
    /// True if it is the one by which its device is reached: registered, and not replaced.
    is_current: AtomicBool,
    /// Since when it is kept for the sessions over it, because its device has a newer one at another relay.
    kept: OnceLock<Instant>,
    /// The name that the device knows it has.
    name: Mutex<DeviceName>,
    /// The connection id that the store knows.
    stored_id: Mutex<Option<TunnelId>>,
}

/// All tunnels of this relay, by device.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    tunnels: Mutex<HashMap<DeviceId, Arc<Tunnel>>>,
    /// Those whose devices have gone to another relay, for the sessions over them. None of them is in `tunnels`.
    kept: Mutex<Vec<Arc<Tunnel>>>,
}

/// Counts a session on its tunnel for as long as it lives.
#[derive(Debug)]
pub(crate) struct SessionCount(Arc<Tunnel>);

/// Counts a forward in the same way.
#[derive(Debug)]
pub(crate) struct ForwardCount(Arc<Tunnel>);

/// Counts a port in the same way.
#[derive(Debug)]
pub(crate) struct ListenerCount(Arc<Tunnel>);

impl Tunnel {
    /// Returns its device as the audit log names it.
    #[must_use]
    pub(crate) fn facts_of(&self, device: &Device) -> DeviceFacts {
        DeviceFacts {
            address: self.local_address,
            clock_skew: Some(self.clock_skew),
            ..DeviceFacts::of(device)
        }
    }

    /// Creates a tunnel that was just welcomed, and the queue of messages for its control stream.
    #[must_use]
    pub(crate) fn new(
        (device, name): (DeviceId, DeviceName),
        generation: Generation,
        connection: Connection,
        hello: &Hello,
        run: Option<Run>,
        control: mpsc::Sender<RelayMessage>,
    ) -> Arc<Self> {
        // What a peer says of its own pauses counts within the bounds of the protocol.
        let keepalive = Duration::from_secs(hello.keepalive_secs.into());
        let keepalive = keepalive.clamp(MIN_KEEPALIVE, MAX_KEEPALIVE);
        Arc::new(Self {
            device,
            generation,
            minor: MINOR_VERSION.min(hello.minor),
            connection,
            local_address: hello.local_address,
            clock_skew: Timestamp::now().skew_of(hello.clock),
            run,
            opened: Timestamp::now(),
            stale_after: keepalive.saturating_mul(STALE_KEEPALIVES),
            control,
            heard: AtomicI64::new(Timestamp::now().0),
            datagrams: AtomicU64::new(0),
            sessions: AtomicU32::new(0),
            forwards: AtomicU32::new(0),
            listeners: AtomicU32::new(0),
            is_current: AtomicBool::new(false),
            kept: OnceLock::new(),
            name: Mutex::new(name),
            stored_id: Mutex::default(),
        })
    }

    /// Returns the connection id of the device that the store knows.
    #[must_use]
    pub(crate) fn stored_id(&self) -> Option<TunnelId> {
        *self.lock_id()
    }

    /// Notes which one it knows.
    pub(crate) fn set_stored_id(&self, id: Option<TunnelId>) {
        *self.lock_id() = id;
    }

    fn lock_id(&self) -> MutexGuard<'_, Option<TunnelId>> {
        self.stored_id.lock()
    }

    /// Returns when the device was last heard, as far as anybody looked: any datagram counts, because an agent
    /// whose data is acknowledged has no need to beat. Look at least once a keepalive.
    #[must_use]
    pub(crate) fn heard(&self) -> Timestamp {
        let datagrams = self.connection.stats().udp_rx.datagrams;
        if self.datagrams.swap(datagrams, Ordering::Relaxed) != datagrams {
            self.heard.store(Timestamp::now().0, Ordering::Relaxed);
        }
        Timestamp(self.heard.load(Ordering::Relaxed))
    }

    /// Returns how long the device has been silent.
    #[must_use]
    pub(crate) fn silence(&self) -> Duration {
        Timestamp::now().since(self.heard())
    }

    /// Returns the run that holds it, if the device answers.
    #[must_use]
    pub(crate) fn holder(&self) -> Option<Run> {
        self.run.filter(|_| self.silence() < self.stale_after)
    }

    /// Counts one more session, until the value is dropped.
    #[must_use]
    pub(crate) fn count_session(self: &Arc<Self>) -> SessionCount {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.set_window();
        SessionCount(self.clone())
    }

    /// Counts one more forward, until the value is dropped.
    #[must_use]
    pub(crate) fn count_forward(self: &Arc<Self>) -> ForwardCount {
        self.forwards.fetch_add(1, Ordering::Relaxed);
        self.set_window();
        ForwardCount(self.clone())
    }

    /// Counts one more port that the device listens on, until the value is dropped.
    #[must_use]
    pub(crate) fn count_listener(self: &Arc<Self>) -> ListenerCount {
        self.listeners.fetch_add(1, Ordering::Relaxed);
        ListenerCount(self.clone())
    }

    /// Gives every session the room of a whole stream beside the tunnel's own: what is full of sessions
    /// whose clients do not read must not hold up the others, nor the control stream. Of forwards, which are many,
    /// only some have that room.
    fn set_window(&self) {
        let forwards = self.forwards.load(Ordering::Relaxed).min(FORWARD_WINDOWS);
        let roomy = self.sessions().saturating_add(forwards);
        let window = roomy.saturating_mul(STREAM_WINDOW);
        let window = window.saturating_add(CONNECTION_WINDOW);
        self.connection.set_receive_window(VarInt::from_u32(window));
    }

    /// Returns the number of live sessions on this tunnel.
    #[must_use]
    pub(crate) fn sessions(&self) -> u32 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Returns whether its device is reached by it: it is registered, and no newer one has taken its place.
    #[must_use]
    pub(crate) fn is_current(&self) -> bool {
        self.is_current.load(Ordering::Relaxed)
    }

    /// Returns whether it is kept for the sessions over it alone, because its device has gone to another relay.
    #[must_use]
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.get().is_some()
    }

    /// Returns whether nothing goes over it: no session, forward or listener.
    #[must_use]
    pub(crate) fn is_unused(&self) -> bool {
        let idle = |count: &AtomicU32| count.load(Ordering::Relaxed) == 0;
        [&self.sessions, &self.forwards, &self.listeners]
            .into_iter()
            .all(idle)
    }

    /// Returns whether its device may be sent to another relay now: an older agent would drop what runs over the tunnel.
    #[must_use]
    pub(crate) fn may_be_sent_away(&self) -> bool {
        self.minor >= DRAIN_MINOR || self.is_unused()
    }

    /// Returns whether it is kept for nothing: a session that found it before it was kept has begun by now.
    #[must_use]
    pub(crate) fn is_needless(&self) -> bool {
        let settled = self
            .kept
            .get()
            .is_some_and(|since| since.elapsed() >= KEPT_UNUSED);
        settled && self.is_unused()
    }

    /// Queues a message for the device; says whether there was room.
    pub(crate) fn try_tell(&self, message: RelayMessage) -> bool {
        self.control.try_send(message).is_ok()
    }

    /// Queues a message for the device; drops it if the device does not read.
    pub(crate) fn tell(&self, message: RelayMessage) {
        let _ = self.control.try_send(message);
    }

    /// Queues the device's name for it, if it is another one than it knows.
    pub(crate) fn rename(&self, name: &DeviceName) {
        let mut known = self.name.lock();
        if *known != *name
            && self
                .control
                .try_send(RelayMessage::Renamed(name.clone()))
                .is_ok()
        {
            *known = name.clone();
        }
    }

    /// Closes the tunnel at once.
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        lift_for_close(self.connection.congestion_state());
        self.connection
            .close((code as u32).into(), reason.as_bytes());
    }
}

impl Drop for SessionCount {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
        self.0.set_window();
    }
}

impl Drop for ForwardCount {
    fn drop(&mut self) {
        self.0.forwards.fetch_sub(1, Ordering::Relaxed);
        self.0.set_window();
    }
}

impl Drop for ListenerCount {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Registry {
    /// Puts a tunnel in place of an older one of the same device, which is returned for closing. If a
    /// newer one is there already, it stays, and the given one is returned.
    pub(crate) fn insert(&self, tunnel: Arc<Tunnel>) -> Option<Arc<Tunnel>> {
        let mut tunnels = self.lock();
        match tunnels.get(&tunnel.device) {
            Some(present) if present.generation > tunnel.generation => Some(tunnel),
            _ => {
                tunnel.is_current.store(true, Ordering::Relaxed);
                let older = tunnels.insert(tunnel.device, tunnel);
                if let Some(older) = &older {
                    older.is_current.store(false, Ordering::Relaxed);
                }
                older
            }
        }
    }

    /// Keeps a tunnel whose device has gone to another relay for the sessions over it: nothing new finds it.
    pub(crate) fn keep(&self, tunnel: &Arc<Tunnel>) {
        let _ = tunnel.kept.set(clock::instant());
        self.kept.lock().push(tunnel.clone());
        self.remove_current(tunnel);
    }

    /// Returns the tunnels that are kept.
    #[must_use]
    pub(crate) fn kept(&self) -> Vec<Arc<Tunnel>> {
        let mut kept = self.kept.lock();
        // One that was lost in the moment in which it was kept is forgotten here.
        kept.retain(|tunnel| tunnel.connection.close_reason().is_none());
        kept.clone()
    }

    /// Removes a tunnel, if it is kept or still the current one.
    pub(crate) fn remove(&self, tunnel: &Tunnel) {
        let is_it = |kept: &Arc<Tunnel>| {
            kept.device == tunnel.device && kept.generation == tunnel.generation
        };
        self.kept.lock().retain(|kept| !is_it(kept));
        self.remove_current(tunnel);
    }

    fn remove_current(&self, tunnel: &Tunnel) {
        let mut tunnels = self.lock();
        if tunnels
            .get(&tunnel.device)
            .is_some_and(|present| present.generation == tunnel.generation)
        {
            tunnel.is_current.store(false, Ordering::Relaxed);
            tunnels.remove(&tunnel.device);
        }
    }

    /// Returns the tunnel of a device.
    #[must_use]
    pub(crate) fn get(&self, device: DeviceId) -> Option<Arc<Tunnel>> {
        self.lock().get(&device).cloned()
    }

    /// Returns every tunnel.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<Arc<Tunnel>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, Arc<Tunnel>>> {
        self.tunnels.lock()
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("device", &self.device)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
