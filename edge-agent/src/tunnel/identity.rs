//! The device's key: made at first start, never silently replaced (design, "Identity without clocks").

use std::fmt;
use std::sync::Arc;

use holdfast_protocol::ids::PublicKey;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use crate::os::state::{StateDir, StateDirError};

pub(crate) const FILE: &str = "identity.key";

/// The device's key pair.
pub struct Identity {
    pkcs8: Vec<u8>,
    public: PublicKey,
}

/// The reason why there is no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// The kernel gave no random bytes.
    #[error("cannot make a key: the system returned no random numbers")]
    NoRandomness,
}

impl Identity {
    /// Loads the device's key, and makes one if there is none. A key that is there but cannot be read
    /// is an error: a new key would be a new device.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load_or_create(state: &StateDir) -> Result<Self, IdentityError> {
        if let Some(identity) = Self::load(state)? {
            return Ok(identity);
        }
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| IdentityError::NoRandomness)?;
        state.write(FILE, pkcs8.as_ref())?;
        Self::parse(state, pkcs8.as_ref().to_vec())
    }

    /// Loads the device's key; `None` if none was made yet.
    ///
    /// # Errors
    /// [`IdentityError`] if it is there but cannot be used.
    pub fn load(state: &StateDir) -> Result<Option<Self>, IdentityError> {
        state
            .read(FILE)?
            .map(|bytes| Self::parse(state, bytes))
            .transpose()
    }

    /// Returns the device's public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Returns the key as rustls wants it: the public half as a raw public key, and a signer.
    ///
    /// # Errors
    /// [`rustls::Error`] if the provider cannot use it.
    pub fn certified_key(
        &self,
        provider: &CryptoProvider,
    ) -> Result<Arc<CertifiedKey>, rustls::Error> {
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.clone()));
        let signer = provider.key_provider.load_private_key(private)?;
        let public = CertificateDer::from(self.public.to_spki().to_vec());
        Ok(Arc::new(CertifiedKey::new(vec![public], signer)))
    }

    fn parse(state: &StateDir, pkcs8: Vec<u8>) -> Result<Self, IdentityError> {
        let damaged = || StateDirError::Damaged {
            path: state.file(FILE),
            expected: "an Ed25519 key in PKCS #8",
        };
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| damaged())?;
        let public = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| damaged())?;
        Ok(Self {
            pkcs8,
            public: PublicKey(public),
        })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create_or_open(dir.path()).unwrap();
        let first = Identity::load_or_create(&state).unwrap().public();
        assert_eq!(Identity::load_or_create(&state).unwrap().public(), first);
        let mode = fs::metadata(dir.path().join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_an_error_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create_or_open(dir.path()).unwrap();
        Identity::load_or_create(&state).unwrap();
        for damage in [b"".as_slice(), b"garbage", &[0; 85]] {
            fs::write(dir.path().join(FILE), damage).unwrap();
            let error = Identity::load_or_create(&state).unwrap_err();
            assert!(
                error.to_string().contains("identity.key is damaged"),
                "{error}"
            );
            assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), damage);
        }
    }
}
