//! Public keys as operators hand them in: what is taken, and a sentence for each thing that is not.

use holdfast_protocol::escape::Escaped;
use russh::keys::ssh_key::public::{KeyData, PublicKey};
use russh::keys::{Algorithm, HashAlg};
use thiserror::Error;

use crate::access::limits::MIN_RSA_BITS;
use crate::commands::Failure;
use crate::identity::keys::line_of;
use crate::store::UserKey;

/// The longest RSA keys, as with OpenSSH: longer ones cost the relay too much at each login.
const MAX_RSA_BITS: usize = 16_384;
/// Most keys in one file: one operator's, not a whole company's.
const MAX_KEYS: usize = 64;
/// Longest comment that is kept, in characters.
const MAX_COMMENT: usize = 128;

/// The reason why a text is no list of public keys. It never repeats a key: the wrong file may hold a secret.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum KeyFileError {
    #[error(
        "{0} is a private key: give the public one, which ends in .pub, and keep this one to yourself"
    )]
    Private(String),
    #[error("{0} is in another program's format: convert it with `ssh-keygen -i -f FILE`")]
    Foreign(String),
    #[error("{0} holds no key: expected lines like `ssh-ed25519 AAAA… comment`")]
    Empty(String),
    #[error("{0} holds more than {MAX_KEYS} keys: give one user's keys only")]
    TooMany(String),
    #[error("{file} line {line}: {problem}")]
    Line {
        file: String,
        line: usize,
        problem: LineError,
    },
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        Self(error.to_string())
    }
}

/// The fault in one line.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum LineError {
    #[error("expected a public key like `ssh-ed25519 AAAA… comment`, found something else")]
    NoKey,
    #[error("options before a key are not supported: give the key alone")]
    Options,
    #[error("a certificate is not a key: give the public key that it certifies")]
    Certificate,
    #[error("expected Ed25519, ECDSA, RSA or a security key, found type \"{0}\"")]
    UnknownType(String),
    #[error("DSA keys are broken: make a new key with `ssh-keygen -t ed25519`")]
    Dsa,
    #[error(
        "an RSA key must have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, this one has {0}: make a new key with `ssh-keygen -t ed25519`"
    )]
    RsaSize(usize),
    #[error("the {0} key is damaged or cut off: copy the whole line of the .pub file")]
    Damaged(String),
}

/// Reads the keys in the text of a `.pub` or `authorized_keys` file. `file` is what to call it.
pub(crate) fn parse(file: &str, text: &[u8]) -> Result<Vec<UserKey>, KeyFileError> {
    let file = Escaped(file).to_string();
    let text = String::from_utf8_lossy(text);
    if text.contains("PRIVATE KEY-----") || text.contains("PuTTY-User-Key-File") {
        return Err(KeyFileError::Private(file));
    }
    if text.contains("---- BEGIN SSH2 PUBLIC KEY") || text.contains("-----BEGIN ") {
        return Err(KeyFileError::Foreign(file));
    }
    let mut keys: Vec<UserKey> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = parse_line(line).map_err(|problem| KeyFileError::Line {
            file: file.clone(),
            line: number + 1,
            problem,
        })?;
        if keys
            .iter()
            .all(|other| other.fingerprint != key.fingerprint)
        {
            keys.push(key);
        }
        if keys.len() > MAX_KEYS {
            return Err(KeyFileError::TooMany(file));
        }
    }
    if keys.is_empty() {
        return Err(KeyFileError::Empty(file));
    }
    Ok(keys)
}

fn parse_line(line: &str) -> Result<UserKey, LineError> {
    let (kind, rest) = line.split_once([' ', '\t']).ok_or(LineError::NoKey)?;
    let known = check_type(kind, rest)?;
    let rest = rest.trim_start();
    let (blob, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    let damaged = || LineError::Damaged(known.to_owned());
    let key = PublicKey::from_openssh(&format!("{kind} {blob}")).map_err(|_| damaged())?;
    match key.key_data() {
        KeyData::Rsa(rsa) => {
            let modulus = rsa.n().as_positive_bytes().ok_or_else(damaged)?;
            let zeros = modulus
                .first()
                .map_or(0, |byte| byte.leading_zeros() as usize);
            let bits = (modulus.len() * 8).saturating_sub(zeros);
            if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
                return Err(LineError::RsaSize(bits));
            }
        }
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) | KeyData::SkEd25519(_) => {}
        KeyData::SkEcdsaSha2NistP256(_) => {}
        _ => return Err(damaged()),
    }
    Ok(UserKey {
        fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        public_key: line_of(&key),
        comment: comment.trim().chars().take(MAX_COMMENT).collect(),
    })
}

/// Checks whether keys of that type are taken; gives its everyday name.
fn check_type(kind: &str, rest: &str) -> Result<&'static str, LineError> {
    if kind.ends_with("-cert-v01@openssh.com") {
        return Err(LineError::Certificate);
    }
    match Algorithm::new(kind) {
        Ok(Algorithm::Ed25519) => Ok("Ed25519"),
        Ok(Algorithm::Ecdsa { .. }) => Ok("ECDSA"),
        Ok(Algorithm::Rsa { hash: None }) => Ok("RSA"),
        Ok(Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256) => Ok("security"),
        Ok(Algorithm::Dsa) => Err(LineError::Dsa),
        _ if rest.contains("ssh-") || rest.contains("ecdsa-sha2-") => Err(LineError::Options),
        _ if rest.trim_start().starts_with("AAAA") => {
            let shown: String = kind.chars().take(40).collect();
            Err(LineError::UnknownType(Escaped(&shown).to_string()))
        }
        _ => Err(LineError::NoKey),
    }
}

#[cfg(test)]
mod tests;
