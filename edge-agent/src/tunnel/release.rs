//! The key that new versions of the agent are signed with, pinned when the device enrols. It has a file of its own
//! beside the membership, so that an older agent that writes the membership anew does not forget it.

use holdfast_protocol::identity::release::ReleaseKey;

use crate::os::state::{StateDir, StateDirError};

const FILE: &str = "release.key";

/// Returns the pinned key; `None` if there is none.
///
/// # Errors
/// [`StateDirError`] if it is there but cannot be used.
pub fn load(state: &StateDir) -> Result<Option<ReleaseKey>, StateDirError> {
    let Some(bytes) = state.read(FILE)? else {
        return Ok(None);
    };
    let key = str::from_utf8(&bytes).ok().map(str::parse);
    match key {
        Some(Ok(key)) => Ok(Some(key)),
        _ => Err(StateDirError::BadReleaseKey(state.file(FILE))),
    }
}

/// Pins a key, in place of one that may be there.
///
/// # Errors
/// [`StateDirError`].
pub fn pin(state: &StateDir, key: &ReleaseKey) -> Result<(), StateDirError> {
    state.write(FILE, format!("{key}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_protocol::ids::PublicKey;

    #[test]
    fn a_pinned_key_stays_and_a_damaged_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::create_or_open(folder.path()).unwrap();
        assert_eq!(load(&state).unwrap(), None);
        let key = ReleaseKey {
            id: [1; 8],
            key: PublicKey([2; 32]),
        };
        pin(&state, &key).unwrap();
        assert_eq!(load(&state).unwrap(), Some(key));
        for bad in [&b""[..], b"RW", b"\xff\xff"] {
            state.write(FILE, bad).unwrap();
            let error = load(&state).unwrap_err().to_string();
            assert!(error.contains("--release-key"), "{error}");
        }
    }
}
