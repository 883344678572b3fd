//! The driver of an established tunnel: one loop over events, timeouts and actions.

pub(super) mod retiring;

use crate::os::clock;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::FutureExt as _;
use holdfast_protocol::tunnel::link::{Link, LinkAction};
use holdfast_protocol::wire::{AgentMessage, RelayMessage};
use quinn::VarInt;
use smol::channel::{self, Receiver, Sender};
use smol::{Task, Timer};

use super::address;
use super::control::ControlStreamError;
use super::dial::{bind_for, source_address};
use super::establish::streams::OpenStreams;
use super::establish::{EstablishedTunnel, OlderTunnel, TunnelEvent, establish};
use super::{Agent, random};
use crate::os::runtime;
use crate::recording::RecordingDevice;
use crate::recording::upload::{self, UPLOAD_MINOR};
use crate::tunnel::limits::{
    CONNECTION_WINDOW, FORWARD_WINDOWS, RETIRE_GRACE, STOPPED_REDIAL, STREAM_WINDOW, TUNNEL_EVENTS,
};
use crate::{info, warn};

/// Describes how a tunnel ended.
#[derive(Debug)]
pub(super) enum TunnelEnd {
    /// It is gone, for this reason.
    Lost(String),
    /// The relay stops; dial again after this.
    Drained(Duration),
    /// A newer one is established.
    Replaced(Box<EstablishedTunnel>),
    /// A newer one is established at another relay, and this one is kept for the sessions over it.
    Moved(Box<EstablishedTunnel>),
    /// It was kept for sessions, and none goes over it any more.
    Unused,
}

/// The purpose of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TunnelRole {
    /// The device is reached by it.
    Current,
    /// It is kept for the sessions over it, beside the current one.
    Retiring,
}

struct TunnelDriver<'a> {
    agent: &'a Arc<Agent>,
    link: Link,
    began: Instant,
    /// Datagrams received so far: any more of them mean that the relay was heard.
    datagrams: u64,
    source: Option<std::net::IpAddr>,
    role: TunnelRole,
    /// The relay stops or drains: when it has closed the tunnel, the next is dialled after this.
    drained: Option<Duration>,
    events: Sender<TunnelEvent>,
    dialling: Option<Task<()>>,
    /// Dials another relay, because this one sends the device away.
    moving: Option<Task<()>>,
}

/// Drives a tunnel to its end.
pub(super) async fn drive(
    agent: &Arc<Agent>,
    standing: &mut EstablishedTunnel,
    role: TunnelRole,
) -> TunnelEnd {
    let (events, inbox) = channel::bounded(TUNNEL_EVENTS);
    let connection = standing.dialled.connection.clone();
    // Dropping these tasks at the end of this function cancels them.
    let _tasks = [
        runtime::spawn(accept_sessions(
            agent.clone(),
            connection.clone(),
            standing.streams.clone(),
        )),
        runtime::spawn(watch_sessions(agent.clone(), events.clone())),
        runtime::spawn(watch_routes(events.clone())),
        runtime::spawn(watch_close(connection.clone(), events.clone())),
    ];
    let recorder = Arc::clone(agent.sessions.recorder());
    let minor = standing.welcome.minor;
    let is_current = role == TunnelRole::Current;
    let _unused = (!is_current)
        .then(|| runtime::spawn(watch_unused(standing.streams.clone(), events.clone())));
    let _upload = (is_current && minor >= UPLOAD_MINOR)
        .then(|| runtime::spawn(upload::run(recorder, connection.clone(), minor)));
    let mut driver = TunnelDriver {
        agent,
        link: Link::new(Duration::ZERO, agent.keepalive),
        began: clock::instant(),
        datagrams: connection.stats().udp_rx.datagrams,
        source: source_address(connection.remote_address()).map(|address| address.ip()),
        role,
        drained: None,
        events,
        dialling: None,
        moving: None,
    };
    let relays = agent.membership().roster().relays.len();
    driver.link.handle_roster(relays);
    driver.count_sessions(standing);
    loop {
        let event = driver.next_event(standing, &inbox).await;
        driver.notice_heard(standing);
        if let Some(end) = driver.handle(event, standing) {
            return driver.end(end);
        }
        if let Err(error) = driver.act(standing).await {
            return driver.end(TunnelEnd::Lost(error.to_string()));
        }
    }
}

