//! The signature beside a new version of the program: what minisign writes (`minisign -S`), checked with the key that
//! the device pinned. Nothing here reads a file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::identity::release::ReleaseKey;
use ring::signature::{ED25519, UnparsedPublicKey};
use thiserror::Error;

use crate::service::digest::Digest;

/// Minisign's name of Ed25519 over the file's BLAKE2b-512: its default since version 0.10.
const HASHED: &[u8] = b"ED";
/// Ed25519 over the file itself, which would have to be in memory whole.
const LEGACY: &[u8] = b"Ed";
const TRUSTED: &str = "trusted comment: ";
const UNTRUSTED: &str = "untrusted comment: ";

/// A signature that was read, and not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    key: [u8; 8],
    signature: [u8; 64],
    comment: String,
    /// The signature over the first signature and the comment.
    comment_signature: [u8; 64],
}

/// The further content of a valid signature: a time and a file name, unless the signer chose otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TrustedComment(pub String);

/// The reason why a file is not what the owner of the key signed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// Not minisign's format.
    #[error("not a minisign signature: make it again with `minisign -S`")]
    Malformed,
    /// Not hashed before it was signed.
    #[error("it is of minisign's legacy kind: make it again with `minisign -S`, without -l")]
    Legacy,
    /// Signed by another key.
    #[error(
        "it was made with another key than the one that this device pinned ({pinned}): sign with that one, or pin the new one with `edge-agent join --release-key KEY`"
    )]
    OtherKey {
        /// The device's.
        pinned: String,
    },
    /// Not over this file.
    #[error("it does not match the file: one of the two was changed; fetch both again")]
    Forged,
    /// Not over this comment.
    #[error("its trusted comment {comment} was changed after it was signed; fetch it again", comment = Escaped(.0))]
    ForgedComment(String),
}

impl Signature {
    /// Reads the four lines of a `.minisig` file.
    ///
    /// # Errors
    /// [`SignatureError::Malformed`] and [`SignatureError::Legacy`].
    pub(super) fn parse(text: &str) -> Result<Self, SignatureError> {
        let mut lines = text.lines();
        let mut line = || lines.next().ok_or(SignatureError::Malformed);
        if !line()?.starts_with(UNTRUSTED) {
            return Err(SignatureError::Malformed);
        }
        let signature: [u8; 74] = decode(line()?)?;
        let comment = line()?
            .strip_prefix(TRUSTED)
            .ok_or(SignatureError::Malformed)?
            .to_owned();
        let comment_signature = decode(line()?)?;
        let (algorithm, rest) = signature.split_at(HASHED.len());
        if algorithm == LEGACY {
            return Err(SignatureError::Legacy);
        }
        if algorithm != HASHED {
            return Err(SignatureError::Malformed);
        }
        let (key, signature) = rest.split_at(8);
        Ok(Self {
            key: key.try_into().map_err(|_| SignatureError::Malformed)?,
            signature: signature
                .try_into()
                .map_err(|_| SignatureError::Malformed)?,
            comment,
            comment_signature,
        })
    }

    /// Checks whether it could be of this key at all: to be asked before a long file is read.
    ///
    /// # Errors
    /// [`SignatureError::OtherKey`].
    pub(super) fn is_of(&self, key: &ReleaseKey) -> Result<(), SignatureError> {
        if self.key == key.id {
            return Ok(());
        }
        Err(SignatureError::OtherKey {
            pinned: key.to_string(),
        })
    }

    /// Checks it over a file with this digest.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub(super) fn verify(
        self,
        key: &ReleaseKey,
        file: &Digest,
    ) -> Result<TrustedComment, SignatureError> {
        self.is_of(key)?;
        let holds = |message: &[u8], signature: &[u8]| {
            UnparsedPublicKey::new(&ED25519, key.key.0)
                .verify(message, signature)
                .is_ok()
        };
        if !holds(&file.0, &self.signature) {
            return Err(SignatureError::Forged);
        }
        let with_comment = [&self.signature, self.comment.as_bytes()].concat();
        if !holds(&with_comment, &self.comment_signature) {
            return Err(SignatureError::ForgedComment(self.comment));
        }
        Ok(TrustedComment(self.comment))
    }
}

