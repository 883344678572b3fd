//! The folder of a relay that joins a cluster: the members' common keys come over the enrolment, its own are made here.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{
    CLUSTER_KEY, DATABASE, DatabaseUrl, FILES, LOCK, MEMBER, MemberId, QUIC_RESET_KEY,
    QUIC_TOKEN_KEY, RECORDING_KEY, RECORDINGS, SSH_CA_KEY, SSH_HOST_KEY, SigningKey, State,
    StateError, TUNNEL_KEY, database, files, host_key::SSH_HOST_KEY_NEXT, keys,
};

/// Exists while a join is at work, and holds the new relay's tunnel key: the same join may be tried again.
const JOINING: &str = "joining";

/// The keys that all members have.
const SHARED: [&str; 4] = [CLUSTER_KEY, SSH_HOST_KEY, SSH_CA_KEY, RECORDING_KEY];

/// A folder in which a join is at work.
pub(crate) struct JoiningFolder {
    dir: PathBuf,
    tunnel: SigningKey,
    _lock: File,
}

impl State {
    /// Returns the keys that all members of the cluster have: the names of their files, and what is in them.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn shared_keys(&self) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        let next = self.dir.join(SSH_HOST_KEY_NEXT).exists();
        let next = next.then_some(SSH_HOST_KEY_NEXT);
        let read = |name: &str| Ok((name.to_owned(), files::read(&self.dir.join(name))?));
        SHARED.into_iter().chain(next).map(read).collect()
    }
}

impl JoiningFolder {
    /// Begins a join in a folder that is empty, or in which one was cut short.
    ///
    /// # Errors
    /// [`StateError::InUse`] if a relay has it already.
    pub(crate) fn begin(dir: &Path) -> Result<Self, StateError> {
        files::make_folder(dir)?;
        files::check_owner(dir)?;
        let present = files::names(dir)?;
        if present.is_empty() {
            files::tighten_folder(dir)?;
        }
        files::check_folder(dir)?;
        let lock = files::lock(&dir.join(LOCK), dir)?;
        let marker = dir.join(JOINING);
        let is_joining = marker.exists();
        if !is_joining && present.iter().any(|name| name != LOCK) {
            return Err(StateError::InUse(dir.to_owned()));
        }
        if !is_joining {
            files::write(&marker, SigningKey::random()?.pkcs8())?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            tunnel: keys::read_signing(&marker)?,
            _lock: lock,
        })
    }

    /// Returns the key by which the others will know this relay.
    #[must_use]
    pub(crate) fn tunnel_key(&self) -> &SigningKey {
        &self.tunnel
    }

    /// Writes the folder of the new member.
    ///
    /// # Errors
    /// [`StateError`]; the join may be tried again then.
    pub(crate) fn finish(
        self,
        member: MemberId,
        shared: &[(String, Vec<u8>)],
        url: &DatabaseUrl,
    ) -> Result<(), StateError> {
        let write = |name: &str, bytes: &[u8]| files::write(&self.dir.join(name), bytes);
        for name in SHARED.into_iter().chain([SSH_HOST_KEY_NEXT]) {
            match shared.iter().find(|(key, _)| key == name) {
                Some((_, bytes)) => write(name, bytes)?,
                None if name == SSH_HOST_KEY_NEXT => {}
                None => return Err(StateError::Missing(self.dir.join(name))),
            }
        }
        write(TUNNEL_KEY, self.tunnel.pkcs8())?;
        for name in [QUIC_RESET_KEY, QUIC_TOKEN_KEY] {
            write(name, &keys::random_bytes::<64>()?)?;
        }
        write(DATABASE, b"")?;
        files::make_folder(&self.dir.join(RECORDINGS))?;
        write(MEMBER, format!("{member}\n").as_bytes())?;
        database::remember(&self.dir, url)?;
        // What came is whole, or the marker stays.
        State::read(&self.dir, None)?;
        files::remove(&self.dir.join(JOINING))
    }
}

/// Refuses a folder in which a join was cut short.
pub(super) fn check_joined(dir: &Path) -> Result<(), StateError> {
    match dir.join(JOINING).exists() {
        true => Err(StateError::Joining(dir.to_owned())),
        false => Ok(()),
    }
}

/// Reads which member a folder belongs to.
pub(super) fn member_of(dir: &Path) -> Result<MemberId, StateError> {
    let path = dir.join(MEMBER);
    if !path.exists() {
        return Ok(MemberId::FIRST);
    }
    let text = files::read(&path)?;
    let text = String::from_utf8_lossy(&text);
    MemberId::from_hex(text.trim()).ok_or_else(|| StateError::Damaged {
        file: path,
        expected: "32 hexadecimal digits",
        found: format!("{} bytes", text.len()),
    })
}

/// Returns whether a folder was begun by a first start or by a join.
pub(super) fn is_started(names: &[String]) -> bool {
    let ours = |name: &String| FILES.contains(&name.as_str());
    names.iter().any(ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Database;

    const ID: MemberId = MemberId([0xab; 16]);

    #[test]
    fn relay_that_joins_has_the_common_keys_and_its_own_tunnel_key() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        let url = DatabaseUrl::new("postgres://hf@db/x").unwrap();
        let member = State::create_or_open(&first).unwrap();
        assert_eq!(member.member, MemberId::FIRST);
        let shared = member.shared_keys().unwrap();
        assert_eq!(shared.len(), 4);
        let begun = JoiningFolder::begin(&second).unwrap();
        let key = begun.tunnel_key().public();
        assert!(matches!(
            JoiningFolder::begin(&second),
            Err(StateError::Locked { .. })
        ));
        drop(begun);
        // Cut short: nothing serves from it, and it may be tried again.
        for refused in [
            State::create_or_open(&second).unwrap_err(),
            State::open(&second).unwrap_err(),
        ] {
            assert!(matches!(refused, StateError::Joining(_)), "{refused}");
        }
        let again = JoiningFolder::begin(&second).unwrap();
        assert_eq!(again.tunnel_key().public(), key);
        let missing = again.finish(ID, &shared[..3], &url);
        assert!(matches!(missing, Err(StateError::Missing(_))));
        let again = JoiningFolder::begin(&second).unwrap();
        again.finish(ID, &shared, &url).unwrap();

        let joined = State::create_or_open(&second).unwrap();
        assert_eq!(joined.member, ID);
        assert_eq!(joined.tunnel.public(), key);
        assert_eq!(joined.database(), &Database::Server(url));
        assert_eq!(joined.cluster.public(), member.cluster.public());
        assert_eq!(joined.ssh_host.public_key(), member.ssh_host.public_key());
        assert_eq!(joined.ssh_ca.public_key(), member.ssh_ca.public_key());
        assert_eq!(joined.recording.public(), member.recording.public());
        assert_ne!(joined.quic_reset_key, member.quic_reset_key);
        for taken in [&first, &second] {
            drop(State::open(taken).unwrap());
        }
        drop(joined);
        assert!(matches!(
            JoiningFolder::begin(&second),
            Err(StateError::InUse(_))
        ));
    }
}
