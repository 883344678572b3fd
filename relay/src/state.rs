//! The state folder: the identity of a cluster and of its relay, and the lock that keeps a second
//! relay out.
//!
//! A key is made once, at the first start, and never again: a file that is missing, damaged or open to
//! others later on is an error with a remedy, because a new key would cut off every device and every
//! operator that trusts the old one.

mod database;
mod error;
mod files;
mod fingerprints;
mod host_key;
mod joining;
mod keys;
mod member;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use holdfast_protocol::ids::ClusterFingerprint;
use holdfast_protocol::recording::seal::RecordingSecret;
use russh::keys::{PrivateKey, PublicKey};

pub(crate) use database::{Database, DatabaseUrl};
pub(crate) use error::StateError;
pub(crate) use fingerprints::KeyFingerprint;
pub(crate) use joining::JoiningFolder;
pub(crate) use keys::SigningKey;
pub(crate) use keys::{random_bytes, sha256, verifies};
pub(crate) use member::MemberId;

/// The database of a folder that has none on a server; empty in one that has.
const DATABASE: &str = "relay.db";
const CLUSTER_KEY: &str = "cluster.key";
const TUNNEL_KEY: &str = "tunnel.key";
const SSH_HOST_KEY: &str = "ssh_host_ed25519_key";
const SSH_CA_KEY: &str = "ssh_ca_ed25519_key";
const QUIC_RESET_KEY: &str = "quic_reset.key";
const QUIC_TOKEN_KEY: &str = "quic_token.key";
/// The seed of the key that recordings are sealed to.
const RECORDING_KEY: &str = "recording.key";
/// The folder of recordings. It exists only beside their key, and distinguishes a key that was lost from one that a
/// state folder of an earlier version never had.
const RECORDINGS: &str = "recordings";
/// The member of the cluster that the folder belongs to; not in that of the first.
const MEMBER: &str = "member";
const LOCK: &str = "lock";

/// The public half of the SSH host key, as `ssh` reads it.
const KNOWN_HOSTS: &str = "ssh_known_hosts";

/// The name of the relay in `ssh_known_hosts`, at whatever address it is: the value of `HostKeyAlias`.
pub(crate) const HOST_KEY_ALIAS: &str = "holdfast-relay";

/// Exists while the first start is at work, so that a first start that was cut short is finished by
/// the next one, and a file that vanished later is distinguished from it.
const FIRST_START: &str = "first-start";

const FILES: [&str; 7] = [
    CLUSTER_KEY,
    TUNNEL_KEY,
    SSH_HOST_KEY,
    SSH_CA_KEY,
    QUIC_RESET_KEY,
    QUIC_TOKEN_KEY,
    DATABASE,
];

/// An open state folder.
#[derive(Debug)]
pub(crate) struct State {
    /// The path of the folder.
    pub dir: PathBuf,
    /// The member of the cluster that the folder belongs to.
    pub member: MemberId,
    /// Signs the roster. Devices pin it.
    pub cluster: SigningKey,
    /// This relay's key on the tunnel.
    pub tunnel: SigningKey,
    /// The relay's own SSH host key.
    pub ssh_host: PrivateKey,
    /// The one that follows it, while it is being replaced.
    pub ssh_host_next: Option<PrivateKey>,
    /// The one before it, if the relay has not started since it was replaced: clients are shown this one until then.
    pub ssh_host_served: Option<PublicKey>,
    /// Certifies the host keys that the relay shows in a device's name.
    pub ssh_ca: PrivateKey,
    /// Makes QUIC's stateless resets, so that they hold over a restart.
    pub quic_reset_key: Secret<[u8; 64]>,
    /// Seals QUIC's retry and address tokens.
    pub quic_token_key: Secret<[u8; 64]>,
    /// Opens recordings. Devices seal to its public half.
    pub recording: RecordingSecret,
    /// The database, which remembers everything else.
    database: Database,
    /// Held by the relay that serves; `None` beside it.
    _lock: Option<File>,
}

impl State {
    /// Opens the folder for the relay that serves from it, and makes it at the first start: the folder
    /// 0700, each file 0600, written whole or not at all.
    ///
    /// # Errors
    /// [`StateError`], which names the file and the remedy. [`StateError::Locked`] if a relay serves
    /// from this folder already.
    pub(crate) fn create_or_open(dir: &Path) -> Result<Self, StateError> {
        files::make_folder(dir)?;
        files::check_owner(dir)?;
        joining::check_joined(dir)?;
        let present = files::names(dir)?;
        if present.is_empty() {
            files::tighten_folder(dir)?;
        }
        files::check_folder(dir)?;
        let lock = files::lock(&dir.join(LOCK), dir)?;
        // Looked at again under the lock: another first start may have come between.
        let first_start = dir.join(FIRST_START);
        if !joining::is_started(&files::names(dir)?) {
            files::write(&first_start, b"")?;
        }
        if first_start.exists() {
            make_missing(dir)?;
            files::remove(&first_start)?;
        }
        make_recording_key(dir)?;
        let mut state = Self::read(dir, Some(lock))?;
        state.ssh_host_served = None;
        let next = state.ssh_host_next.as_ref();
        let keys: Vec<_> = [&state.ssh_host].into_iter().chain(next).collect();
        state.tell_ssh(&keys)?;
        Ok(state)
    }

