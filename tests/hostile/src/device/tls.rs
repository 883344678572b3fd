//! QUIC to a relay with a raw public key (RFC 7250). Which relay answers is of no interest here.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use holdfast_protocol::limits::{ALPN, TUNNEL_IDLE_TIMEOUT};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, TransportConfig, VarInt};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::time::timeout;

use super::SOON;

/// ring's provider.
#[must_use]
pub fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// A key that no relay knows.
#[must_use]
pub fn random_key() -> Arc<CertifiedKey> {
    let random = ::ring::rand::SystemRandom::new();
    let pkcs8 = ::ring::signature::Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec());
    let key = ring::sign::any_eddsa_type(&pkcs8).unwrap();
    let public = CertificateDer::from(key.public_key().unwrap().to_vec());
    Arc::new(CertifiedKey::new(vec![public], key))
}

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
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyRelay));
    let mut tls = match key {
        None => builder.with_no_client_auth(),
        Some(key) => {
            builder.with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)))
        }
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
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

#[derive(Debug)]
struct AnyRelay;

impl ServerCertVerifier for AnyRelay {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
