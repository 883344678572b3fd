//! The tunnel of a member: welcomed, heard, and at last gone.

use std::sync::Arc;

use holdfast_protocol::ids::PublicKey;
use holdfast_protocol::tunnel::control::ControlViolation;
use holdfast_protocol::wire::{
    AgentMessage, Beat, CloseCode, MembershipGrant, Refusal, RelayMessage, Welcome,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Tunnels;
use super::clones::Run;
use super::control::{ControlError, ControlReceiver, ControlSender, DialingDevice, refuse};
use super::registry::Tunnel;
use crate::audit::{CLOCK_SKEW, DeviceFacts, Event, EventKind};
use crate::clock::Timestamp;
use crate::limits::STORE_TIMEOUT;
use crate::log_limit::{self, LimitedLine};
use crate::store::{Device, Durability, StoreError, TunnelFacts};
use crate::tunnel::limits::CONTROL_QUEUE;

/// Serves a connection that wants to stand as a tunnel, to its end.
///
/// # Errors
/// [`ControlError`]: how the tunnel ended.
pub(crate) async fn run(
    tunnels: &Arc<Tunnels>,
    mut caller: DialingDevice,
) -> Result<(), ControlError> {
    if tunnels.drains.is_own() {
        refuse(caller, Refusal::Unavailable).await;
        return Ok(());
    }
    let device = match known(tunnels, caller.key).await {
        Ok(device) => device,
        Err(why) => {
            refuse(caller, why).await;
            return Ok(());
        }
    };
    let run = caller.instance.map(|instance| Run {
        instance,
        address: caller.connection.remote_address(),
    });
    if let Some(run) = run
        && let Err(why) = look_for_clones(tunnels, &device, run).await
    {
        refuse(caller, why).await;
        return Ok(());
    }
    let Some((tunnel, queue)) = open(tunnels, &caller, &device, run).await else {
        refuse(caller, Refusal::Unavailable).await;
        return Ok(());
    };
    let address = caller.connection.remote_address();
    let welcome = RelayMessage::Welcome(Welcome {
        minor: tunnel.minor,
        generation: tunnel.generation,
        membership: MembershipGrant {
            id: device.id,
            name: device.name.clone(),
            roster: tunnels.cluster.roster(),
        },
        observed_address: address,
    });
    // Registered before it is welcomed: a device that was welcomed is online.
    let older = tunnels.registry.insert(tunnel.clone());
    let came = match &older {
        None => Event::new(EventKind::DeviceOnline),
        Some(older) => Event::new(EventKind::DeviceReplaced)
            .with("older", older.connection.remote_address().to_string()),
    };
    if let Some(older) = older {
        older.close(
            CloseCode::Replaced,
            "replaced by a newer tunnel of this device",
        );
    }
    let came = came.with(CLOCK_SKEW, tunnel.clock_skew);
    if let Some(left_out) = log_limit::admits(LimitedLine::Tunnel, device.id) {
        info!(device = %device.name, %address, generation = tunnel.generation.0, left_out, "tunnel up");
    }
    let attributed = |event: Event| {
        let event = event.device(tunnel.facts_of(&device));
        event.client(tunnel.connection.remote_address())
    };
    tunnels.audit.note_device(device.id, attributed(came)).await;
    let welcomed = caller.send.send(&welcome).await;
    drop(caller.handshake);
    let ended = match welcomed {
        Ok(()) => tokio::select! {
            ended = converse(&tunnel, caller.send, caller.receive, queue) => ended,
            () = tunnels.uploads.serve(tunnel.clone()) => {
                tunnel.connection.closed().await.into()
            }
        },
        Err(error) => error,
    };
    tunnels.registry.remove(&tunnel);
    // One that was replaced leaves its device online, here or at another relay.
    if !tunnel.is_kept() && tunnels.registry.get(device.id).is_none() {
        let gone = Event::new(EventKind::DeviceOffline).because(ended.to_string());
        tunnels.audit.note_device(device.id, attributed(gone)).await;
    }
    if let Some(left_out) = log_limit::admits(LimitedLine::Tunnel, device.id) {
        info!(device = %device.name, generation = tunnel.generation.0, reason = %ended, left_out, "tunnel down");
    }
    let closed = async {
        let mut tx = tunnels.store.begin(Durability::Process).await?;
        tx.tunnel_closed(device.id, tunnel.generation, Timestamp::now())
            .await?;
        tx.commit().await
    };
    if let Ok(Err(error)) = timeout(STORE_TIMEOUT, closed).await {
        warn!(%error, "cannot store that a tunnel is down");
    }
    Err(ended)
}

/// Looks whether this is one of two machines with one key, and tells of it; an error if it is not the one that has
/// the tunnel.
async fn look_for_clones(tunnels: &Tunnels, device: &Device, run: Run) -> Result<(), Refusal> {
    let holder = tunnels.registry.get(device.id);
    let holder = holder.and_then(|tunnel| tunnel.holder());
    let verdict = tunnels.clones.hello(device.id, run, holder);
    if let Some(pair) = verdict.note {
        let noted = async {
            let mut tx = tunnels.store.begin(Durability::Process).await?;
            tx.device_cloned(device.id, pair, Timestamp::now()).await?;
            tx.commit().await
        };
        match timeout(STORE_TIMEOUT, noted).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(%error, device = %device.name, "cannot store a clone")
            }
            Err(_) => warn!(device = %device.name, "cannot store a clone in time"),
        }
        if verdict.is_news {
            warn!(device = %device.name, first = %pair.first, second = %pair.second, "two machines use the key of one device");
            let addresses = vec![pair.first.to_string(), pair.second.to_string()];
            let event = Event::new(EventKind::DeviceCloned)
                .with("addresses", addresses)
                .with("on_clone", tunnels.clones.policy.as_str())
                .device(DeviceFacts::of(device))
                .client(run.address);
            // Not among the sums of the tunnels that come and go: it comes once, until it is forgotten.
            tunnels.audit.note(event).await;
        }
    }
    match verdict.refused_for {
        Some(holder) => Err(Refusal::Cloned { holder }),
        None => Ok(()),
    }
}

