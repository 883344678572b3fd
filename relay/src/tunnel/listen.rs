//! The tunnel's UDP endpoint: who may begin a handshake, and what a connection may say first.

mod joins;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use holdfast_protocol::ids::PublicKey;
use holdfast_protocol::limits::{ACK_EVERY, INITIAL_RTT, MAX_VERSION_TEXT, TUNNEL_IDLE_TIMEOUT};
use holdfast_protocol::tunnel::congestion::quinn::{Factory, lift_for_close};
use holdfast_protocol::tunnel::control::ControlViolation;
use holdfast_protocol::wire::{AgentMessage, CloseCode, Intent, Refusal};
use quinn::{
    AckFrequencyConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, Runtime as _,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use rustix::net::sockopt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::{debug, info};

use self::joins::Joins;
use super::Tunnels;
use super::control::{self, ControlError, DialingDevice, refuse};
use super::keys::{ResetKey, TokenKey};
use super::peer::{self, Peers};
use super::socket::{NotedIds, TunnelSocket};
use super::{enroll, member, tls};
use crate::log_limit::{self, LimitedLine};
use crate::model::source::Source;
use crate::state::State;
use crate::tunnel::limits::{
    CONNECTION_WINDOW, HELLO_TIMEOUT, MAX_DEVICE_STREAMS, MAX_HANDSHAKES, RESET_INTERVAL,
    RETRY_ABOVE_HANDSHAKES, SEND_WINDOW, STREAM_WINDOW, TUNNEL_RECEIVE_QUEUE,
};

/// Places for devices that are not welcomed, enrolled or refused yet.
#[derive(Clone, Debug)]
pub(crate) struct Handshakes(Arc<Semaphore>);

impl Default for Handshakes {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_HANDSHAKES)))
    }
}

impl Handshakes {
    /// Returns the number of handshakes under way.
    #[must_use]
    pub(crate) fn under_way(&self) -> usize {
        MAX_HANDSHAKES - self.0.available_permits()
    }

    /// Returns a place, if there is one.
    fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_owned().ok()
    }
}

/// The endpoint and what it is made of.
pub(crate) struct Bound {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Its socket.
    pub socket: Arc<TunnelSocket>,
    /// The connection ids that devices use on it.
    pub noted: Arc<NotedIds>,
    /// Makes the tokens of resets.
    pub reset: Arc<ResetKey>,
}

/// Binds the endpoint.
///
/// # Errors
/// The address is taken or not ours, or the key cannot be used.
pub(crate) fn bind(address: SocketAddr, state: &State) -> anyhow::Result<Bound> {
    let mut server = ServerConfig::with_crypto(Arc::new(tls::server_config(&state.tunnel)?));
    server.transport_config(Arc::new(transport()));
    server.migration(true);
    server.token_key(Arc::new(TokenKey::new(&state.quic_token_key)));
    // With lasting keys, a device notices at its next packet that the relay was restarted: the reset is
    // signed by the one, and only packets whose connection id fits the other are answered at all.
    let reset = Arc::new(ResetKey::new(&state.quic_reset_key));
    let id_key = reset.connection_id_key();
    let mut config = EndpointConfig::new(reset.clone());
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)))
        .min_reset_interval(RESET_INTERVAL);
    let socket = UdpSocket::bind(address)?;
    widen(&socket);
    let noted = NotedIds::new(id_key);
    let socket = TunnelSocket::new(TokioRuntime.wrap_udp_socket(socket)?, noted.clone());
    let (server, runtime) = (Some(server), Arc::new(TokioRuntime));
    let endpoint = Endpoint::new_with_abstract_socket(config, server, socket.clone(), runtime)?;
    Ok(Bound {
        endpoint,
        socket,
        noted,
        reset,
    })
}

/// Asks for a receive queue that holds [`TUNNEL_RECEIVE_QUEUE`], beyond what the system gives to all if we
/// are root. What is refused costs speed only: packets that find no room count as lost.
fn widen(socket: &UdpSocket) {
    if sockopt::set_socket_recv_buffer_size_force(socket, TUNNEL_RECEIVE_QUEUE).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(socket, TUNNEL_RECEIVE_QUEUE);
    }
}

