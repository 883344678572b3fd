//! The links that other relays have dialled, and the streams to devices of this relay that they open on them.

use std::sync::Arc;

use holdfast_protocol::ids::PublicKey;
use holdfast_protocol::limits::PEER_MINOR_VERSION;
use holdfast_protocol::wire::CloseCode;
use holdfast_protocol::wire::peer::{
    PeerFacts, PeerHeard, PeerMessage, PeerOpen, PeerPurpose, PeerRefused, PeerWelcome,
};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{interval, timeout};
use tracing::{debug, info, warn};

use super::link::close;
use super::message::{self, MessageError};
use super::stream::DeviceStream;
use super::{Peers, pipe, transport};
use crate::limits::STORE_TIMEOUT;
use crate::log_limit::{self, LimitedLine};
use crate::model::source::Source;
use crate::store::ClonePair;
use crate::tunnel::limits::HELLO_TIMEOUT;
use crate::tunnel::peer::limits::{
    INTERACTIVE_PRIORITY, MAX_LINKS_OF_MEMBER, PEER_HEARD, PEER_OPEN_TIMEOUT, PEER_STREAM_TIMEOUT,
};
use crate::tunnel::registry::Tunnel;

/// Serves a link whose dialler has proved to have this key, until it is closed. Its place among the handshakes is held
/// until it is welcomed.
pub(crate) async fn serve(
    peers: Arc<Peers>,
    connection: Connection,
    key: PublicKey,
    handshake: OwnedSemaphorePermit,
) {
    let address = connection.remote_address();
    let name = match timeout(STORE_TIMEOUT, peers.member(key)).await {
        Ok(Ok(Some(name))) => name,
        Ok(Ok(None)) => {
            let source = Source::of(address.ip());
            if let Some(left_out) = log_limit::admits(LimitedLine::Peer, source) {
                warn!(%address, left_out, "a relay that is no member of the cluster is refused");
            }
            return close(
                &connection,
                CloseCode::NoMember,
                "no member of this cluster",
            );
        }
        Ok(Err(error)) => {
            warn!(%address, %error, "the store cannot look up a relay");
            return close(&connection, CloseCode::Busy, "");
        }
        Err(_) => return close(&connection, CloseCode::Busy, ""),
    };
    peers.accepted.enter(key, &connection);
    let greeted = timeout(HELLO_TIMEOUT, greet(&connection)).await;
    let _control = match greeted {
        Ok(Ok(control)) => control,
        Ok(Err(error)) => {
            debug!(relay = name, %address, %error, "a link without a Hello");
            peers.accepted.leave(key, &connection);
            return close(&connection, CloseCode::Protocol, "");
        }
        Err(_) => {
            peers.accepted.leave(key, &connection);
            return close(&connection, CloseCode::Protocol, "no Hello in time");
        }
    };
    drop(handshake);
    info!(relay = name, %address, "another relay has linked itself");
    let why = loop {
        match connection.accept_bi().await {
            // Their number is bounded by the link's own credit for streams.
            Ok((send, receive)) => {
                let peers = peers.clone();
                tokio::spawn(async move {
                    let stream = DeviceStream { send, receive };
                    if let Err(error) = answer(&peers, stream).await {
                        debug!(%error, "a stream of another relay ended");
                    }
                });
            }
            Err(error) => break error,
        }
    };
    peers.accepted.leave(key, &connection);
    info!(relay = name, %address, reason = %why, "the link of another relay has ended");
}

/// Takes the hello of a member, and welcomes it. The control stream is open for as long as the link.
async fn greet(connection: &Connection) -> Result<(SendStream, RecvStream), MessageError> {
    let (mut send, mut receive) = connection.accept_bi().await?;
    let PeerMessage::Hello(hello) = message::receive(&mut receive).await? else {
        return Err(MessageError::OutOfPlace);
    };
    transport::widen(connection);
    let welcome = PeerMessage::Welcome(PeerWelcome {
        minor: hello.minor.min(PEER_MINOR_VERSION),
    });
    message::send(&mut send, &welcome).await?;
    Ok((send, receive))
}

/// Answers a stream.
async fn answer(peers: &Peers, mut stream: DeviceStream) -> Result<(), MessageError> {
    let opened = timeout(PEER_OPEN_TIMEOUT, message::receive(&mut stream.receive)).await;
    let PeerMessage::Open(open) = opened.map_err(|_| MessageError::Ended)?? else {
        return Err(MessageError::OutOfPlace);
    };
    let found = match peers.tunnels.is_stopping() {
        true => Err(PeerRefused::Stopping),
        false => find(peers, &open).ok_or(PeerRefused::NotHere),
    };
    let tunnel = match found {
        Ok(tunnel) => tunnel,
        Err(why) => return refuse(stream, why).await,
    };
    match open.purpose {
        PeerPurpose::Facts => report(peers, &tunnel, stream).await,
        _ => join(peers, &tunnel, open.purpose, stream).await,
    }
}