    /// Opens the folder beside a relay that may be serving from it, without the lock.
    ///
    /// # Errors
    /// [`StateError`]; [`StateError::NoState`] where no relay was ever started.
    pub(crate) fn open(dir: &Path) -> Result<Self, StateError> {
        joining::check_joined(dir)?;
        let started = dir.is_dir() && joining::is_started(&files::names(dir)?);
        if !started || dir.join(FIRST_START).exists() {
            return Err(StateError::NoState(dir.to_owned()));
        }
        files::check_folder(dir)?;
        Self::read(dir, None)
    }

    /// Opens the folder of a relay that does not serve, and keeps one from starting. Root may do it too: what it writes
    /// belongs to the folder's account.
    ///
    /// # Errors
    /// [`StateError`]; [`StateError::Locked`] if a relay serves from this folder.
    pub(crate) fn open_exclusively(dir: &Path) -> Result<Self, StateError> {
        // What is not there must not be made by the lock.
        drop(Self::open(dir)?);
        let lock = files::lock(&dir.join(LOCK), dir)?;
        let state = Self::open(dir)?;
        Ok(Self {
            _lock: Some(lock),
            ..state
        })
    }

    /// Returns the fingerprint that a token contains and a device pins.
    #[must_use]
    pub(crate) fn cluster_fingerprint(&self) -> ClusterFingerprint {
        self.cluster.fingerprint()
    }

    /// Returns the path of the recordings.
    #[must_use]
    pub(crate) fn recordings(&self) -> PathBuf {
        self.dir.join(RECORDINGS)
    }

    /// Returns the path of the relay's own host key for `ssh`, under [`HOST_KEY_ALIAS`]. The relay writes it when it
    /// starts to serve.
    #[must_use]
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.dir.join(KNOWN_HOSTS)
    }

    /// Writes these keys into that file, unless it has them already.
    fn tell_ssh(&self, keys: &[&PrivateKey]) -> Result<(), StateError> {
        let mut lines = String::new();
        for key in keys {
            let key = key.public_key().to_openssh();
            let key =
                key.map_err(|_| StateError::Crypto("the SSH host key cannot be written as text"))?;
            lines.push_str(&format!("{HOST_KEY_ALIAS} {key}\n"));
        }
        let path = self.known_hosts();
        match files::read(&path) {
            Ok(found) if found == lines.as_bytes() => Ok(()),
            // Nothing is lost with it: it follows from the keys.
            _ => files::write(&path, lines.as_bytes()),
        }
    }

    fn read(dir: &Path, lock: Option<File>) -> Result<Self, StateError> {
        for name in FILES {
            if !dir.join(name).exists() {
                return Err(StateError::Missing(dir.join(name)));
            }
        }
        let recording = dir.join(RECORDING_KEY);
        if !recording.exists() {
            return Err(match dir.join(RECORDINGS).exists() {
                true => StateError::Missing(recording),
                false => StateError::Older(dir.to_owned()),
            });
        }
        let ssh_host = keys::read_ssh(&dir.join(SSH_HOST_KEY))?;
        let next = host_key::read_next(dir, &ssh_host)?;
        Ok(Self {
            ssh_host_served: host_key::read_served(dir, ssh_host.public_key(), next.as_ref()),
            ssh_host_next: next,
            ssh_host,
            member: joining::member_of(dir)?,
            cluster: keys::read_signing(&dir.join(CLUSTER_KEY))?,
            tunnel: keys::read_signing(&dir.join(TUNNEL_KEY))?,
            ssh_ca: keys::read_ssh(&dir.join(SSH_CA_KEY))?,
            quic_reset_key: keys::read_random(&dir.join(QUIC_RESET_KEY))?,
            quic_token_key: keys::read_random(&dir.join(QUIC_TOKEN_KEY))?,
            recording: RecordingSecret::from_seed(keys::read_seed(&recording)?.expose()),
            database: database::of_folder(dir)?,
            dir: dir.to_owned(),
            _lock: lock,
        })
    }
}

/// Bytes that no log, error or `Debug` may show.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps what must not be shown.
    pub(crate) const fn new(secret: T) -> Self {
        Self(secret)
    }

    /// Returns the secret itself, for the one who uses it.
    pub(crate) const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(masked)")
    }
}

/// Makes what the first start has not made yet. The database comes into being empty, for its mode.
fn make_missing(dir: &Path) -> Result<(), StateError> {
    for name in FILES {
        let path = dir.join(name);
        if path.exists() {
            continue;
        }
        match name {
            CLUSTER_KEY | TUNNEL_KEY => files::write(&path, SigningKey::random()?.pkcs8())?,
            SSH_HOST_KEY | SSH_CA_KEY => files::write(&path, keys::random_ssh()?.as_bytes())?,
            QUIC_RESET_KEY | QUIC_TOKEN_KEY => {
                files::write(&path, &keys::random_bytes::<64>()?)?;
            }
            _ => files::write(&path, b"")?,
        }
    }
    Ok(())
}

/// Makes the recordings' key for a folder that never had one: at the first start, and for folders of
/// versions without recordings. First the key, then the folder beside it.
fn make_recording_key(dir: &Path) -> Result<(), StateError> {
    let (key, recordings) = (dir.join(RECORDING_KEY), dir.join(RECORDINGS));
    if recordings.exists() {
        return Ok(());
    }
    if !key.exists() {
        files::write(&key, &keys::random_bytes::<32>()?)?;
    }
    files::make_folder(&recordings)
}

#[cfg(test)]
mod tests;