fn decode<const N: usize>(line: &str) -> Result<[u8; N], SignatureError> {
    let bytes = STANDARD
        .decode(line.trim_end())
        .map_err(|_| SignatureError::Malformed)?;
    bytes.try_into().map_err(|_| SignatureError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Made by minisign 0.11 over the file "a new agent\n".
    const KEY: &str = "RWQ0ZvBD3qMc87ItdmGuC7HlCQlW4JOACk7I6L9CtP7QDodLvdtjWmN5";
    const OTHER_KEY: &str = "RWSc5eBc1Iiz1wlAriup9PTh+CWgCTPrISWueVo+FswP/tW1s0YtdMOE";
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key
RUQ0ZvBD3qMc83isBO3hVoS0o2TDPjmxQLEHxgiya4/XWAFvtVULO7tjP/l5vG+D5n3dZ1cH/JI4BjYitVN/tVrkh8NszHpaMgc=
trusted comment: edge-agent 0.2.0
qhqZTtASfrxyeapeFjzK6YkYyBc1pLK9adEAxQJQ7Aq8856YWLhySxL0DEsbcQTQoqqSAuS/XVmVt9jdsR1DDg==
";
    const LEGACY_SIGNATURE: &str = "untrusted comment: signature from minisign secret key
RWQ0ZvBD3qMc8+nKAoDHtcyBgC3pW6yhK/p655la9KZzmgRhw/CQDrupwQmkgQlTOiBQYKBQgC1NDiNnKgwKZewNdsseNKe8Hgo=
trusted comment: edge-agent 0.2.0
0eeE1PQ7NQsXgBMr18a6oGenMO1hn4DT8tA0gNVKeDTUiRwIMxXYDnYCttrjsBtJyq3QOV/KkgpiiE5rR21vCw==
";

    fn verify(text: &str, key: &ReleaseKey, file: &[u8]) -> Result<TrustedComment, SignatureError> {
        let digest = Digest::of(file).unwrap();
        Signature::parse(text)?.verify(key, &digest)
    }

    #[test]
    fn only_this_file_with_this_comment_under_this_key_is_taken() {
        let key: ReleaseKey = KEY.parse().unwrap();
        let file = b"a new agent\n";
        let comment = TrustedComment("edge-agent 0.2.0".into());
        assert_eq!(verify(SIGNATURE, &key, file), Ok(comment.clone()));
        let crlf = SIGNATURE.replace('\n', "\r\n");
        assert_eq!(verify(&crlf, &key, file), Ok(comment));

        let forged = Err(SignatureError::Forged);
        assert_eq!(verify(SIGNATURE, &key, b"a new agent"), forged);
        assert_eq!(verify(SIGNATURE, &key, b""), forged);
        // The identifier is not what proves.
        let mut disguised: ReleaseKey = OTHER_KEY.parse().unwrap();
        disguised.id = key.id;
        assert_eq!(verify(SIGNATURE, &disguised, file), forged);
        let other = verify(SIGNATURE, &OTHER_KEY.parse().unwrap(), file);
        assert!(matches!(other, Err(SignatureError::OtherKey { .. })));

        let comment = SIGNATURE.replace("0.2.0", "9.9.9");
        let forged = SignatureError::ForgedComment("edge-agent 9.9.9".into());
        assert_eq!(verify(&comment, &key, file), Err(forged));
        let legacy = verify(LEGACY_SIGNATURE, &key, file);
        assert_eq!(legacy, Err(SignatureError::Legacy));
        let lines: Vec<&str> = SIGNATURE.lines().collect();
        for missing in 0..lines.len() {
            let mut rest = lines.clone();
            rest.remove(missing);
            let parsed = Signature::parse(&rest.join("\n"));
            assert_eq!(parsed, Err(SignatureError::Malformed), "line {missing}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_changed_signature_holds(text: String, at in 0..SIGNATURE.len(), byte: u8) {
            let _ = Signature::parse(&text);
            let mut changed = SIGNATURE.as_bytes().to_vec();
            changed[at] = byte;
            let changed = String::from_utf8_lossy(&changed).into_owned();
            let key = KEY.parse().unwrap();
            if verify(&changed, &key, b"a new agent\n").is_ok() {
                // Only the first line, which is not signed, may be anything, and the very end.
                let signed = |text: &str| text.trim_end().lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
                prop_assert_eq!(signed(&changed), signed(SIGNATURE));
            }
        }
    }
}
