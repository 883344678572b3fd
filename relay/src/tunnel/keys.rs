//! The keys that make QUIC's stateless resets and seal its Retry tokens hold over a restart of the relay.
//!
//! quinn implements these for whichever crypto library its features name; with both of them in one build
//! that is ring. These are aws-lc-rs's, always.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac};
use quinn::crypto::{AeadKey, CryptoError, HandshakeTokenKey, HmacKey};

use crate::state::Secret;

/// Makes stateless reset tokens.
pub(crate) struct ResetKey(hmac::Key);

/// Seals address-validation tokens.
pub(crate) struct TokenKey(hkdf::Prk);

struct TokenSeal(LessSafeKey);

impl ResetKey {
    /// Derives the key from the state folder's key.
    #[must_use]
    pub(crate) fn new(key: &Secret<[u8; 64]>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }

    /// Returns the key by which the relay knows its own connection ids again.
    #[must_use]
    pub(crate) fn connection_id_key(&self) -> u64 {
        let tag = hmac::sign(&self.0, b"holdfast quic connection ids v1");
        tag.as_ref()
            .iter()
            .take(8)
            .fold(0, |key, byte| key << 8 | u64::from(*byte))
    }
}

impl TokenKey {
    /// Derives the key from the state folder's key.
    #[must_use]
    pub(crate) fn new(key: &Secret<[u8; 64]>) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"holdfast quic token v1");
        Self(salt.extract(key.expose()))
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        let tag = hmac::sign(&self.0, data);
        for (to, from) in out.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        hmac::verify(&self.0, data, signature).map_err(|_| CryptoError)
    }
}

impl HandshakeTokenKey for TokenKey {
    /// Returns a key for one token: the random bytes stand beside it in the clear.
    fn aead_from_hkdf(&self, random_bytes: &[u8]) -> Box<dyn AeadKey> {
        let info = [random_bytes];
        // Expanding fails only for lengths above 255 hashes; this one is a key's own.
        #[expect(clippy::expect_used, reason = "32 bytes are within HKDF's bound")]
        let okm = self
            .0
            .expand(&info, &AES_256_GCM)
            .expect("a length within HKDF's bound");
        Box::new(TokenSeal(LessSafeKey::new(UnboundKey::from(okm))))
    }
}

impl AeadKey for TokenSeal {
    fn seal(&self, data: &mut Vec<u8>, additional_data: &[u8]) -> Result<(), CryptoError> {
        let aad = Aad::from(additional_data);
        self.0
            .seal_in_place_append_tag(zero_nonce(), aad, data)
            .map_err(|_| CryptoError)
    }

    fn open<'a>(
        &self,
        data: &'a mut [u8],
        additional_data: &[u8],
    ) -> Result<&'a mut [u8], CryptoError> {
        let aad = Aad::from(additional_data);
        self.0
            .open_in_place(zero_nonce(), aad, data)
            .map_err(|_| CryptoError)
    }
}

/// Returns each key seals one token, so that its nonce may be fixed.
fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_with_the_same_key_and_no_other() {
        let key = TokenKey::new(&Secret::new([1; 64]));
        let mut sealed = b"token".to_vec();
        key.aead_from_hkdf(b"random")
            .seal(&mut sealed, b"aad")
            .unwrap();
        let open = |key: &[u8; 64], random: &[u8], sealed: &[u8]| {
            let key = TokenKey::new(&Secret::new(*key));
            let opened = key
                .aead_from_hkdf(random)
                .open(&mut sealed.to_vec(), b"aad")
                .map(|b| b.to_vec());
            opened.ok()
        };
        assert_eq!(open(&[1; 64], b"random", &sealed), Some(b"token".to_vec()));
        assert_eq!(open(&[2; 64], b"random", &sealed), None);
        assert_eq!(open(&[1; 64], b"Random", &sealed), None);
    }
}
