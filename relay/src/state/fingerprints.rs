//! The fingerprints of the keys that belong together. The store remembers them, so that a file that was mixed up with
//! another relay's, or restored from the wrong backup, is noticed before anybody relies on it.

use russh::keys::{HashAlg, PrivateKey};

use super::{
    CLUSTER_KEY, MemberId, QUIC_RESET_KEY, QUIC_TOKEN_KEY, RECORDING_KEY, SSH_CA_KEY, SSH_HOST_KEY,
    State, TUNNEL_KEY, keys,
};
use crate::hex::hex;
use std::path::PathBuf;

/// The prefix of a secret whose digest is its fingerprint: it is a digest of nothing else.
const CONTEXT: &[u8] = b"holdfast key fingerprint v1\0";

/// The keys that each member has for itself.
const OWN: [&str; 3] = [TUNNEL_KEY, QUIC_RESET_KEY, QUIC_TOKEN_KEY];

/// One key of a state folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyFingerprint {
    /// Its file's name.
    pub name: &'static str,
    /// The path of the file.
    pub file: PathBuf,
    /// Its fingerprint: of SSH keys as `ssh-keygen -l` shows it, of others in hexadecimal.
    pub fingerprint: String,
    /// The effect of another key.
    pub breaks: &'static str,
    /// The member whose key it is; `None`: all have it.
    pub owner: Option<MemberId>,
}

impl KeyFingerprint {
    /// Returns the name by which the store knows it. The first member's are known by their files alone, as the keys are
    /// that all members have.
    #[must_use]
    pub(crate) fn noted_as(&self) -> String {
        match self.owner {
            None | Some(MemberId::FIRST) => self.name.to_owned(),
            Some(member) => format!("{}@{member}", self.name),
        }
    }
}

impl State {
    /// Returns the fingerprints of all keys.
    #[must_use]
    pub(crate) fn key_fingerprints(&self) -> [KeyFingerprint; 7] {
        let ssh = |key: &PrivateKey| key.public_key().fingerprint(HashAlg::Sha256).to_string();
        let secret = |key: &[u8; 64]| hex(&keys::sha256(&[CONTEXT, key].concat()));
        let all = [
            (
                CLUSTER_KEY,
                self.cluster.fingerprint().to_string(),
                "no device would trust this relay",
            ),
            (
                TUNNEL_KEY,
                self.tunnel.fingerprint().to_string(),
                "devices would refuse the tunnel until they get a new roster",
            ),
            (
                SSH_HOST_KEY,
                ssh(&self.ssh_host),
                "operators' clients would warn of another host",
            ),
            (
                SSH_CA_KEY,
                ssh(&self.ssh_ca),
                "operators' clients would refuse every device behind the relay",
            ),
            (
                QUIC_RESET_KEY,
                secret(self.quic_reset_key.expose()),
                "devices would not notice a restart of the relay at once",
            ),
            (
                QUIC_TOKEN_KEY,
                secret(self.quic_token_key.expose()),
                "devices would have to prove their addresses again",
            ),
            (
                RECORDING_KEY,
                self.recording.public().id().to_string(),
                "recordings that are sealed to the expected key could not be read",
            ),
        ];
        all.map(|(name, fingerprint, breaks)| KeyFingerprint {
            name,
            file: self.dir.join(name),
            fingerprint,
            breaks,
            owner: OWN.contains(&name).then_some(self.member),
        })
    }
}
