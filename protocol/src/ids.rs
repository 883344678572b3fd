//! Names and identifiers. Each type proves its bound and its alphabet: a value that exists is valid.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::limits::{MAX_DEVICE_NAME, MAX_LABEL_KEY, MAX_LABEL_VALUE, MAX_LOGIN, MAX_USER};

/// The reason why a text is not a name. It never repeats the text, which may come from anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing stood where a name was expected.
    #[error("{0} must not be empty")]
    Empty(&'static str),
    /// The text is longer than the bound, which is given in bytes.
    #[error("{0} is longer than {1} bytes")]
    TooLong(&'static str, usize),
    /// A byte outside the alphabet of the name.
    #[error("{what} may hold only {alphabet}")]
    BadCharacter {
        /// The kind of name.
        what: &'static str,
        /// The expected content, in words.
        alphabet: &'static str,
    },
}

/// Defines a bounded, checked text: `new` is the only way in, and decoding goes through it.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:expr, $what:literal, $alphabet:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(heapless::String<{ $max }>);

        impl $name {
            /// Checks `text` for length and alphabet.
            ///
            /// # Errors
            /// [`NameError`] says which of them does not hold.
            pub fn new(text: &str) -> Result<Self, NameError> {
                if text.is_empty() {
                    return Err(NameError::Empty($what));
                }
                let check: fn(&str) -> bool = $check;
                if text.len() > $max {
                    return Err(NameError::TooLong($what, $max));
                }
                if !check(text) {
                    return Err(NameError::BadCharacter { what: $what, alphabet: $alphabet });
                }
                heapless::String::try_from(text)
                    .map(Self)
                    .map_err(|_| NameError::TooLong($what, $max))
            }

            /// Returns the text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <&str>::deserialize(from)?;
                Self::new(text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// The name of a device: one DNS label in lower case, so that it can stand as a host name in
    /// `ssh -J relay pi@NAME`, with `_` allowed because people use it.
    DeviceName,
    MAX_DEVICE_NAME,
    "a device name",
    "a-z, 0-9, '-' and '_', and begin and end with a letter or digit",
    |text| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        text.bytes().all(inner) && edge(text.as_bytes().first()) && edge(text.as_bytes().last())
    }
);

name!(
    /// The account on the device that a session runs as.
    Login,
    MAX_LOGIN,
    "a login",
    "letters, digits, '.', '_', '-' and a final '$', and not begin with '-' or '.'",
    |text| {
        let body = text.strip_suffix('$').unwrap_or(text);
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        !body.is_empty() && body.bytes().all(inner) && !body.starts_with(['-', '.'])
    }
);

name!(
    /// The name of an operator, as the relay knows it.
    UserName,
    MAX_USER,
    "a user name",
    "letters, digits, '.', '_', '-' and '@', and begin with a letter or digit",
    |text| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@');
        text.bytes().all(inner) && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
    }
);

name!(
    /// The key of a label.
    LabelKey,
    MAX_LABEL_KEY,
    "a label key",
    "letters, digits, '.', '_', '-' and '/', and begin with a letter or digit",
    |text| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
        text.bytes().all(inner) && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
    }
);

name!(
    /// The value of a label.
    LabelValue,
    MAX_LABEL_VALUE,
    "a label value",
    "letters, digits, '.', '_', '-', ':', '/' and '@'",
    |text| {
        let inner = |b: u8| {
            b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':' | b'/' | b'@')
        };
        text.bytes().all(inner)
    }
);

/// Defines sixteen or thirty-two bytes that mean one thing, shown in lower-case hexadecimal.
macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Reads the form that [`fmt::Display`] writes; `None` for anything else.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut out = [0_u8; $len];
                if text.len() != 2 * $len || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return None;
                }
                for (to, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let digit = |b: u8| char::from(b).to_digit(16);
                    let [high, low] = [digit(*pair.first()?)?, digit(*pair.get(1)?)?];
                    *to = u8::try_from(high * 16 + low).ok()?;
                }
                Some(Self(out))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

bytes_id!(
    /// A device, for as long as it keeps its key.
    DeviceId,
    16
);
bytes_id!(
    /// One session: one channel of one SSH connection.
    SessionId,
    16
);
bytes_id!(
    /// An Ed25519 public key, raw.
    PublicKey,
    32
);
bytes_id!(
    /// The SHA-256 of a cluster's public key: what a device pins when it joins.
    ClusterFingerprint,
    32
);

/// Orders the tunnels of one device: the newest wins.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Generation(pub u64);

/// The public half of a cluster's recording key: X25519, raw.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingKey(pub [u8; 32]);

/// The head of an Ed25519 SubjectPublicKeyInfo (RFC 8410 section 4): what precedes the raw key in
/// the 44 bytes that TLS 1.3 carries for a raw public key (RFC 7250).
const ED25519_SPKI_HEAD: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

impl PublicKey {
    /// Takes the key out of a SubjectPublicKeyInfo; `None` if it is no Ed25519 key.
    #[must_use]
    pub fn from_spki(spki: &[u8]) -> Option<Self> {
        let raw = spki.strip_prefix(&ED25519_SPKI_HEAD)?;
        raw.try_into().ok().map(Self)
    }

    /// Returns the SubjectPublicKeyInfo of this key.
    #[must_use]
    pub fn to_spki(self) -> [u8; 44] {
        let mut spki = [0_u8; 44];
        let (head, raw) = spki.split_at_mut(ED25519_SPKI_HEAD.len());
        head.copy_from_slice(&ED25519_SPKI_HEAD);
        raw.copy_from_slice(&self.0);
        spki
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;

    #[test]
    fn device_names_are_dns_labels() {
        for good in ["a", "kitchen-cam", "cam_2", "0x1f", &"a".repeat(63)] {
            assert!(DeviceName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a b",
            "a+b",
            "ä",
            "a\n",
            &"a".repeat(64),
        ] {
            assert!(DeviceName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn logins_cannot_look_like_options_or_paths() {
        for good in ["root", "pi", "_apt", "svc.x", "machine$", "Ann-Marie"] {
            assert!(Login::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-r", ".x", "a/b", "a b", "$", "a$b", "a:b", "x\0"] {
            assert!(Login::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hex_goes_both_ways() {
        let id = DeviceId([0x9c, 0x1e, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 255]);
        assert_eq!(DeviceId::from_hex(&id.to_string()), Some(id));
        assert_eq!(DeviceId::from_hex("9c"), None);
        assert_eq!(DeviceId::from_hex(&"+1".repeat(16)), None);
        assert_eq!(DeviceId::from_hex(&"é".repeat(16)), None);
    }

    #[test]
    fn an_ed25519_spki_is_44_bytes_and_others_are_refused() {
        let key = PublicKey([7; 32]);
        assert_eq!(PublicKey::from_spki(&key.to_spki()), Some(key));
        assert_eq!(PublicKey::from_spki(&key.to_spki()[..43]), None);
        assert_eq!(PublicKey::from_spki(&[0; 44]), None);
        assert_eq!(format!("{key:?}").len(), "PublicKey()".len() + 64);
    }
}
