//! The replacement of the relay's SSH host key. A client pins it, and a server shows one key of each type, so that two
//! cannot be served at a time: instead, the next key is made beforehand, the relay lists both to its clients, and then
//! it takes the present one's place.

use std::path::Path;

use russh::keys::{PrivateKey, PublicKey};

use super::{KNOWN_HOSTS, SSH_HOST_KEY, State, StateError, files, keys};

/// The key that follows the present one.
pub(super) const SSH_HOST_KEY_NEXT: &str = "ssh_host_ed25519_key.next";

impl State {
    /// Returns the host keys that the relay can prove: the one that this state was opened with, which comes first, and
    /// those that are in the folder by now. No key comes twice.
    ///
    /// # Errors
    /// [`StateError`]: a key cannot be read.
    pub(crate) fn host_keys(&self) -> Result<Vec<PrivateKey>, StateError> {
        let present = keys::read_ssh(&self.dir.join(SSH_HOST_KEY))?;
        let next = read_next(&self.dir, &present)?;
        let mut all = vec![self.ssh_host.clone()];
        for key in [Some(present), next].into_iter().flatten() {
            let is_new =
                |known: &PrivateKey| known.public_key().key_data() != key.public_key().key_data();
            if all.iter().all(is_new) {
                all.push(key);
            }
        }
        Ok(all)
    }

    /// Makes the key that follows the present one, unless there is one, and returns it. `ssh_known_hosts` names both.
    ///
    /// # Errors
    /// [`StateError`]: a file cannot be written.
    pub(crate) fn make_next_host_key(&mut self) -> Result<&PrivateKey, StateError> {
        let path = self.dir.join(SSH_HOST_KEY_NEXT);
        if self.ssh_host_next.is_none() {
            files::write(&path, keys::random_ssh()?.as_bytes())?;
        }
        let next = self.ssh_host_next.insert(keys::read_ssh(&path)?).clone();
        self.tell_ssh(&[&self.ssh_host, &next])?;
        Ok(self.ssh_host_next.insert(next))
    }

    /// Puts the next key into the present one's place, for the next start of the relay, and returns whether there was
    /// one. `ssh_known_hosts` names both until then, because a relay that runs still shows the old one.
    ///
    /// # Errors
    /// [`StateError`]: a file cannot be written.
    pub(crate) fn use_next_host_key(&mut self) -> Result<bool, StateError> {
        let Some(next) = self.ssh_host_next.take() else {
            return Ok(false);
        };
        let path = self.dir.join(SSH_HOST_KEY_NEXT);
        files::write(&self.dir.join(SSH_HOST_KEY), &files::read(&path)?)?;
        // Cut short here, both files hold the same key, and the one that is left over is not read.
        files::remove(&path)?;
        self.tell_ssh(&[&next, &self.ssh_host])?;
        self.ssh_host_served = Some(self.ssh_host.public_key().clone());
        self.ssh_host = next;
        Ok(true)
    }
}

/// Returns the key that the relay serves with until its next start, if that is neither the present nor the next one:
/// `ssh_known_hosts` names it until then.
pub(super) fn read_served(
    dir: &Path,
    present: &PublicKey,
    next: Option<&PrivateKey>,
) -> Option<PublicKey> {
    let known = files::read(&dir.join(KNOWN_HOSTS)).ok()?;
    let known = String::from_utf8(known).ok()?;
    let keys = known.lines().filter_map(|line| line.split_once(' '));
    let mut keys = keys.filter_map(|(_, key)| PublicKey::from_openssh(key).ok());
    let is_same = |one: &PublicKey, other: &PublicKey| one.key_data() == other.key_data();
    keys.find(|key| {
        !is_same(key, present) && !next.is_some_and(|next| is_same(key, next.public_key()))
    })
}

/// Reads the next key, if there is one that is not the present one already.
pub(super) fn read_next(
    dir: &Path,
    present: &PrivateKey,
) -> Result<Option<PrivateKey>, StateError> {
    let path = dir.join(SSH_HOST_KEY_NEXT);
    if !path.exists() {
        return Ok(None);
    }
    let next = keys::read_ssh(&path)?;
    Ok((next.public_key() != present.public_key()).then_some(next))
}
