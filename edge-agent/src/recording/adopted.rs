//! The spool's folder that this device has adopted: while no other one was used, the agent says what is gone from it.
//! Another folder, because a disk is not mounted or another one is configured, says nothing of recordings that wait in the
//! first, and the first nothing of those in the other.

use std::fs;
use std::io;
use std::path::Path;

use super::boot::SpoolPlace;
use super::spool_fs::Folder;
use crate::os::state::replace;
use crate::recording::limits::MAX_SPOOL_ID;
use crate::warn;

/// The file that makes a folder outside the state folder known again.
const ID: &str = "id";
/// The name under which it is written first.
const NEW: &str = "id.new";
/// The file's text of a device that has just joined: the first folder that it uses is the only one.
const JOINED: &str = "joined\n";
/// The file's text once a second folder was used, or may have been.
const SEVERAL: &str = "several\n";
/// A new random text for each reading.
const RANDOM: &str = "/proc/sys/kernel/random/uuid";

/// Notes in the file that a device has just joined: no agent has recorded anything for it.
///
/// # Errors
/// The file can't be written.
pub(super) fn note_joined(file: &Path) -> io::Result<()> {
    replace(file, JOINED.as_bytes(), 0o600)
}

/// Returns whether the folder, which is at `path`, is the only one that was used since `file` was written, which names
/// the first. Once another one was used, none is, until the file is removed: recordings may wait in each of them. What
/// cannot be remembered is not adopted.
///
/// A device without the file had an agent before that wrote none. If its folder is not `is_used`, recordings may wait in
/// another one: a disk may not be mounted, or the folder was changed at the upgrade. A folder in memory is empty after
/// each start, and taken for the one of before.
pub(super) fn is_adopted(
    file: &Path,
    path: &Path,
    folder: &Folder,
    place: SpoolPlace,
    is_used: bool,
) -> bool {
    let write = |text: &str| replace(file, text.as_bytes(), 0o600);
    let present = identity(path, folder, place).inspect_err(|_| {
        // It may be a second one, and is used. That this may fail as well is only as before.
        let _ = write(SEVERAL);
    });
    let compared = present.and_then(|present| {
        let adopt = || write(&format!("{present}\n")).map(|()| true);
        match fs::read_to_string(file) {
            Ok(adopted) if adopted.trim_end() == present => Ok(true),
            Ok(adopted) if adopted == JOINED => adopt(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match is_used || place == SpoolPlace::Memory {
                    true => adopt(),
                    false => write(SEVERAL).map(|()| false),
                }
            }
            Ok(_) => write(SEVERAL).map(|()| false),
            Err(error) => Err(error),
        }
    });
    compared.unwrap_or_else(|error| {
        warn!("cannot say whether the spool's folder is that of before: {error}");
        false
    })
}

/// Returns a line that names the folder. What is in memory is known by its path, because a restart empties it.
fn identity(path: &Path, folder: &Folder, place: SpoolPlace) -> io::Result<String> {
    match place {
        SpoolPlace::State => Ok("state".to_owned()),
        SpoolPlace::Memory => Ok(format!("memory {:?}", path.as_os_str())),
        SpoolPlace::Elsewhere => {
            let id = match folder.read_note(ID, MAX_SPOOL_ID) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let id = fs::read_to_string(RANDOM)?;
                    folder.write_note(ID, NEW, id.as_bytes())?;
                    id
                }
                read => read?,
            };
            Ok(format!("id {}", id.trim_end()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_that_takes_the_place_of_the_adopted_one_is_not() {
        let temporary = tempfile::tempdir().unwrap();
        let path = |name: &str| temporary.path().join(name);
        let spool = path("spool");
        let file = path("adopted");
        let is_adopted = |place| {
            let folder = Folder::open(&spool).unwrap();
            super::is_adopted(&file, &spool, &folder, place, true)
        };
        for _ in 0..2 {
            assert!(is_adopted(SpoolPlace::Elsewhere));
        }
        // What is below the place where a disk is mounted: also at the second start.
        fs::rename(&spool, path("disk")).unwrap();
        for _ in 0..2 {
            assert!(!is_adopted(SpoolPlace::Elsewhere));
        }
        // What was recorded meanwhile is not in the first one.
        fs::remove_dir_all(&spool).unwrap();
        fs::rename(path("disk"), &spool).unwrap();
        assert!(!is_adopted(SpoolPlace::Elsewhere));
        fs::remove_file(&file).unwrap();
        for _ in 0..2 {
            assert!(is_adopted(SpoolPlace::Elsewhere));
        }
        // Another folder is configured.
        assert!(!is_adopted(SpoolPlace::State) && !is_adopted(SpoolPlace::Elsewhere));
        fs::remove_file(&file).unwrap();
        for _ in 0..2 {
            assert!(is_adopted(SpoolPlace::Memory));
        }
        assert!(!is_adopted(SpoolPlace::State) && !is_adopted(SpoolPlace::Memory));
    }

    #[test]
    fn first_folder_of_an_upgraded_agent_may_be_another_one() {
        let temporary = tempfile::tempdir().unwrap();
        let path = |name: &str| temporary.path().join(name);
        let file = path("adopted");
        let is_adopted = |name: &str, is_used: bool| {
            let folder = Folder::open(&path(name)).unwrap();
            let place = SpoolPlace::Elsewhere;
            super::is_adopted(&file, &path(name), &folder, place, is_used)
        };
        // Its disk is not mounted: also at the second start, by which the folder was used.
        for is_used in [false, true] {
            assert!(!is_adopted("below", is_used));
        }
        fs::remove_file(&file).unwrap();
        assert!(is_adopted("disk", true));
        // A device that has just joined has had no other.
        note_joined(&file).unwrap();
        for is_used in [false, true] {
            assert!(is_adopted("new", is_used));
        }
        assert!(!is_adopted("other", false) && !is_adopted("new", true));
    }

    #[test]
    fn folder_whose_name_cannot_be_kept_counts_as_another_one() {
        let temporary = tempfile::tempdir().unwrap();
        let path = |name: &str| temporary.path().join(name);
        let file = path("adopted");
        let is_adopted = |name: &str, place, is_used| {
            let folder = Folder::open(&path(name)).unwrap();
            super::is_adopted(&file, &path(name), &folder, place, is_used)
        };
        assert!(is_adopted("first", SpoolPlace::Elsewhere, true));
        // A folder in the place of its id: it can neither be read nor written.
        fs::create_dir_all(path("second").join(ID)).unwrap();
        assert!(!is_adopted("second", SpoolPlace::Elsewhere, true));
        assert!(!is_adopted("first", SpoolPlace::Elsewhere, true));
        // The default folder, to which the configuration was changed at an upgrade.
        fs::remove_file(&file).unwrap();
        assert!(!is_adopted("state", SpoolPlace::State, false));
        fs::remove_file(&file).unwrap();
        assert!(is_adopted("state", SpoolPlace::State, true));
    }
}
