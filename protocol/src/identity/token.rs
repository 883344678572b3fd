//! The enrolment token: all that a device needs to join.
//!
//! `hf1.` + address + `.` + base64url(cluster fingerprint, 32 bytes, then secret, 20 bytes). The secret
//! is never shown by `Debug`, and the relay keeps only its hash.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;

use crate::ids::ClusterFingerprint;
use crate::limits::MAX_ADDRESS;

const PREFIX: &str = "hf1.";
const SECRET_LEN: usize = 20;
const PAYLOAD_LEN: usize = 32 + SECRET_LEN;

/// The first message, to the relay that proved to be of the right cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret(pub [u8; SECRET_LEN]);

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(masked)")
    }
}

/// A parsed enrolment token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// `host:port` of the relay's tunnel.
    pub address: String,
    /// The SHA-256 of the cluster's public key.
    pub fingerprint: ClusterFingerprint,
    /// The part that the relay checks.
    pub secret: TokenSecret,
}

/// The reason why a text is no token. It never repeats the text, which may hold a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It begins otherwise.
    #[error("a token begins with \"hf1.\": copy the whole line that `relay token create` printed")]
    Prefix,
    /// The part between the first and the last dot is no `host:port`.
    #[error(
        "the token's address must be HOST:PORT: copy the whole line that `relay token create` printed"
    )]
    Address,
    /// The last part is damaged or cut.
    #[error(
        "the token is damaged or cut off: copy the whole line that `relay token create` printed"
    )]
    Payload,
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let rest = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let (address, payload) = rest.rsplit_once('.').ok_or(TokenError::Payload)?;
        if !is_address(address) {
            return Err(TokenError::Address);
        }
        let mut bytes = [0_u8; PAYLOAD_LEN];
        // The exact length is checked first: decoding into a slice wants room for its estimate.
        let decoded = URL_SAFE_NO_PAD.decode_slice(payload, &mut bytes);
        if decoded != Ok(PAYLOAD_LEN) {
            return Err(TokenError::Payload);
        }
        let (fingerprint, secret) = bytes.split_at(32);
        Ok(Self {
            address: address.to_string(),
            fingerprint: ClusterFingerprint(
                fingerprint.try_into().map_err(|_| TokenError::Payload)?,
            ),
            secret: TokenSecret(secret.try_into().map_err(|_| TokenError::Payload)?),
        })
    }
}

impl Token {
    /// Returns the text that an operator copies. It holds the secret: print it once, log it never.
    #[must_use]
    pub fn expose(&self) -> String {
        let mut payload = [0_u8; PAYLOAD_LEN];
        payload[..32].copy_from_slice(&self.fingerprint.0);
        payload[32..].copy_from_slice(&self.secret.0);
        format!(
            "{PREFIX}{}.{}",
            self.address,
            URL_SAFE_NO_PAD.encode(payload)
        )
    }
}

/// Returns whether `text` has the form `host:port`, `1.2.3.4:port` or `[v6]:port`, with a port from 1 up.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_fits = match bare {
        Some(v6) => v6.parse::<core::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    };
    let port_fits =
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    text.len() <= MAX_ADDRESS && host_fits && port_fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(address: &str) -> Token {
        Token {
            address: address.to_string(),
            fingerprint: ClusterFingerprint([0xfb; 32]),
            secret: TokenSecret([0xff; 20]),
        }
    }

    #[test]
    fn a_token_reads_back_whatever_its_address() {
        for address in [
            "relay.example.com:4433",
            "10.0.0.1:1",
            "[2001:db8::1]:65535",
            "localhost:9",
        ] {
            let token = token(address);
            assert_eq!(token.expose().parse(), Ok(token));
        }
    }

    #[test]
    fn a_damaged_token_says_what_is_wrong() {
        let good = token("relay:4433").expose();
        let parse = |text: &str| text.parse::<Token>().unwrap_err();
        assert_eq!(parse(""), TokenError::Prefix);
        assert_eq!(parse("hf2.relay:4433.x"), TokenError::Prefix);
        assert_eq!(parse("hf1.x"), TokenError::Payload);
        assert_eq!(parse(&good.replace(":4433", "")), TokenError::Address);
        assert_eq!(parse(&good.replace(":4433", ":0")), TokenError::Address);
        assert_eq!(parse(&good.replace("relay", "re lay")), TokenError::Address);
        assert_eq!(parse(&good[..good.len() - 1]), TokenError::Payload);
        assert_eq!(parse(&(good.clone() + "A")), TokenError::Payload);
        assert_eq!(parse(&(good + "\n")), TokenError::Payload);
    }

    #[test]
    fn debug_never_shows_the_secret() {
        let shown = format!("{:?}", token("relay:4433"));
        assert!(shown.contains("masked") && !shown.contains("255"));
    }

    proptest! {
        #[test]
        fn no_text_panics_the_parser(text: String, tail in "[a-z:.0-9A-Z_-]{0,90}") {
            let _ = text.parse::<Token>();
            let _ = format!("hf1.{tail}").parse::<Token>();
        }
    }
}