/// Returns the tunnel that is meant, if the device is reached by it. Who located the device just before it went to another
/// relay means one that is kept.
fn find(peers: &Peers, open: &PeerOpen) -> Option<Arc<Tunnel>> {
    let registry = &peers.tunnels.registry;
    let is_it =
        |tunnel: &Arc<Tunnel>| tunnel.device == open.device && tunnel.generation == open.generation;
    let current = registry.get(open.device).filter(is_it);
    current.or_else(|| registry.kept().into_iter().find(is_it))
}

async fn refuse(mut stream: DeviceStream, why: PeerRefused) -> Result<(), MessageError> {
    message::send(&mut stream.send, &PeerMessage::Refused(why)).await?;
    stream.finish();
    Ok(())
}

/// Reports about a tunnel until it is gone, or the other relay wants to know no more.
async fn report(
    peers: &Peers,
    tunnel: &Tunnel,
    mut stream: DeviceStream,
) -> Result<(), MessageError> {
    let clones = peers.tunnels.clones.pair(tunnel.device);
    let facts = PeerMessage::Facts(PeerFacts {
        minor: tunnel.minor,
        clock_skew: tunnel.clock_skew,
        local_address: tunnel.local_address,
        clones: clones.map(|ClonePair { first, second }| (first, second)),
        heard: state_of(tunnel),
    });
    message::send(&mut stream.send, &facts).await?;
    let mut last = tunnel.heard();
    let mut ticks = interval(PEER_HEARD);
    let reports = async {
        loop {
            ticks.tick().await;
            // Sessions over one that is kept still want to know whether the device answers.
            if !tunnel.is_current() && !tunnel.is_kept() {
                return Ok(());
            }
            let heard = tunnel.heard();
            if heard != last {
                last = heard;
                message::send(&mut stream.send, &PeerMessage::Heard(state_of(tunnel))).await?;
            }
        }
    };
    let reported = tokio::select! {
        reported = reports => reported,
        _ = tunnel.connection.closed() => Ok(()),
        _ = stream.receive.received_reset() => Ok(()),
    };
    stream.finish();
    reported
}

fn state_of(tunnel: &Tunnel) -> PeerHeard {
    PeerHeard {
        silent_ms: u64::try_from(tunnel.silence().as_millis()).unwrap_or(u64::MAX),
        rtt_us: u32::try_from(tunnel.connection.rtt().as_micros()).unwrap_or(u32::MAX),
    }
}

/// Joins a stream to a new one of the tunnel.
async fn join(
    peers: &Peers,
    tunnel: &Arc<Tunnel>,
    purpose: PeerPurpose,
    mut stream: DeviceStream,
) -> Result<(), MessageError> {
    let _pipe = peers.pipes.enter();
    let opened = tokio::select! {
        opened = timeout(PEER_STREAM_TIMEOUT, tunnel.connection.open_bi()) => opened,
        _ = stream.send.stopped() => return Ok(()),
    };
    let (send, receive) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(_)) => return refuse(stream, PeerRefused::NotHere).await,
        Err(_) => return refuse(stream, PeerRefused::Busy).await,
    };
    let device = DeviceStream { send, receive };
    let (_session, _forward) = match purpose {
        PeerPurpose::Forward => (None, Some(tunnel.count_forward())),
        _ => (Some(tunnel.count_session()), None),
    };
    if purpose == PeerPurpose::Terminal {
        let _ = stream.send.set_priority(INTERACTIVE_PRIORITY);
        let _ = device.send.set_priority(INTERACTIVE_PRIORITY);
    }
    message::send(&mut stream.send, &PeerMessage::Opened).await?;
    pipe::run(stream, device, &peers.tunnels.fence).await;
    Ok(())
}

/// The links that other relays have dialled, by the key of each.
#[derive(Debug, Default)]
pub(super) struct Accepted(
    crate::sync::Mutex<std::collections::HashMap<PublicKey, Vec<Connection>>>,
);

impl Accepted {
    /// Enters a link. A member with more than [`MAX_LINKS_OF_MEMBER`] loses its oldest.
    fn enter(&self, key: PublicKey, link: &Connection) {
        let mut links = self.0.lock();
        let of_member = links.entry(key).or_default();
        if of_member.len() >= MAX_LINKS_OF_MEMBER {
            close(&of_member.remove(0), CloseCode::Replaced, "too many links");
        }
        of_member.push(link.clone());
    }

    fn leave(&self, key: PublicKey, link: &Connection) {
        let mut links = self.0.lock();
        if let Some(of_member) = links.get_mut(&key) {
            of_member.retain(|other| other.stable_id() != link.stable_id());
            if of_member.is_empty() {
                links.remove(&key);
            }
        }
    }

    /// Returns the keys of the members that are linked.
    pub(super) fn keys(&self) -> Vec<PublicKey> {
        self.0.lock().keys().copied().collect()
    }

    /// Closes the links of a member.
    pub(super) fn close(&self, key: PublicKey, code: CloseCode, why: &str) {
        for link in self.0.lock().remove(&key).unwrap_or_default() {
            close(&link, code, why);
        }
    }
}
