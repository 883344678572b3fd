//! TLS 1.3 with raw public keys (RFC 7250) on the device's side. No dates are looked at, so that it
//! works with a clock at 1970.

use std::fs;
use std::sync::{Arc, OnceLock};

use holdfast_protocol::ids::PublicKey;
use holdfast_protocol::limits::ALPN;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::ring::kx_group::X25519;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::crypto::{
    CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::sign::SigningKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::os::clock::TlsClock;
use crate::tunnel::identity::Identity;

/// Names which relays a handshake may succeed with.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// Only these.
    Pinned(Vec<PublicKey>),
    /// Any: before joining, when the relay proves itself afterwards with a signed roster and nothing
    /// secret was said.
    Unproven,
}

/// Returns the QUIC client configuration of a device.
///
/// # Errors
/// [`Error`] if the provider cannot use the identity's key.
pub(crate) fn client_config(
    identity: &Identity,
    trust: Trust,
) -> Result<quinn::crypto::rustls::QuicClientConfig, Error> {
    let provider = provider();
    let key = identity.certified_key(&provider)?;
    let verifier = Arc::new(RelayVerifier {
        trust,
        provider: provider.clone(),
    });
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(TlsClock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    QuicClientConfig::try_from(config)
        .map_err(|_| Error::General("the provider lacks AES-128-GCM, which QUIC needs".into()))
}

/// Returns ring's provider with only what a tunnel can use: TLS 1.3, X25519, Ed25519. What
/// rustls' own default names besides (the NIST curves with their tables, RSA) is a tenth of the program.
///
/// ChaCha20-Poly1305 is first on processors without AES instructions (Pi 3 and 4, all ARMv6 and
/// ARMv7), where it is several times as fast. AES-128-GCM always stays: QUIC's Initial packets need it.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| {
            let mut cipher_suites = vec![
                TLS13_AES_256_GCM_SHA384,
                TLS13_AES_128_GCM_SHA256,
                TLS13_CHACHA20_POLY1305_SHA256,
            ];
            if !has_aes() {
                cipher_suites.rotate_right(1);
            }
            Arc::new(CryptoProvider {
                cipher_suites,
                kx_groups: vec![X25519],
                signature_verification_algorithms: ED25519_ONLY,
                secure_random: &Ring,
                key_provider: &Ring,
            })
        })
        .clone()
}

/// The signatures that relays prove themselves with.
static ED25519_ONLY: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[webpki::ring::ED25519],
    mapping: &[(SignatureScheme::ED25519, &[webpki::ring::ED25519])],
};

/// The parts that rustls asks of a provider besides algorithms.
#[derive(Debug)]
struct Ring;

impl SecureRandom for Ring {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        use ring::rand::SecureRandom as _;
        ring::rand::SystemRandom::new()
            .fill(bytes)
            .map_err(|_| GetRandomFailed)
    }
}

impl KeyProvider for Ring {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        match key {
            PrivateKeyDer::Pkcs8(key) => any_eddsa_type(&key),
            _ => Err(Error::General("a device's key is in PKCS #8".into())),
        }
    }
}

/// Returns whether the kernel says that the processor has AES instructions.
fn has_aes() -> bool {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("Features") || line.starts_with("flags"))
        .any(|line| line.split_whitespace().any(|flag| flag == "aes"))
}

#[derive(Debug)]
struct RelayVerifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for RelayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = PublicKey::from_spki(end_entity)
            .ok_or_else(|| Error::General("expected an Ed25519 key from the relay".into()))?;
        match &self.trust {
            Trust::Pinned(relays) if !relays.contains(&key) => Err(Error::General(
                "the relay's key is not on this device's roster".into(),
            )),
            Trust::Pinned(_) | Trust::Unproven => Ok(ServerCertVerified::assertion()),
        }
    }

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
}
