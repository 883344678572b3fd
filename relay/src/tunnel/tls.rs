//! TLS 1.3 with raw public keys (RFC 7250) on the relay's side: any Ed25519 key may shake hands, and what
//! it may say afterwards is decided by the registry of devices.

use std::sync::Arc;

use holdfast_protocol::ids::PublicKey;
use holdfast_protocol::limits::{ALPN, PEER_ALPN};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
};

use crate::state::SigningKey;

/// Returns the QUIC server configuration of a relay with this tunnel key.
///
/// # Errors
/// [`Error`] if the provider cannot use the key.
pub(crate) fn server_config(key: &SigningKey) -> Result<QuicServerConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certified = certified(key, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(DeviceVerifier { provider }))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
    config.alpn_protocols = vec![ALPN.to_vec(), PEER_ALPN.to_vec()];
    // A resumed session would skip the proof of the device's key; a tunnel is dialled rarely.
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).map_err(no_quic)
}

/// Returns the key as TLS takes it.
fn certified(key: &SigningKey, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8().to_vec()));
    let signer = provider.key_provider.load_private_key(private)?;
    let public = CertificateDer::from(key.public().to_spki().to_vec());
    Ok(Arc::new(CertifiedKey::new(vec![public], signer)))
}

fn no_quic<E>(_: E) -> Error {
    Error::General("the provider lacks AES-128-GCM, which QUIC needs".into())
}

/// Returns whether the peer of a connection speaks as a relay.
#[must_use]
pub(crate) fn is_relay(connection: &quinn::Connection) -> bool {
    let data = connection.handshake_data();
    let data = data.and_then(|data| data.downcast::<HandshakeData>().ok());
    data.is_some_and(|data| data.protocol.as_deref() == Some(PEER_ALPN))
}

/// The means by which this relay proves to others who it is.
pub(crate) struct PeerTls {
    provider: Arc<CryptoProvider>,
    certified: Arc<CertifiedKey>,
}

impl PeerTls {
    /// Returns those of a relay with this tunnel key.
    ///
    /// # Errors
    /// [`Error`] if the provider cannot use the key.
    pub(crate) fn new(key: &SigningKey) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certified = certified(key, &provider)?;
        Ok(Self {
            provider,
            certified,
        })
    }

    /// Returns the QUIC client configuration for the relay with this tunnel key, and no other.
    ///
    /// # Errors
    /// [`Error`] if the provider lacks what QUIC needs.
    pub(crate) fn client_config(&self, peer: PublicKey) -> Result<QuicClientConfig, Error> {
        self.config(Some(peer), PEER_ALPN)
    }

    /// Returns the QUIC client configuration of a relay that joins a cluster. The member that it dials proves itself
    /// afterwards, with a signed roster that has the key of this handshake.
    ///
    /// # Errors
    /// [`Error`] if the provider lacks what QUIC needs.
    pub(crate) fn joining_config(&self) -> Result<QuicClientConfig, Error> {
        self.config(None, ALPN)
    }

    fn config(&self, peer: Option<PublicKey>, alpn: &[u8]) -> Result<QuicClientConfig, Error> {
        let provider = self.provider.clone();
        let verifier = Arc::new(PeerVerifier {
            peer,
            provider: provider.clone(),
        });
        let own = AlwaysResolvesClientRawPublicKeys::new(self.certified.clone());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(own));
        config.alpn_protocols = vec![alpn.to_vec()];
        config.enable_sni = false;
        config.resumption = rustls::client::Resumption::disabled();
        QuicClientConfig::try_from(config).map_err(no_quic)
    }
}

/// Shows that it is there.
impl std::fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerTls").finish_non_exhaustive()
    }
}

/// Writes the part of a verifier that is the same for both ends: a signature by the raw key that was shown, in TLS 1.3.
/// rustls has a trait for each end, with the same methods.
macro_rules! raw_key_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("TLS 1.2 is not spoken here".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature_with_raw_key(
                message,
                &SubjectPublicKeyInfoDer::from(cert.as_ref()),
                dss,
                &self.provider.signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

/// Takes the one relay that was dialled, or any that proves its key.
#[derive(Debug)]
struct PeerVerifier {
    peer: Option<PublicKey>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match PublicKey::from_spki(end_entity) {
            Some(key) if self.peer.is_none_or(|peer| key == peer) => {
                Ok(ServerCertVerified::assertion())
            }
            _ => Err(Error::General(
                "the relay has another tunnel key than the member that was dialled".into(),
            )),
        }
    }

    raw_key_signatures!();
}

/// Returns the Ed25519 key that the peer of a connection has proved to have.
#[must_use]
pub(crate) fn peer_key(connection: &quinn::Connection) -> Option<PublicKey> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    PublicKey::from_spki(chain.first()?)
}

#[derive(Debug)]
struct DeviceVerifier {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for DeviceVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        PublicKey::from_spki(end_entity)
            .map(|_| ClientCertVerified::assertion())
            .ok_or_else(|| Error::General("the device's key is not an Ed25519 key".into()))
    }

    raw_key_signatures!();
}
