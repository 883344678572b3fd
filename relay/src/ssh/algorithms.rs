//! The algorithms that the relay offers: post-quantum key exchange first, authenticated ciphers only, no compression.
//! `ssh-audit` finds nothing to fail here, and a test holds that.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::ssh_key::{Certificate, EcdsaCurve, HashAlg};
use russh::keys::{Algorithm, PrivateKey};
use russh::server::Config;
use russh::{Limits, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

use crate::session::limits::SSH_WINDOW;
use crate::ssh::limits::{
    AUTH_REJECTION_TIME, MAX_AUTH_FAILURES, MAX_KEY_OFFERS, SSH_EVENTS, SSH_PACKET,
};

/// The identification string of the relay on every connection. OpenSSH's clients report that nothing reads a command's
/// output any more (`eow@openssh.com`), and that they open no more sessions, only to servers whose string begins with
/// `OpenSSH`. They and others know faults of its versions by the numbers behind `OpenSSH_`, so no number follows.
pub(crate) const VERSION: &str = concat!("SSH-2.0-OpenSSH_Holdfast_", env!("CARGO_PKG_VERSION"));

const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

const CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
];

/// Named because the protocol wants a list; with these ciphers none is used.
const MACS: &[mac::Name] = &[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM];

/// The algorithms that users may sign with. RSA is verified only, and with SHA-2 only.
const USER_KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::SkEd25519,
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP256,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP384,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP521,
    },
    Algorithm::SkEcdsaSha2NistP256,
    Algorithm::Rsa {
        hash: Some(HashAlg::Sha512),
    },
    Algorithm::Rsa {
        hash: Some(HashAlg::Sha256),
    },
];

/// Returns whether a user may prove themselves by a signature of this kind. What is advertised does not bind a client:
/// one that offers something else is refused here.
#[must_use]
pub(crate) fn may_sign_with(algorithm: &Algorithm) -> bool {
    USER_KEYS.contains(algorithm)
}

/// Returns the configuration of a connection that shows `key`, and `certificates` for it.
#[must_use]
pub(crate) fn config(
    key: &PrivateKey,
    certificates: Vec<Certificate>,
    methods: &[MethodKind],
) -> Arc<Config> {
    Arc::new(Config {
        server_id: SshId::Standard(Cow::Borrowed(VERSION)),
        methods: MethodSet::from(methods),
        auth_rejection_time: AUTH_REJECTION_TIME,
        // Every client begins with "none" to hear of the methods; that is no guess at anything.
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![key.clone()],
        certificates,
        limits: Limits::default(),
        window_size: SSH_WINDOW,
        maximum_packet_size: SSH_PACKET,
        channel_buffer_size: 1,
        event_buffer_size: SSH_EVENTS,
        preferred: Preferred {
            kex: Cow::Borrowed(KEX),
            key: Cow::Borrowed(USER_KEYS),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Borrowed(CIPHERS),
            mac: Cow::Borrowed(MACS),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        // russh counts every refusal: of keys, of signatures, and of the "none" that every client begins with. Our own
        // bound on keys comes first, because it says what to do.
        max_auth_attempts: MAX_KEY_OFFERS + MAX_AUTH_FAILURES + 2,
        // Both count any packet; what is idle is judged by what a user sends.
        inactivity_timeout: None,
        keepalive_interval: Some(crate::ssh::limits::SSH_KEEPALIVE),
        keepalive_max: crate::ssh::limits::SSH_KEEPALIVE_MAX,
        nodelay: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha1_and_dsa_signatures_are_refused() {
        for (name, may) in [
            ("ssh-ed25519", true),
            ("sk-ssh-ed25519@openssh.com", true),
            ("rsa-sha2-512", true),
            ("rsa-sha2-256", true),
            ("ssh-rsa", false),
            ("ssh-dss", false),
        ] {
            let algorithm = Algorithm::new(name).unwrap();
            assert_eq!(may_sign_with(&algorithm), may, "{name}");
        }
    }
}
