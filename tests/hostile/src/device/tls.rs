//! QUIC to a relay with a raw public key (RFC 7250). Which relay answers is of no interest here.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use holdfast_protocol::limits::TUNNEL_IDLE_TIMEOUT;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, TransportConfig, VarInt};
use rustls::sign::CertifiedKey;
use tokio::time::timeout;

use super::SOON;

pub use raw_key::{provider, random_key};

/// Connects with this key, or with none.
///
/// # Errors
/// The handshake failed.
pub async fn dial(
    relay: SocketAddr,
    key: Option<Arc<CertifiedKey>>,
) -> Result<(Endpoint, Connection)> {
    let own: SocketAddr = match relay {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let mut endpoint = Endpoint::client(own)?;
    endpoint.set_default_client_config(config(key)?);
    let connection = connect(&endpoint, relay).await?;
    Ok((endpoint, connection))
}

/// One more connection of an endpoint.
///
/// # Errors
/// The handshake failed.
pub async fn connect(endpoint: &Endpoint, relay: SocketAddr) -> Result<Connection> {
    let connecting = endpoint.connect(relay, "relay")?;
    let connected = timeout(SOON, connecting).await;
    Ok(connected.context("the relay does not answer")??)
}

/// The configuration of a client with this key, or with none.
///
/// # Errors
/// The key is unusable.
pub fn config(key: Option<Arc<CertifiedKey>>) -> Result<ClientConfig> {
    let tls = raw_key::client(key);
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let mut transport = TransportConfig::default();
    let idle = u32::try_from(TUNNEL_IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    transport
        .max_idle_timeout(Some(VarInt::from_u32(idle).into()))
        // As many sessions as the relay likes.
        .max_concurrent_bidi_streams(VarInt::from_u32(4096));
    config.transport_config(Arc::new(transport));
    Ok(config)
}