impl TunnelDriver<'_> {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    async fn next_event(
        &self,
        standing: &mut EstablishedTunnel,
        inbox: &Receiver<TunnelEvent>,
    ) -> TunnelEvent {
        let timeout = async {
            Timer::at(self.began + self.link.poll_timeout()).await;
            TunnelEvent::Timeout
        };
        let message = async { TunnelEvent::Message(standing.receive.next().await) };
        let other = async {
            match inbox.recv().await {
                Ok(event) => event,
                // The driver holds a sender: the channel cannot close.
                Err(_) => std::future::pending().await,
            }
        };
        message.or(other).or(timeout).await
    }

    fn count_sessions(&mut self, standing: &EstablishedTunnel) {
        let (sessions, forwards) = (self.agent.sessions.live(), self.agent.sessions.forwards());
        self.link.handle_sessions(sessions.saturating_add(forwards));
        let roomy = sessions.saturating_add(forwards.min(FORWARD_WINDOWS));
        standing
            .dialled
            .connection
            .set_receive_window(connection_window(roomy));
    }

    /// Asks quinn whether anything came, acknowledgements included.
    fn notice_heard(&mut self, standing: &EstablishedTunnel) {
        let datagrams = standing.dialled.connection.stats().udp_rx.datagrams;
        if datagrams > self.datagrams {
            self.datagrams = datagrams;
            self.link.handle_heard();
        }
    }

    fn handle(
        &mut self,
        event: TunnelEvent,
        standing: &mut EstablishedTunnel,
    ) -> Option<TunnelEnd> {
        let now = self.now();
        match event {
            TunnelEvent::Timeout => self.link.handle_timeout(now),
            TunnelEvent::SessionsChanged => self.count_sessions(standing),
            TunnelEvent::RoutesChanged => {
                let to = standing.dialled.connection.remote_address();
                let source = source_address(to).map(|address| address.ip());
                if source.is_some() && source != self.source {
                    self.source = source;
                    self.link.handle_address_change(now);
                } else {
                    self.link.handle_route_change(now);
                }
            }
            TunnelEvent::Reached => self.link.handle_address_change(now),
            TunnelEvent::Dialled(newer) => return Some(TunnelEnd::Replaced(newer)),
            TunnelEvent::Moved(newer) => return Some(TunnelEnd::Moved(newer)),
            TunnelEvent::Unused => return Some(TunnelEnd::Unused),
            TunnelEvent::Closed(why) => return Some(TunnelEnd::Lost(why)),
            TunnelEvent::Message(Ok(message)) => {
                return self.handle_message(message, &standing.address);
            }
            TunnelEvent::Message(Err(error)) => return Some(TunnelEnd::Lost(error.to_string())),
        }
        None
    }

    fn handle_message(&mut self, message: RelayMessage, relay: &str) -> Option<TunnelEnd> {
        match message {
            RelayMessage::Drain(millis) => {
                let after = Duration::from_millis(millis.into());
                if self.role == TunnelRole::Retiring {
                    return None;
                }
                self.drained = Some(after);
                if self.agent.membership().roster().relays.len() > 1 {
                    self.move_away(after, relay);
                } else {
                    // There is no other relay to dial, and the sessions on this tunnel have their time yet.
                    info!("the relay is about to stop");
                }
                None
            }
            RelayMessage::Refused(why) => Some(TunnelEnd::Lost(
                crate::tunnel::refusal::RelayRefusal(why).to_string(),
            )),
            RelayMessage::Roster(roster) => {
                let mut membership = self.agent.membership.lock();
                if membership.update_roster(&roster) {
                    self.link.handle_roster(membership.roster().relays.len());
                    let device = RecordingDevice::from(&*membership);
                    self.agent.sessions.recorder().update(device);
                    if let Err(error) = membership.save(&self.agent.state) {
                        warn!("{error}");
                    }
                }
                None
            }
            RelayMessage::Renamed(name) => {
                let mut membership = self.agent.membership.lock();
                if membership.update_name(&name) {
                    info!("the device is called {name} now");
                    self.agent.status.renamed(&name);
                    let device = RecordingDevice::from(&*membership);
                    self.agent.sessions.recorder().update(device);
                    if let Err(error) = membership.save(&self.agent.state) {
                        warn!("{error}");
                    }
                }
                None
            }
            // An echo has done its work by coming. The others are never due on a tunnel.
            RelayMessage::Echo
            | RelayMessage::Identity(_)
            | RelayMessage::Enrolled(_)
            | RelayMessage::Welcome(_)
            | RelayMessage::EnrolledRelay(_)
            | RelayMessage::ReleaseKey(_) => None,
        }
    }

    /// Returns how the tunnel ends: one that was lost to a stopping relay ended in good order.
    fn end(&self, end: TunnelEnd) -> TunnelEnd {
        match (end, self.drained) {
            (TunnelEnd::Lost(_), Some(after)) => TunnelEnd::Drained(after.min(STOPPED_REDIAL)),
            (end, _) => end,
        }
    }

    async fn act(&mut self, standing: &mut EstablishedTunnel) -> Result<(), ControlStreamError> {
        while let Some(action) = self.link.poll_action() {
            match action {
                LinkAction::Beat(beat) => standing.send.offer(&AgentMessage::Beat(beat)).await?,
                LinkAction::Rebind => self.rebind(standing),
                LinkAction::Dial if self.role == TunnelRole::Retiring => {}
                LinkAction::Dial => self.dial(&standing.address),
                LinkAction::StopDialling => self.dialling = None,
            }
        }
        Ok(())
    }

    fn rebind(&mut self, standing: &EstablishedTunnel) {
        let to = standing.dialled.connection.remote_address();
        self.source = source_address(to).map(|address| address.ip());
        let rebound = bind_for(to).and_then(|socket| standing.dialled.endpoint.rebind(socket));
        match rebound {
            Ok(()) => info!("the path is silent: socket rebound"),
            Err(error) => warn!("cannot rebind the socket: {error}"),
        }
    }

    /// Dials a second tunnel beside this one. It gives up only when it is cancelled.
    fn dial(&mut self, silent: &str) {
        info!("the path stays silent: dialling a second tunnel");
        let (agent, events) = (self.agent.clone(), self.events.clone());
        let silent = silent.to_owned();
        self.dialling = Some(runtime::spawn(async move {
            let older = OlderTunnel {
                address: &silent,
                silent: Some(&events),
            };
            let standing = establish(&agent, Duration::ZERO, Some(older)).await;
            let _ = events.send(TunnelEvent::Dialled(Box::new(standing))).await;
        }));
    }

    /// Dials another relay after so long and some jitter. This tunnel goes on until that one is established.
    fn move_away(&mut self, after: Duration, from: &str) {
        if self.moving.is_some() {
            return;
        }
        let delay = after + after.mul_f64(random() as f64 / u64::MAX as f64);
        info!(
            "the relay sends its devices away: dialling another one in {} ms",
            delay.as_millis()
        );
        let (agent, events) = (self.agent.clone(), self.events.clone());
        let from = from.to_owned();
        self.moving = Some(runtime::spawn(async move {
            let older = OlderTunnel {
                address: &from,
                silent: None,
            };
            let standing = establish(&agent, delay, Some(older)).await;
            let _ = events.send(TunnelEvent::Moved(Box::new(standing))).await;
        }));
    }
}

