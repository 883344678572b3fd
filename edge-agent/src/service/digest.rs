//! The digest that distinguishes programs, and that minisign signs: BLAKE2b-512 (RFC 7693).

use std::fmt;
use std::io::{self, Read};

use blake2::{Blake2b512, Digest as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that are read at a time.
pub(super) const PIECE: usize = 64 * 1024;

/// The BLAKE2b-512 of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 64]);

/// A digest that grows.
#[derive(Default)]
pub(super) struct Digester(Blake2b512);

impl Digester {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl Digest {
    /// Computes the digest of all that can be read.
    ///
    /// # Errors
    /// The reader's.
    pub fn of(mut from: impl Read) -> io::Result<Self> {
        let mut digester = Digester::default();
        let mut piece = vec![0; PIECE];
        loop {
            match from.read(&mut piece)? {
                0 => return Ok(digester.finish()),
                read => digester.update(&piece[..read]),
            }
        }
    }

    /// Parses what [`Display`](fmt::Display) writes.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 64];
        if text.len() != 2 * bytes.len() {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            let digits = text.get(2 * at..2 * at + 2)?;
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("no digest"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_blake2b_512() {
        let digest = Digest::of(&b"abc"[..]).unwrap();
        // RFC 7693, appendix A.
        let known = "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1\
                     7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923";
        assert_eq!(digest.to_string(), known);
        assert_eq!(Digest::from_hex(known), Some(digest));
        for bad in ["", "zz", &known[2..], &known.replace('b', "g")] {
            assert_eq!(Digest::from_hex(bad), None, "{bad}");
        }
    }
}
