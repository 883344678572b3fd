//! From an address to a QUIC connection whose relay is proved.

mod socket;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt as _;
use holdfast_protocol::ids::PublicKey;
use holdfast_protocol::limits::{ACK_EVERY, DIAL_TIMEOUT, INITIAL_RTT, TUNNEL_IDLE_TIMEOUT};
use holdfast_protocol::tunnel::congestion::quinn::Factory;
use quinn::{
    AckFrequencyConfig, ClientConfig, Connection, Endpoint, EndpointConfig, TransportConfig, VarInt,
};
use rustix::net::sockopt;
use rustls::pki_types::CertificateDer;
use smol::Timer;
use thiserror::Error;

use self::socket::AgentRuntime;
use crate::tunnel::identity::Identity;
use crate::tunnel::limits::{
    CONNECTION_WINDOW, HANDSHAKE_TIMEOUT, MAX_ADDRESSES, RECEIVE_QUEUE, SEND_WINDOW, STREAM_WINDOW,
};
use crate::tunnel::tls::{self, Trust};

/// The reason why no connection came to be.
#[derive(Debug, Error)]
pub enum DialError {
    /// The name could not be resolved.
    #[error("cannot find the address of {address}: {source}")]
    Resolve {
        /// `host:port`.
        address: String,
        /// The resolver's answer.
        source: std::io::Error,
    },
    /// The system gave no socket.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The key cannot be used.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// quinn refused the parameters.
    #[error("cannot dial {address}: {reason}")]
    Connect {
        /// The address that was dialled.
        address: SocketAddr,
        /// The reason.
        reason: String,
    },
    /// No answer in time.
    #[error("no answer from {0}: is UDP open to it?")]
    Timeout(String),
    /// The relay broke the handshake's rules.
    #[error("the relay showed no Ed25519 key")]
    NoKey,
}

/// A connection with its own endpoint, so that one socket can be rebound without touching another.
#[derive(Debug)]
pub(crate) struct DialledRelay {
    /// Its socket.
    pub endpoint: Endpoint,
    /// The connection.
    pub connection: Connection,
    /// The key that the relay proved to have.
    pub relay_key: PublicKey,
}

/// Dials `address` (`host:port`): each of its IP addresses in turn until one answers.
///
/// # Errors
/// [`DialError`] of the last attempt.
pub(crate) async fn dial(
    identity: &Identity,
    trust: Trust,
    address: &str,
) -> Result<DialledRelay, DialError> {
    let tls = tls::client_config(identity, trust)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport()));
    let all = async { dial_each(&config, address).await };
    let late = async {
        Timer::after(DIAL_TIMEOUT).await;
        Err(DialError::Timeout(address.to_owned()))
    };
    all.or(late).await
}

async fn dial_each(config: &ClientConfig, address: &str) -> Result<DialledRelay, DialError> {
    let resolved = smol::net::resolve(address)
        .await
        .map_err(|source| DialError::Resolve {
            address: address.to_owned(),
            source,
        })?;
    let mut last = DialError::Timeout(address.to_owned());
    for to in resolved.into_iter().take(MAX_ADDRESSES) {
        let attempt = dial_one(config, to);
        let late = async {
            Timer::after(HANDSHAKE_TIMEOUT).await;
            Err(DialError::Timeout(to.to_string()))
        };
        match attempt.or(late).await {
            Ok(dialled) => return Ok(dialled),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn dial_one(config: &ClientConfig, to: SocketAddr) -> Result<DialledRelay, DialError> {
    let socket = bind_for(to)?;
    let endpoint = Endpoint::new(endpoint_config(), None, socket, Arc::new(AgentRuntime))?;
    let failed = |reason: String| DialError::Connect {
        address: to,
        reason,
    };
    let connection = endpoint
        .connect_with(config.clone(), to, "relay")
        .map_err(|error| failed(error.to_string()))?
        .await
        .map_err(|error| failed(error.to_string()))?;
    let relay_key = peer_key(&connection).ok_or(DialError::NoKey)?;
    Ok(DialledRelay {
        endpoint,
        connection,
        relay_key,
    })
}

/// Returns a socket of the family of `to`, on any port.
///
/// # Errors
/// What the system says.
pub(crate) fn bind_for(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = match to {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    }?;
    // Beyond what the system gives to all, if we are root. A refusal costs speed only.
    if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_QUEUE).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_QUEUE);
    }
    Ok(socket)
}

/// Returns the source address that the system would use towards `to` now; `None` without a route.
#[must_use]
pub(crate) fn source_address(to: SocketAddr) -> Option<SocketAddr> {
    let socket = bind_for(to).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok()
}

fn peer_key(connection: &Connection) -> Option<PublicKey> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    PublicKey::from_spki(chain.first()?)
}

fn endpoint_config() -> EndpointConfig {
    EndpointConfig::default()
}

fn transport() -> TransportConfig {
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY));
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(idle_timeout())
        // The agent beats by itself (`holdfast_protocol::tunnel::link`).
        .keep_alive_interval(None)
        .stream_receive_window(STREAM_WINDOW)
        .receive_window(CONNECTION_WINDOW)
        .send_window(SEND_WINDOW)
        .max_concurrent_bidi_streams(crate::tunnel::limits::MAX_STREAMS)
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .initial_rtt(INITIAL_RTT)
        .ack_frequency_config(Some(acknowledgements))
        .congestion_controller_factory(Arc::new(Factory));
    transport
}

fn idle_timeout() -> Option<quinn::IdleTimeout> {
    const MILLIS: Duration = TUNNEL_IDLE_TIMEOUT;
    u32::try_from(MILLIS.as_millis())
        .ok()
        .map(|ms| VarInt::from_u32(ms).into())
}
