//! Sealing: HPKE (RFC 9180) in base mode, X25519, HKDF-SHA256, ChaCha20-Poly1305, one context a segment.
//! The device seals to the cluster's recording key and can't open what it wrote.

use alloc::vec::Vec;
use core::fmt;

use hpke::aead::{AeadCtxR, AeadCtxS, ChaCha20Poly1305};
use hpke::kdf::{HkdfSha256, Kdf as _};
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{Infallible, TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::digest::sha256;
pub use crate::ids::RecordingKey;

/// Length of what sealing adds to a text: Poly1305's tag.
pub const TAG_LEN: usize = 16;

/// Length of an encapsulated key.
pub const ENCAPSULATED_LEN: usize = 32;

/// Names a recording key: the first 8 bytes of its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 8]);

/// The private half. Only relays have it.
#[derive(Clone)]
pub struct RecordingSecret(<X25519HkdfSha256 as Kem>::PrivateKey);

/// Sealing or opening did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// Not an X25519 key, or one that gives no secret.
    #[error("the recording key is not a valid X25519 key")]
    BadKey,
    /// The text was altered, is another's, or was sealed to another key.
    #[error("the seal is not valid")]
    Broken,
}

impl RecordingKey {
    /// Returns its name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId(first_bytes(&sha256(&[&self.0])))
    }

    /// Returns whether anything can be sealed to it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        // Points of small order are well-formed and give no secret: only trying tells.
        Sealer::new(self, &[], &mut SealSeed([0; 32])).is_ok()
    }
}

impl RecordingSecret {
    /// Derives a key pair from 32 random bytes (RFC 9180 section 7.1.3). Keep the seed as the secret that
    /// it is.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(X25519HkdfSha256::derive_keypair(seed).0)
    }

    /// Returns the public half.
    #[must_use]
    pub fn public(&self) -> RecordingKey {
        RecordingKey(X25519HkdfSha256::sk_to_pk(&self.0).to_bytes().into())
    }
}

/// Randomness of one recording, from which each segment draws its own: a reader of the memory can't
/// compute what the segments before it drew.
#[derive(Clone)]
pub struct SealSeed([u8; 32]);

impl SealSeed {
    /// Creates a key from 32 bytes of the system's random source.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    fn draw(&mut self) -> [u8; 32] {
        let step = |name: &[u8]| sha256(&[name, &self.0]);
        let (drawn, next) = (step(b"holdfast seal draw"), step(b"holdfast seal next"));
        self.0 = next;
        drawn
    }
}

/// Seals the blocks of one segment, in order.
pub(super) struct Sealer {
    context: AeadCtxS<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>,
}

impl Sealer {
    /// Creates the sealer of a segment that `info` describes. Returns the encapsulated key, too, which goes into its
    /// header.
    pub(super) fn new(
        key: &RecordingKey,
        info: &[u8],
        seed: &mut SealSeed,
    ) -> Result<(Self, [u8; ENCAPSULATED_LEN]), SealError> {
        let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&key.0)
            .map_err(|_| SealError::BadKey)?;
        let (encapsulated, context) =
            hpke::setup_sender_with_rng(&OpModeS::Base, &public, info, seed)
                .map_err(|_| SealError::BadKey)?;
        Ok((Self { context }, encapsulated.to_bytes().into()))
    }

    /// Appends the sealed `text` to `out`.
    pub(super) fn seal(
        &mut self,
        text: &[u8],
        bound: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let sealed = self
            .context
            .seal(text, bound)
            .map_err(|_| SealError::Broken)?;
        out.extend_from_slice(&sealed);
        Ok(())
    }
}

/// Opens the blocks of one segment, in order.
pub(super) struct SealOpener {
    context: AeadCtxR<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>,
}

impl SealOpener {
    pub(super) fn new(
        secret: &RecordingSecret,
        info: &[u8],
        encapsulated: &[u8; ENCAPSULATED_LEN],
    ) -> Result<Self, SealError> {
        let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated)
            .map_err(|_| SealError::Broken)?;
        hpke::setup_receiver(&OpModeR::Base, &secret.0, &encapsulated, info)
            .map(|context| Self { context })
            .map_err(|_| SealError::Broken)
    }

    pub(super) fn open(&mut self, sealed: &[u8], bound: &[u8]) -> Result<Vec<u8>, SealError> {
        self.context
            .open(sealed, bound)
            .map_err(|_| SealError::Broken)
    }
}

/// Opens the blocks of one segment, and can leave some out. HPKE's own context opens one after the other and nothing
/// else: it is given an empty text, sealed with the same key, in place of a block that is left out.
pub(super) struct SkippingOpener {
    opener: SealOpener,
    stand_in: AeadCtxS<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>,
}

impl SkippingOpener {
    pub(super) fn new(
        secret: &RecordingSecret,
        info: &[u8],
        encapsulated: &[u8; ENCAPSULATED_LEN],
    ) -> Result<Self, SealError> {
        let opener = SealOpener::new(secret, info, encapsulated)?;
        let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated)
            .map_err(|_| SealError::Broken)?;
        let shared = X25519HkdfSha256::decap(&secret.0, None, &encapsulated)
            .map_err(|_| SealError::Broken)?;
        let context = HkdfSha256::combine_secrets(&OpModeR::Base, shared, info);
        Ok(Self {
            opener,
            stand_in: AeadCtxS::from(context),
        })
    }

    /// Leaves the next block out.
    pub(super) fn skip(&mut self) -> Result<(), SealError> {
        let empty = (self.stand_in.seal(&[], &[])).map_err(|_| SealError::Broken)?;
        self.opener.open(&empty, &[]).map(drop)
    }

    /// Opens the next block. If it is not this one, it is still the next.
    pub(super) fn open(&mut self, sealed: &[u8], bound: &[u8]) -> Result<Vec<u8>, SealError> {
        let text = self.opener.open(sealed, bound)?;
        (self.stand_in.seal(&[], &[])).map_err(|_| SealError::Broken)?;
        Ok(text)
    }
}

/// Returns the first bytes of a hash, where a short check is enough.
pub(super) fn first_bytes(hash: &[u8; 32]) -> [u8; 8] {
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(hash) {
        *to = *from;
    }
    first
}

impl TryRng for SealSeed {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        for chunk in to.chunks_mut(32) {
            let drawn = self.draw();
            for (to, from) in chunk.iter_mut().zip(drawn) {
                *to = from;
            }
        }
        Ok(())
    }
}

impl TryCryptoRng for SealSeed {}

impl fmt::Debug for RecordingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordingKey({:?})", self.id())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl fmt::Debug for RecordingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordingSecret(..)")
    }
}

impl fmt::Debug for SealSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealSeed(..)")
    }
}
