//! The keys themselves: how they are made, written and checked when they are read.

use std::fmt;
use std::path::Path;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use aws_lc_rs::{digest, rand};
use holdfast_protocol::ids::{ClusterFingerprint, PublicKey};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};

use super::{Secret, StateError, files};

/// An Ed25519 key that signs: the cluster's or the relay's on the tunnel.
pub(crate) struct SigningKey {
    pair: Ed25519KeyPair,
    pkcs8: Vec<u8>,
}

impl SigningKey {
    /// Creates a new key from the system's random numbers.
    ///
    /// # Errors
    /// [`StateError::Crypto`] if the library fails.
    pub(crate) fn random() -> Result<Self, StateError> {
        let failed = |_| StateError::Crypto("no Ed25519 key could be made");
        let pair = Ed25519KeyPair::generate().map_err(failed)?;
        // PKCS#8 version 2, because it holds the public key too: a flipped bit in the file then shows.
        let pkcs8 = pair.to_pkcs8().map_err(failed)?.as_ref().to_vec();
        Ok(Self { pair, pkcs8 })
    }

    /// Reads what [`Self::pkcs8`] gave; `None` for anything that differs from it in any byte.
    #[must_use]
    pub(crate) fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        // The library checks the private half against the public one, but forgives what is behind
        // them; a file that was damaged in any place is not to be trusted in the others.
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
        let whole = pair.to_pkcs8().is_ok_and(|again| again.as_ref() == pkcs8);
        whole.then(|| Self {
            pair,
            pkcs8: pkcs8.to_vec(),
        })
    }

    /// Returns the public half.
    #[must_use]
    pub(crate) fn public(&self) -> PublicKey {
        let mut raw = [0; 32];
        raw.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(raw)
    }

    /// Returns the SHA-256 of the public half: what a token names and a device pins.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> ClusterFingerprint {
        ClusterFingerprint(sha256(&self.public().0))
    }

    /// Signs `message` (Ed25519, RFC 8032).
    #[must_use]
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }

    /// Returns the private key as PKCS#8 DER, for TLS and for the file. It is a secret.
    #[must_use]
    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }
}

/// Shows the public half alone.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

/// Returns whether `signature` is the one of `key` on `message`.
pub(crate) fn verifies(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    let key = UnparsedPublicKey::new(&ED25519, &key.0);
    key.verify(message, signature).is_ok()
}

/// Returns the SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Returns bytes from the system's random numbers.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], StateError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| StateError::Crypto("no random numbers"))?;
    Ok(bytes)
}

pub(super) fn read_signing(path: &Path) -> Result<SigningKey, StateError> {
    let bytes = files::read(path)?;
    SigningKey::from_pkcs8(&bytes)
        .ok_or_else(|| damaged(path, "an Ed25519 key in PKCS#8 version 2, DER", bytes.len()))
}

/// Returns a new SSH key in OpenSSH's own format.
pub(super) fn random_ssh() -> Result<String, StateError> {
    let failed = |_| StateError::Crypto("no SSH key could be made");
    let pair = Ed25519Keypair::from_seed(&random_bytes()?);
    let key = PrivateKey::new(KeypairData::Ed25519(pair), "").map_err(failed)?;
    let text = key.to_openssh(LineEnding::LF).map_err(failed)?;
    Ok(text.to_string())
}

pub(super) fn read_ssh(path: &Path) -> Result<PrivateKey, StateError> {
    const EXPECTED: &str = "an Ed25519 key without a passphrase in OpenSSH's format";
    let bytes = files::read(path)?;
    let key = PrivateKey::from_openssh(&bytes).map_err(|_| damaged(path, EXPECTED, bytes.len()))?;
    if key.is_encrypted() || key.key_data().ed25519().is_none() {
        return Err(StateError::Damaged {
            file: path.to_owned(),
            expected: EXPECTED,
            found: if key.is_encrypted() {
                "one with a passphrase".to_owned()
            } else {
                format!("one of type {}", key.algorithm())
            },
        });
    }
    Ok(key)
}

pub(super) fn read_random(path: &Path) -> Result<Secret<[u8; 64]>, StateError> {
    let bytes = files::read(path)?;
    let exact = bytes.as_slice().try_into();
    exact
        .map(Secret::new)
        .map_err(|_| damaged(path, "64 random bytes", bytes.len()))
}

/// Returns the seed of a key that is derived from it.
pub(super) fn read_seed(path: &Path) -> Result<Secret<[u8; 32]>, StateError> {
    let bytes = files::read(path)?;
    let exact = bytes.as_slice().try_into();
    exact
        .map(Secret::new)
        .map_err(|_| damaged(path, "32 random bytes", bytes.len()))
}

fn damaged(path: &Path, expected: &'static str, found: usize) -> StateError {
    StateError::Damaged {
        file: path.to_owned(),
        expected,
        found: format!("{found} bytes that are not that"),
    }
}
