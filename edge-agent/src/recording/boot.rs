//! Notes the boot of the device that a recording was cut in: only another one since then is a loss of power.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use holdfast_protocol::ids::SessionId;
use holdfast_protocol::wire::SegmentLost;

use super::spool_fs::Folder;
use crate::recording::limits::MAX_BOOT_FILE;

/// The file in the spool's folder.
const FILE: &str = "boot";
/// Follows a recording that was cut by a loss of power.
const POWER: &str = " power";
/// The name under which it is written first.
const NEW: &str = "boot.new";
/// The place where the kernel names its present run.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The files that an earlier agent left beside its spool.
#[derive(Debug, Default)]
pub(super) struct Boot {
    /// The kernel's present run; empty where it is not known.
    now: String,
    /// True if an earlier agent has used the folder.
    used: bool,
    /// True if the agent before ran in another one.
    rebooted: bool,
    /// Recordings that were found cut before that, and whether by a loss of power.
    cut: BTreeMap<SessionId, bool>,
}

/// The spool's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpoolPlace {
    /// In memory: a restart of the device empties it.
    Memory,
    /// In the state folder, which has the device's key: it cannot be missing without that.
    State,
    /// In any other folder.
    Elsewhere,
}

impl Boot {
    /// Reads what is in the folder. What can't be read is not known, and so no loss of power.
    pub(super) fn read(folder: &Folder) -> Self {
        let now = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let left = folder.read_note(FILE, MAX_BOOT_FILE as u64).ok();
        Self::of(now.trim(), left.as_deref())
    }

    fn of(now: &str, left: Option<&str>) -> Self {
        let used = left.is_some();
        let mut lines = left.unwrap_or_default().lines();
        let before = lines.next().unwrap_or_default();
        Self {
            now: now.to_owned(),
            used,
            rebooted: !now.is_empty() && !before.is_empty() && before != now,
            cut: lines
                .filter_map(|line| {
                    let (session, lost) = match line.strip_suffix(POWER) {
                        Some(session) => (session, true),
                        None => (line, false),
                    };
                    Some((SessionId::from_hex(session)?, lost))
                })
                .collect(),
        }
    }

    /// Returns whether an earlier agent has used the folder.
    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    /// Returns whether the power was lost while this was recorded.
    pub(super) fn lost_power(&self, session: &SessionId) -> bool {
        let known = self.cut.get(session).copied();
        known.unwrap_or(self.rebooted)
    }

    /// Returns the reason why a recording that is not in the folder is not on the device; `None` if it may be in
    /// another folder, which is not mounted or was configured before.
    pub(super) fn absence(&self, place: SpoolPlace) -> Option<SegmentLost> {
        match (self.used, place) {
            (true, _) if self.rebooted => Some(SegmentLost::PowerLoss),
            (true, _) | (false, SpoolPlace::State) => Some(SegmentLost::Missing),
            (false, SpoolPlace::Memory) => Some(SegmentLost::PowerLoss),
            (false, SpoolPlace::Elsewhere) => None,
        }
    }

    /// Leaves word for the next agent: in which run of the kernel this one is, and which of the unfinished recordings
    /// were cut by a loss of power.
    pub(super) fn write(&self, folder: &Folder, unfinished: &[SessionId]) -> io::Result<()> {
        folder.write_note(FILE, NEW, self.text(unfinished).as_bytes())
    }

    fn text(&self, unfinished: &[SessionId]) -> String {
        let mut text = format!("{}\n", self.now);
        for session in unfinished {
            let how = if self.lost_power(session) { POWER } else { "" };
            let line = format!("{session}{how}\n");
            if text.len() + line.len() > MAX_BOOT_FILE {
                break;
            }
            text.push_str(&line);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: SessionId = SessionId([1; 16]);
    const SECOND: SessionId = SessionId([2; 16]);

    #[test]
    fn only_another_boot_is_a_loss_of_power() {
        let fresh = Boot::of("a", None);
        assert!(!fresh.lost_power(&FIRST), "nothing is known of before");
        let left = fresh.text(&[]);
        let same = Boot::of("a", Some(&left));
        assert!(!same.lost_power(&FIRST), "the agent was killed");
        // It was killed then, whatever comes later.
        let left = same.text(&[FIRST]);
        let other = Boot::of("b", Some(&left));
        assert!(!other.lost_power(&FIRST) && other.lost_power(&SECOND));
        let left = other.text(&[FIRST, SECOND]);
        let third = Boot::of("b", Some(&left));
        assert!(!third.lost_power(&FIRST) && third.lost_power(&SECOND));
        let unnamed = Boot::of("", Some("a\n"));
        assert!(!unnamed.lost_power(&SECOND), "the kernel does not say");
    }

    #[test]
    fn what_is_left_is_read_back_and_links_are_not_followed() {
        let temporary = tempfile::tempdir().unwrap();
        let spool = temporary.path().join("spool");
        let folder = Folder::open(&spool).unwrap();
        let boot = Boot::of("a", None);
        boot.write(&folder, &[FIRST]).unwrap();
        let left = || folder.read_note(FILE, MAX_BOOT_FILE as u64).unwrap();
        assert_eq!(left(), format!("a\n{FIRST}\n"));
        let target = temporary.path().join("target");
        fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, spool.join(NEW)).unwrap();
        boot.write(&folder, &[SECOND]).unwrap();
        assert_eq!(left(), format!("a\n{SECOND}\n"));
        fs::remove_file(spool.join(FILE)).unwrap();
        std::os::unix::fs::symlink(&target, spool.join(FILE)).unwrap();
        assert!(folder.read_note(FILE, MAX_BOOT_FILE as u64).is_err());
        assert_eq!(fs::read_to_string(target).unwrap(), "kept");
    }

    #[test]
    fn only_a_known_folder_says_what_is_gone() {
        use SpoolPlace::{Elsewhere, Memory, State};
        let fresh = Boot::of("a", None);
        assert_eq!(fresh.absence(Memory), Some(SegmentLost::PowerLoss));
        assert_eq!(fresh.absence(State), Some(SegmentLost::Missing));
        assert_eq!(fresh.absence(Elsewhere), None, "it may not be mounted");
        let left = fresh.text(&[]);
        for place in [Memory, State, Elsewhere] {
            let same = Boot::of("a", Some(&left)).absence(place);
            assert_eq!(same, Some(SegmentLost::Missing));
            let other = Boot::of("b", Some(&left)).absence(place);
            assert_eq!(other, Some(SegmentLost::PowerLoss));
        }
    }

    /// Writes into the folder that was opened, and not where its path leads later.
    #[test]
    fn notes_follow_the_open_folder_and_not_its_path() {
        let temporary = tempfile::tempdir().unwrap();
        let (spool, moved) = (
            temporary.path().join("spool"),
            temporary.path().join("moved"),
        );
        let folder = Folder::open(&spool).unwrap();
        fs::rename(&spool, &moved).unwrap();
        fs::create_dir(&spool).unwrap();
        Boot::of("a", None).write(&folder, &[]).unwrap();
        assert!(!spool.join(FILE).exists());
        assert_eq!(fs::read_to_string(moved.join(FILE)).unwrap(), "a\n");
    }
}
