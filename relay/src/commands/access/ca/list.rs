//! The input of a revocation: a list of `ssh-keygen -k`, or lines of keys and fingerprints.

use std::str::FromStr as _;

use holdfast_protocol::escape::Escaped;
use russh::keys::PublicKey;
use russh::keys::ssh_key::Fingerprint;
use thiserror::Error;

use crate::commands::Failure;
use crate::commands::limits::MAX_KEY_ID;
use crate::identity::keys::{prints, sha1_text, sha256_print, sha256_text};
use crate::identity::krl::{self, KrlEntry, KrlError};
use crate::store::RevokedThing;
use crate::store::limits::MAX_REVOCATIONS;

/// The reason why nothing of a file is revoked. It never repeats a line: the wrong file may hold a secret.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ListError {
    #[error("{file} cannot be used: {problem}")]
    Krl { file: String, problem: KrlError },
    #[error("{0} is a private key: give the public one, which ends in .pub")]
    Private(String),
    #[error(
        "{0} revokes nothing: expected public keys, SHA256:…, or a list of `ssh-keygen -k`; with --replace, an empty one removes all revocations"
    )]
    Empty(String),
    #[error("{0} has more than {MAX_REVOCATIONS} lines: make a list with `ssh-keygen -k`")]
    TooMany(String),
    #[error(
        "{file} revokes a key id of {length} bytes: no certificate may have one over {MAX_KEY_ID}"
    )]
    KeyId { file: String, length: usize },
    #[error(
        "{file} line {line}: expected a public key, SHA256:… or SHA1:…; for certificates, make a list with `ssh-keygen -k`"
    )]
    Line { file: String, line: usize },
}

impl From<ListError> for Failure {
    fn from(error: ListError) -> Self {
        Self(error.to_string())
    }
}

/// Reads all of it, or nothing. `file` is what to call it. A list without entries says that nothing is revoked; it is
/// taken where it `may_be_empty`.
pub(crate) fn parse(
    file: &str,
    bytes: &[u8],
    may_be_empty: bool,
) -> Result<Vec<RevokedThing>, ListError> {
    let file = Escaped(file).to_string();
    if krl::looks_like_one(bytes) {
        return match krl::parse(bytes, MAX_REVOCATIONS) {
            // What `ssh-keygen -k` made is no file that was truncated by mistake.
            Ok(list) => list
                .entries
                .into_iter()
                .map(|entry| thing(&file, entry))
                .collect(),
            Err(problem) => Err(ListError::Krl { file, problem }),
        };
    }
    let text = String::from_utf8_lossy(bytes);
    if text.contains("PRIVATE KEY-----") {
        return Err(ListError::Private(file));
    }
    let mut things = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some(print) = print_of_line(line) else {
            let line = number + 1;
            return Err(ListError::Line { file, line });
        };
        things.push(RevokedThing::Key(print));
        if things.len() > MAX_REVOCATIONS {
            return Err(ListError::TooMany(file));
        }
    }
    if things.is_empty() && !may_be_empty {
        return Err(ListError::Empty(file));
    }
    Ok(things)
}

/// Returns `SHA1:…` of a key in a line as the store has it.
pub(crate) fn sha1_of_line(line: &str) -> String {
    let key = PublicKey::from_openssh(line);
    key.map(|key| prints(key.key_data()).sha1)
        .unwrap_or_default()
}

fn thing(file: &str, entry: KrlEntry) -> Result<RevokedThing, ListError> {
    let name = |authority: krl::KrlAuthority| authority.map(|blob| sha256_print(&blob));
    Ok(match entry {
        KrlEntry::Key(blob) => RevokedThing::Key(sha256_print(&blob)),
        KrlEntry::Sha1(hash) => RevokedThing::Key(sha1_text(&hash)),
        KrlEntry::Sha256(hash) => RevokedThing::Key(sha256_text(&hash)),
        KrlEntry::Serials(authority, serials) => RevokedThing::Serials {
            authority: name(authority),
            serials,
        },
        KrlEntry::KeyId(_, id) if id.len() > MAX_KEY_ID => {
            let (file, length) = (file.to_owned(), id.len());
            return Err(ListError::KeyId { file, length });
        }
        // One that is no UTF-8 is no certificate's that gets in.
        KrlEntry::KeyId(authority, id) => RevokedThing::KeyId {
            authority: name(authority),
            id: String::from_utf8_lossy(&id).into_owned(),
        },
    })
}

/// Returns the fingerprint that a line gives, or that of the key in it. Weak keys are as good as any here.
fn print_of_line(line: &str) -> Option<String> {
    if let Some(hash) = line.strip_prefix("SHA1:") {
        let long = hash.len() == SHA1_LENGTH;
        let plain = hash
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
        return (long && plain).then(|| line.to_owned());
    }
    if line.starts_with("SHA256:") {
        // Read and written, so that one key has one spelling.
        let print = Fingerprint::from_str(line).ok()?;
        return print.is_sha256().then(|| print.to_string());
    }
    let mut words = line.split_ascii_whitespace();
    let (kind, blob) = (words.next()?, words.next()?);
    let key = PublicKey::from_openssh(&format!("{kind} {blob}")).ok()?;
    Some(prints(key.key_data()).sha256)
}

/// Characters of 20 bytes in base64 without padding.
const SHA1_LENGTH: usize = 27;

#[cfg(test)]
mod tests;
