//! From nothing to a tunnel that the relay has welcomed. It tries until it succeeds.

pub(super) mod streams;

use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt as _;
use holdfast_protocol::limits::DIAL_TIMEOUT;
use holdfast_protocol::tunnel::backoff::Backoff;
use holdfast_protocol::wire::{AgentMessage, Intent, RelayMessage, Welcome};
use smol::Timer;
use smol::channel::Sender;
use thiserror::Error;

use super::control::{self, ControlStreamError, RelayReceiver, RelaySender};
use super::dial::{DialError, DialledRelay, dial};
use super::{Agent, random};
use crate::recording::RecordingDevice;
use crate::tunnel::limits::OLD_TUNNEL_GRACE;
use crate::tunnel::membership::Membership;
use crate::tunnel::refusal::RelayRefusal;
use crate::tunnel::tls::Trust;
use crate::{info, warn};
use streams::OpenStreams;

/// An established tunnel.
#[derive(Debug)]
pub(super) struct EstablishedTunnel {
    pub dialled: DialledRelay,
    pub send: RelaySender,
    pub receive: RelayReceiver,
    pub welcome: Welcome,
    /// The relay's address as the roster names it.
    pub address: String,
    /// The streams that the relay has opened on it.
    pub streams: Arc<OpenStreams>,
}

/// The tunnel that a new one is to follow.
#[derive(Clone, Copy)]
pub(super) struct OlderTunnel<'a> {
    /// The address of its relay, which is tried last.
    pub address: &'a str,
    /// Its driver, if it is silent.
    pub silent: Option<&'a Sender<TunnelEvent>>,
}

/// An event that the driver of a tunnel reacts to.
pub(super) enum TunnelEvent {
    Message(Result<RelayMessage, ControlStreamError>),
    SessionsChanged,
    RoutesChanged,
    /// A relay has answered a second dial: a new tunnel could be had.
    Reached,
    Dialled(Box<EstablishedTunnel>),
    /// A tunnel to another relay is established, because this one's relay has sent the device away.
    Moved(Box<EstablishedTunnel>),
    /// No session goes over it any more.
    Unused,
    Closed(String),
    Timeout,
}

#[derive(Debug, Error)]
enum AttemptError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Control(#[from] ControlStreamError),
    #[error(transparent)]
    Refused(#[from] RelayRefusal),
    #[error("unexpected message from the relay")]
    Unexpected,
    #[error("no welcome from {0} in time")]
    Timeout(String),
}

/// Waits for `delay`, then tries each relay of the roster, again and again, with growing pauses.
///
/// `older` is the tunnel before. If that is silent, its driver is informed between the handshake with a relay and the
/// `Hello` with which the new tunnel takes the older one's place, and gets a last chance: a relay that answers shows that
/// there is a way to it again, and with the older tunnel its sessions would live on.
pub(super) async fn establish(
    agent: &Arc<Agent>,
    delay: Duration,
    older: Option<OlderTunnel<'_>>,
) -> EstablishedTunnel {
    let mut backoff = Backoff::default();
    Timer::after(delay).await;
    loop {
        // `edge-agent join` may have renewed it.
        if let Ok(Some(written)) = Membership::load(&agent.state) {
            agent.membership.lock().take_newer(&written);
        }
        let mut relays = agent.membership().roster().relays.clone();
        // Each device begins elsewhere, so that a fleet spreads over its relays.
        let offset = usize::try_from(random() % relays.len().max(1) as u64).unwrap_or(0);
        relays.rotate_left(offset);
        if let Some(older) = older {
            relays.sort_by_key(|relay| relay.address == older.address);
        }
        for relay in &relays {
            agent.status.connecting(&relay.address);
            let silent = older.and_then(|older| older.silent);
            match attempt(agent, &relay.address, silent).await {
                Ok(standing) => {
                    welcome(agent, &standing);
                    return standing;
                }
                Err(error) => report(agent, &backoff, &relay.address, &error),
            }
        }
        Timer::after(backoff.next_delay(random())).await;
    }
}

async fn attempt(
    agent: &Agent,
    address: &str,
    older: Option<&Sender<TunnelEvent>>,
) -> Result<EstablishedTunnel, AttemptError> {
    let late = async {
        Timer::after(DIAL_TIMEOUT).await;
        Err(AttemptError::Timeout(address.to_owned()))
    };
    attempt_once(agent, address, older).or(late).await
}

async fn attempt_once(
    agent: &Agent,
    address: &str,
    older: Option<&Sender<TunnelEvent>>,
) -> Result<EstablishedTunnel, AttemptError> {
    let pinned = agent
        .membership()
        .roster()
        .relays
        .iter()
        .map(|relay| relay.key)
        .collect();
    let dialled = dial(&agent.identity, Trust::Pinned(pinned), address).await?;
    if let Some(older) = older {
        let _ = older.send(TunnelEvent::Reached).await;
        Timer::after(OLD_TUNNEL_GRACE).await;
    }
    let (mut send, mut receive) = control::open(&dialled.connection, Intent::Run).await?;
    let keepalive = u16::try_from(agent.keepalive.as_secs()).unwrap_or(u16::MAX);
    send.send(&AgentMessage::Instance(agent.instance)).await?;
    send.send(&AgentMessage::Hello(control::hello(
        Intent::Run,
        &dialled,
        keepalive,
    )))
    .await?;
    match receive.next().await? {
        RelayMessage::Welcome(welcome) => {
            let address = address.to_owned();
            Ok(EstablishedTunnel {
                dialled,
                send,
                receive,
                welcome,
                address,
                streams: Arc::default(),
            })
        }
        RelayMessage::Refused(why) => Err(RelayRefusal(why).into()),
        _ => Err(AttemptError::Unexpected),
    }
}

/// Takes over what the relay's welcome brings, and reports that the tunnel is up.
fn welcome(agent: &Agent, standing: &EstablishedTunnel) {
    let welcome = &standing.welcome;
    let mut membership = agent.membership.lock();
    let newer_roster = membership.update_roster(&welcome.membership.roster);
    let newer_name = membership.update_name(&welcome.membership.name);
    if newer_roster || newer_name {
        // The tunnel is up whether or not the file can be written (a read-only root, a full disk).
        if let Err(error) = membership.save(&agent.state) {
            warn!("{error}");
        }
    }
    agent
        .sessions
        .recorder()
        .update(RecordingDevice::from(&*membership));
    info!(
        "tunnel up as {} to {} (generation {})",
        membership.name(),
        standing.address,
        welcome.generation.0
    );
    agent
        .status
        .connected(&standing.address, membership.name(), welcome);
}

/// Says why an attempt failed: the first, and then ever more rarely, because a log is on flash.
fn report(agent: &Agent, backoff: &Backoff, address: &str, error: &AttemptError) {
    let text = error.to_string();
    agent.status.failed(&text);
    if backoff.failures() == 0 || backoff.failures().is_power_of_two() {
        warn!("no tunnel to {address} yet: {text}; trying on");
    }
}
