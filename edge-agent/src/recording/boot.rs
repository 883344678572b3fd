//! Which boot of the device a recording was cut in: only another one since then is a loss of power.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use holdfast_protocol::ids::SessionId;
use holdfast_protocol::wire::SegmentLost;
use rustix::fs::OFlags;

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
    pub(super) fn read(folder: &Path) -> Self {
        let now = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let left = read(&folder.join(FILE)).ok();
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
    pub(super) fn write(&self, folder: &Path, unfinished: &[SessionId]) -> io::Result<()> {
        let new = folder.join(NEW);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(&new)?;
        file.write_all(self.text(unfinished).as_bytes())?;
        file.sync_data()?;
        fs::rename(new, folder.join(FILE))
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

fn read(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(no_follow())
        .open(path)?;
    let mut text = String::new();
    file.take(MAX_BOOT_FILE as u64).read_to_string(&mut text)?;
    Ok(text)
}

/// Returns the flag with which a link in the folder is not followed.
fn no_follow() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
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
        let folder = tempfile::tempdir().unwrap();
        let boot = Boot::of("a", None);
        boot.write(folder.path(), &[FIRST]).unwrap();
        let text = read(&folder.path().join(FILE)).unwrap();
        assert_eq!(text, format!("a\n{FIRST}\n"));
        let target = folder.path().join("target");
        fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join(NEW)).unwrap();
        assert!(boot.write(folder.path(), &[SECOND]).is_err());
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
}
