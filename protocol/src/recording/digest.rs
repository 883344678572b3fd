//! SHA-256 and HMAC-SHA-256 of recordings. Each byte of a session passes one of them twice on its device and
//! once on the relay, so they are the greater part of what recording costs: with the feature `ring` or
//! `aws-lc-rs` they are those of the library that a program has for TLS anyway, in assembly; without, they are
//! in pure Rust, which runs everywhere.

use serde::{Deserialize, Serialize};

#[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
pub(super) use portable::{Mac, sha256};
#[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
pub(super) use tls::{Mac, sha256};

/// The tag of one frame.
pub type Tag = [u8; 32];

/// A place on a stream's chain, between two frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestPoint {
    /// Frames before it.
    pub frames: u64,
    /// Bytes before it.
    pub bytes: u64,
    /// The chain's value.
    pub value: [u8; 32],
}

#[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
mod tls {
    // Where a build unites the features of both programs, the agent's library serves: it is the smaller.
    #[cfg(all(feature = "aws-lc-rs", not(feature = "ring")))]
    use aws_lc_rs::{digest, hmac};
    #[cfg(feature = "ring")]
    use ring::{digest, hmac};

    /// HMAC-SHA-256 of what was given so far.
    #[derive(Clone)]
    pub(in super::super) struct Mac(hmac::Context);

    impl Mac {
        pub(in super::super) fn new(key: &[u8; 32]) -> Self {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key);
            Self(hmac::Context::with_key(&key))
        }

        pub(in super::super) fn update(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        pub(in super::super) fn finalize(self) -> [u8; 32] {
            array(self.0.sign().as_ref())
        }
    }

    /// Returns the SHA-256 of these, one behind the other.
    pub(in super::super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in parts {
            context.update(part);
        }
        array(context.finish().as_ref())
    }

    fn array(bytes: &[u8]) -> [u8; 32] {
        let mut array = [0; 32];
        for (to, from) in array.iter_mut().zip(bytes) {
            *to = *from;
        }
        array
    }
}

// Compiled for the tests in every build: there it is what the other is compared with.
#[cfg(any(test, not(any(feature = "ring", feature = "aws-lc-rs"))))]
mod portable {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use sha2::{Digest as _, Sha256};

    /// HMAC-SHA-256 of what was given so far.
    #[derive(Clone)]
    pub(in super::super) struct Mac(Hmac<Sha256>);

    impl Mac {
        pub(in super::super) fn new(key: &[u8; 32]) -> Self {
            // HMAC fills a short key up with zeros to the hash's block (RFC 2104 section 2).
            let mut block = [0_u8; 64];
            for (to, from) in block.iter_mut().zip(key) {
                *to = *from;
            }
            Self(Hmac::new(&block.into()))
        }

        pub(in super::super) fn update(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        pub(in super::super) fn finalize(self) -> [u8; 32] {
            self.0.finalize().into_bytes().into()
        }
    }

    /// Returns the SHA-256 of these, one behind the other.
    pub(in super::super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part);
        }
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::{Mac, portable, sha256};

    #[test]
    fn both_compute_the_same() {
        let text: [u8; 300] = core::array::from_fn(|index| index.to_le_bytes()[0]);
        for at in [0, 1, 63, 64, 65, 299] {
            let (first, rest) = text.split_at(at);
            assert_eq!(sha256(&[first, rest]), portable::sha256(&[&text]));
            let (mut ours, mut theirs) = (Mac::new(&[7; 32]), portable::Mac::new(&[7; 32]));
            ours.update(first);
            let mut branch = ours.clone();
            ours.update(rest);
            theirs.update(&text);
            assert_eq!(ours.finalize(), theirs.finalize());
            // A copy goes its own way.
            let mut theirs = portable::Mac::new(&[7; 32]);
            theirs.update(first);
            theirs.update(b"other");
            branch.update(b"other");
            assert_eq!(branch.finalize(), theirs.finalize());
        }
    }
}
