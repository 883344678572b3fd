//! TLS 1.3 with raw public keys (RFC 7250), for tests that are one end of a tunnel. The client believes every relay:
//! which one answers is of no interest there.

#![expect(
    clippy::unwrap_used,
    reason = "a test tool: what fails in it fails the test that uses it"
)]

use std::sync::Arc;

use holdfast_protocol::limits::ALPN;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

/// PKCS #8 around the seed of an Ed25519 key (RFC 8410 section 7).
const PKCS8_HEAD: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// Returns ring's provider.
#[must_use]
pub fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// Returns the key of a seed.
#[must_use]
pub fn seeded_key(seed: [u8; 32]) -> Arc<CertifiedKey> {
    let pkcs8 = [PKCS8_HEAD, &seed].concat();
    let key = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).unwrap();
    let public = CertificateDer::from(key.public_key().unwrap().to_vec());
    Arc::new(CertifiedKey::new(vec![public], key))
}

/// Returns a key that no relay knows.
#[must_use]
pub fn random_key() -> Arc<CertifiedKey> {
    use ::ring::rand::SecureRandom as _;

    let mut seed = [0; 32];
    ::ring::rand::SystemRandom::new().fill(&mut seed).unwrap();
    seeded_key(seed)
}

/// Returns the configuration of a client of the tunnel with this key, or with none.
#[must_use]
pub fn client(key: Option<Arc<CertifiedKey>>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyRelay));
    let mut client = match key {
        None => builder.with_no_client_auth(),
        Some(key) => {
            builder.with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)))
        }
    };
    client.alpn_protocols = vec![ALPN.to_vec()];
    client
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
