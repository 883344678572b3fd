//! The roster: which relays a device may trust, signed by the cluster key (design, "Identity without
//! clocks"). An epoch that only grows takes the place of a certificate's date.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{PublicKey, RecordingKey};
use crate::limits::{MAX_ADDRESS, MAX_CONTROL_MESSAGE, MAX_RELAYS};

/// Precedes the signed bytes, so that a signature over a roster can never be taken for a
/// signature over anything else that the cluster key signs.
const SIGNING_CONTEXT: &[u8] = b"holdfast roster v1\0";

/// One relay of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayEntry {
    /// `host:port` of its tunnel, as devices dial it.
    pub address: String,
    /// Its tunnel key.
    pub key: PublicKey,
}

/// The relays of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// The cluster's public key, which signs the roster.
    pub cluster: PublicKey,
    /// Grows with every change; a device never goes back.
    pub epoch: u64,
    /// At most [`MAX_RELAYS`].
    pub relays: Vec<RelayEntry>,
    /// The key to which recordings are sealed; `None` of a cluster that records nothing. It follows the other
    /// fields, in a part of its own: rosters from before it end there.
    #[serde(skip)]
    pub recording: Option<RecordingKey>,
}

/// A roster as it travels and as it is stored: the exact bytes that were signed, and the signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRoster {
    /// The encoded [`Roster`].
    pub body: Vec<u8>,
    /// Ed25519 over [`Self::signed_bytes`], 64 bytes.
    pub signature: Vec<u8>,
}

/// The reason why a roster is not to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RosterError {
    /// The body does not decode.
    #[error("the roster cannot be decoded")]
    Malformed,
    /// No relay, too many, or an address that is empty or too long.
    #[error("the roster must name 1 to {MAX_RELAYS} relays, each with an address")]
    BadRelays,
    /// The signature does not fit the body and the cluster key in it.
    #[error("the roster's signature is not valid")]
    BadSignature,
}

impl Roster {
    /// Encodes the roster and has it signed: `sign` is given the bytes to sign with the cluster key.
    #[must_use]
    pub fn seal(&self, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> SignedRoster {
        // Encoding into a growing vector fails only for types without a known length, of which a
        // roster has none.
        let mut body = postcard::to_allocvec(self).unwrap_or_default();
        if let Some(RecordingKey(key)) = &self.recording {
            body.extend_from_slice(key);
        }
        let signature = sign(&signed_bytes(&body)).to_vec();
        SignedRoster { body, signature }
    }
}

impl SignedRoster {
    /// Opens the roster if it is well-formed and signed by the cluster key that it names. Whether
    /// *that* key is the trusted one is the caller's question. `verify` is given the key, the signed
    /// bytes and the signature.
    ///
    /// # Errors
    /// [`RosterError`] for anything that does not hold.
    pub fn open(
        &self,
        verify: impl FnOnce(&PublicKey, &[u8], &[u8]) -> bool,
    ) -> Result<Roster, RosterError> {
        if self.body.len() > MAX_CONTROL_MESSAGE {
            return Err(RosterError::Malformed);
        }
        let (mut roster, rest) =
            postcard::take_from_bytes::<Roster>(&self.body).map_err(|_| RosterError::Malformed)?;
        roster.recording = match rest.first_chunk() {
            Some(key) => Some(RecordingKey(*key)),
            None if rest.is_empty() => None,
            None => return Err(RosterError::Malformed),
        };
        let fits = |relay: &RelayEntry| (1..=MAX_ADDRESS).contains(&relay.address.len());
        if !(1..=MAX_RELAYS).contains(&roster.relays.len()) || !roster.relays.iter().all(fits) {
            return Err(RosterError::BadRelays);
        }
        if !verify(&roster.cluster, &signed_bytes(&self.body), &self.signature) {
            return Err(RosterError::BadSignature);
        }
        Ok(roster)
    }
}

fn signed_bytes(body: &[u8]) -> Vec<u8> {
    [SIGNING_CONTEXT, body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    fn roster(relays: usize) -> Roster {
        let relay = RelayEntry {
            address: "relay:4433".to_string(),
            key: PublicKey([2; 32]),
        };
        Roster {
            cluster: PublicKey([1; 32]),
            epoch: 3,
            relays: vec![relay; relays],
            recording: Some(RecordingKey([3; 32])),
        }
    }

    #[test]
    fn a_sealed_roster_opens_to_itself() {
        let sealed = roster(2).seal(|bytes| {
            assert!(bytes.starts_with(SIGNING_CONTEXT));
            [9; 64]
        });
        let opened = sealed.open(|key, bytes, signature| {
            key.0 == [1; 32] && bytes.ends_with(&sealed.body) && signature == [9; 64]
        });
        assert_eq!(opened, Ok(roster(2)));
    }

    #[test]
    fn a_roster_that_does_not_hold_is_refused() {
        let sealed = roster(1).seal(|_| [0; 64]);
        assert_eq!(sealed.open(|_, _, _| false), Err(RosterError::BadSignature));
        assert_eq!(
            roster(0).seal(|_| [0; 64]).open(|_, _, _| true),
            Err(RosterError::BadRelays)
        );
        assert_eq!(
            roster(MAX_RELAYS + 1)
                .seal(|_| [0; 64])
                .open(|_, _, _| true),
            Err(RosterError::BadRelays)
        );
        let cut = SignedRoster {
            body: sealed.body[..5].to_vec(),
            ..sealed.clone()
        };
        let in_the_key = SignedRoster {
            body: sealed.body[..sealed.body.len() - 1].to_vec(),
            ..sealed
        };
        assert_eq!(in_the_key.open(|_, _, _| true), Err(RosterError::Malformed));
        assert_eq!(cut.open(|_, _, _| true), Err(RosterError::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_opening(body: Vec<u8>, signature: Vec<u8>, keep in 0_usize..80) {
            let mut near = roster(1).seal(|_| [0; 64]);
            near.body.truncate(keep);
            near.body.extend_from_slice(&body);
            for sealed in [SignedRoster { body, signature }, near] {
                if let Ok(roster) = sealed.open(|_, _, _| true) {
                    prop_assert!((1..=MAX_RELAYS).contains(&roster.relays.len()));
                }
            }
        }
    }
}