/// Accepts connections until the endpoint is closed. Those of other relays are handed to `peers`.
pub(crate) async fn run(
    tunnels: Arc<Tunnels>,
    peers: Arc<Peers>,
    endpoint: Endpoint,
    handshakes: Handshakes,
) {
    let joins = Joins::default();
    while let Some(incoming) = endpoint.accept().await {
        if tunnels.is_stopping() {
            incoming.refuse();
            continue;
        }
        let Some(handshake) = handshakes.take() else {
            // No answer at all: the device tries again, and an attacker gains nothing.
            incoming.ignore();
            continue;
        };
        if handshakes.under_way() > RETRY_ABOVE_HANDSHAKES && !incoming.remote_address_validated() {
            // Refused only if it was validated already, which was just checked.
            let _ = incoming.retry();
            continue;
        }
        let (tunnels, peers, joins) = (tunnels.clone(), peers.clone(), joins.clone());
        tokio::spawn(async move {
            let address = incoming.remote_address();
            // Its place is held until it is welcomed, enrolled or refused.
            match timeout(HELLO_TIMEOUT, greet(incoming, handshake)).await {
                Ok(Ok(ProvenPeer::Device(caller))) => serve(tunnels, *caller, &joins).await,
                Ok(Ok(ProvenPeer::Relay(connection, key, handshake))) => {
                    peer::listen::serve(peers, connection, key, handshake).await;
                }
                Ok(Err(error)) => debug!(%address, %error, "connection without a tunnel"),
                Err(_) => debug!(%address, "no Hello from a connection in time"),
            }
        });
    }
}

/// A peer whose key is proved.
enum ProvenPeer {
    Device(Box<DialingDevice>),
    Relay(Connection, PublicKey, OwnedSemaphorePermit),
}

async fn greet(
    incoming: Incoming,
    handshake: OwnedSemaphorePermit,
) -> Result<ProvenPeer, ControlError> {
    let connection = incoming.await?;
    let protocol = |text| ControlError::Protocol(text);
    let key = tls::peer_key(&connection).ok_or(protocol("no Ed25519 key"))?;
    if tls::is_relay(&connection) {
        return Ok(ProvenPeer::Relay(connection, key, handshake));
    }
    let (send, mut receive) = control::accept(&connection).await?;
    let (mut message, mut instance) = (receive.next().await?, None);
    if let AgentMessage::Instance(which) = message {
        (message, instance) = (receive.next().await?, Some(which));
    }
    let AgentMessage::Hello(hello) = message else {
        return Err(ControlViolation::BeforeHello.into());
    };
    if hello.agent_version.len() > MAX_VERSION_TEXT || hello.target.len() > MAX_VERSION_TEXT {
        return Err(protocol("a Hello with texts that are too long"));
    }
    Ok(ProvenPeer::Device(Box::new(DialingDevice {
        connection,
        key,
        send,
        receive,
        hello,
        handshake,
        instance,
    })))
}

async fn serve(tunnels: Arc<Tunnels>, caller: DialingDevice, joins: &Joins<Source>) {
    let (connection, address) = (
        caller.connection.clone(),
        caller.connection.remote_address(),
    );
    let result = match caller.hello.intent {
        intent @ (Intent::Join | Intent::JoinRelay) => match joins.take(Source::of(address.ip())) {
            Some(_place) if intent == Intent::Join => enroll::join(&tunnels, caller).await,
            Some(_place) => enroll::join_relay(&tunnels, caller).await,
            None => {
                refuse(caller, Refusal::Unavailable).await;
                Ok(())
            }
        },
        Intent::Run => member::run(&tunnels, caller).await,
    };
    let code = match &result {
        Ok(()) => CloseCode::Done,
        Err(
            error @ (ControlError::Order(_) | ControlError::Protocol(_) | ControlError::Codec(_)),
        ) => {
            if let Some(left_out) =
                log_limit::admits(LimitedLine::Protocol, Source::of(address.ip()))
            {
                info!(%address, %error, left_out, "a device broke the protocol");
            }
            CloseCode::Protocol
        }
        Err(error) => {
            debug!(%address, %error, "a connection ended");
            CloseCode::Done
        }
    };
    lift_for_close(connection.congestion_state());
    connection.close((code as u32).into(), b"");
}

fn transport() -> TransportConfig {
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY));
    let mut transport = TransportConfig::default();
    let idle = u32::try_from(TUNNEL_IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        .keep_alive_interval(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_DEVICE_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .initial_rtt(INITIAL_RTT)
        .ack_frequency_config(Some(acknowledgements))
        .congestion_controller_factory(Arc::new(Factory));
    transport
}