async fn known(tunnels: &Tunnels, key: PublicKey) -> Result<Device, Refusal> {
    match timeout(STORE_TIMEOUT, tunnels.store.device_by_key(&key)).await {
        Ok(Ok(Some(device))) if device.revoked.is_some() => Err(Refusal::Revoked),
        Ok(Ok(Some(device))) => Ok(device),
        Ok(Ok(None)) => Err(Refusal::UnknownDevice),
        Ok(Err(error)) => {
            warn!(%error, "the store cannot look up a device");
            Err(Refusal::Unavailable)
        }
        Err(_) => Err(Refusal::Unavailable),
    }
}

async fn open(
    tunnels: &Tunnels,
    caller: &DialingDevice,
    device: &Device,
    run: Option<Run>,
) -> Option<(Arc<Tunnel>, mpsc::Receiver<RelayMessage>)> {
    let address = caller.connection.remote_address();
    let connection_id = tunnels.noted_ids.of(address);
    let facts = TunnelFacts {
        address,
        connection_id,
        local_address: caller.hello.local_address,
        agent_version: caller.hello.agent_version.clone(),
        target: caller.hello.target.clone(),
        keepalive_secs: caller.hello.keepalive_secs,
    };
    let opened = async {
        let mut tx = tunnels.store.begin(Durability::Process).await?;
        let opened = tx
            .tunnel_opened(device.id, tunnels.relay, facts, Timestamp::now())
            .await?;
        tx.commit().await?;
        Ok::<_, StoreError>(opened.generation)
    };
    match timeout(STORE_TIMEOUT, opened).await {
        Ok(Ok(generation)) => {
            let (tell, queue) = mpsc::channel(CONTROL_QUEUE);
            let tunnel = Tunnel::new(
                (device.id, device.name.clone()),
                generation,
                caller.connection.clone(),
                &caller.hello,
                run,
                tell,
            );
            tunnel.set_stored_id(connection_id);
            Some((tunnel, queue))
        }
        Ok(Err(error)) => {
            warn!(%error, device = %device.name, "the store cannot open a tunnel");
            None
        }
        Err(_) => None,
    }
}

/// Speaks on the control stream until it ends, and says how it ended.
async fn converse(
    tunnel: &Tunnel,
    mut send: ControlSender,
    mut receive: ControlReceiver,
    mut queue: mpsc::Receiver<RelayMessage>,
) -> ControlError {
    loop {
        let answer = tokio::select! {
            message = receive.next() => match message {
                Ok(AgentMessage::Beat(Beat { echo })) => {
                    // With a session alive, what was sent before may be lost on a path that is dead;
                    // an answer to something new makes QUIC notice at once.
                    (echo || tunnel.sessions() > 0).then_some(RelayMessage::Echo)
                }
                Ok(
                    AgentMessage::Hello(_)
                    | AgentMessage::Enrol(_)
                    | AgentMessage::EnrolRelay(_)
                    | AgentMessage::Instance(_),
                ) => {
                    return ControlViolation::HelloTwice.into();
                }
                Err(error) => return error,
            },
            Some(message) = queue.recv() => Some(message),
        };
        if let Some(message) = answer
            && let Err(error) = send.send(&message).await
        {
            return error;
        }
    }
}