/// Returns the connection's window, in which `roomy` streams have the room of a whole stream each.
fn connection_window(roomy: u32) -> VarInt {
    let window = u64::from(roomy) * STREAM_WINDOW.into_inner() + CONNECTION_WINDOW.into_inner();
    // So many sessions that it is no varint are far beyond any device.
    VarInt::from_u64(window).unwrap_or(VarInt::MAX)
}

/// Serves each stream that the relay opens. Sessions are tasks of their own: they outlive this one.
async fn accept_sessions(
    agent: Arc<Agent>,
    connection: quinn::Connection,
    streams: Arc<OpenStreams>,
) {
    while let Ok((send, receive)) = connection.accept_bi().await {
        let (sessions, stream) = (agent.sessions.clone(), streams.enter());
        let served = async move {
            sessions.serve(send, receive).await;
            drop(stream);
        };
        runtime::spawn(served).detach();
    }
}

/// Says when no session has gone over the tunnel for a while.
async fn watch_unused(streams: Arc<OpenStreams>, events: Sender<TunnelEvent>) {
    loop {
        streams.empty().await;
        Timer::after(RETIRE_GRACE).await;
        if streams.is_empty() {
            let _ = events.send(TunnelEvent::Unused).await;
            return;
        }
    }
}

async fn watch_sessions(agent: Arc<Agent>, events: Sender<TunnelEvent>) {
    loop {
        agent.sessions.changed().await;
        if events.send(TunnelEvent::SessionsChanged).await.is_err() {
            return;
        }
    }
}

async fn watch_routes(events: Sender<TunnelEvent>) {
    let mut watcher = match address::Watcher::new() {
        Ok(watcher) => watcher,
        Err(error) => {
            // Without the kernel's word, an unanswered beat tells: later, but as surely.
            warn!("cannot watch for address changes: {error}");
            return;
        }
    };
    while watcher.changed().await.is_ok() {
        if events.send(TunnelEvent::RoutesChanged).await.is_err() {
            return;
        }
    }
}

async fn watch_close(connection: quinn::Connection, events: Sender<TunnelEvent>) {
    let why = connection.closed().await;
    let _ = events.send(TunnelEvent::Closed(why.to_string())).await;
}
