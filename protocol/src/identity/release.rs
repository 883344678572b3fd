//! The key that signs new versions of the agent, as minisign writes public keys: base64 of `Ed`, an identifier of
//! eight bytes, and an Ed25519 key.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::PublicKey;

/// Minisign's name of an Ed25519 key.
const ALGORITHM: &[u8] = b"Ed";

/// Length of the text's bytes.
const LENGTH: usize = 2 + 8 + 32;

/// A public key of minisign's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseKey {
    /// Random, and in each signature too: so that the right key of several is found. It proves nothing.
    pub id: [u8; 8],
    /// The key.
    pub key: PublicKey,
}

/// The reason why a text is no release key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a release key begins with RW: the second line of the file minisign.pub")]
pub struct ReleaseKeyError;

impl FromStr for ReleaseKey {
    type Err = ReleaseKeyError;

    fn from_str(text: &str) -> Result<Self, ReleaseKeyError> {
        let mut bytes = [0; LENGTH];
        let decoded = STANDARD.decode_slice(text.trim(), &mut bytes);
        if decoded != Ok(LENGTH) || !bytes.starts_with(ALGORITHM) {
            return Err(ReleaseKeyError);
        }
        let (id, key) = bytes[ALGORITHM.len()..].split_at(8);
        Ok(Self {
            id: id.try_into().map_err(|_| ReleaseKeyError)?,
            key: PublicKey(key.try_into().map_err(|_| ReleaseKeyError)?),
        })
    }
}

impl fmt::Display for ReleaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [ALGORITHM, &self.id, &self.key.0].concat();
        let text: String = STANDARD.encode(bytes);
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;
    use proptest::prelude::*;

    /// Made by minisign 0.11.
    const KEY: &str = "RWQ0ZvBD3qMc87ItdmGuC7HlCQlW4JOACk7I6L9CtP7QDodLvdtjWmN5";

    #[test]
    fn a_key_is_what_minisign_writes() {
        let key: ReleaseKey = KEY.parse().unwrap();
        assert_eq!(key.id, [0x34, 0x66, 0xf0, 0x43, 0xde, 0xa3, 0x1c, 0xf3]);
        assert_eq!(key.to_string(), KEY);
        assert_eq!(alloc::format!(" {KEY}\n").parse(), Ok(key));
        for bad in [
            "",
            "RW",
            &KEY[1..],
            &KEY[..52],
            "untrusted comment: minisign public key",
            // The same bytes under another algorithm's name.
            "RUQ0ZvBD3qMc87ItdmGuC7HlCQlW4JOACk7I6L9CtP7QDodLvdtjWmN5",
        ] {
            assert_eq!(bad.parse::<ReleaseKey>(), Err(ReleaseKeyError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<ReleaseKey>();
        }
    }
}
