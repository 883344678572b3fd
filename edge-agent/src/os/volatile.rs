//! Finds what does not outlast a restart of the device: file systems in memory, and overlays whose changes are there.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::StatFs;

/// `f_type` of the file systems that are in memory (statfs(2)): tmpfs and ramfs.
const IN_MEMORY: [i128; 2] = [0x0102_1994, 0x8584_58f6];

/// `f_type` of overlayfs.
const OVERLAY: i128 = 0x794c_7630;

/// Overlays upon overlays that are looked through: the kernel stacks two.
const MAX_LAYERS: usize = 4;

/// Describes how much of a file survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// All, as far as is known.
    Lasting,
    /// Nothing survives a restart: the file system is in memory.
    Memory,
    /// No change survives a restart: the file system is an overlay that keeps changes in memory.
    MemoryOverlay,
}

impl Persistence {
    /// Returns the medium of an open file or folder.
    pub(crate) fn of(file: &File) -> Self {
        let Ok(stat) = rustix::fs::fstatfs(file) else {
            return Self::Lasting;
        };
        match kind(&stat) {
            known if IN_MEMORY.contains(&known) => Self::Memory,
            OVERLAY if is_overlay_in_memory(file, &stat) => Self::MemoryOverlay,
            _ => Self::Lasting,
        }
    }

    /// Returns the medium of what is, or would be made, at a path.
    pub(crate) fn at(path: &Path) -> Self {
        let existing = path.ancestors().find_map(|path| File::open(path).ok());
        existing.map_or(Self::Lasting, |file| Self::of(&file))
    }
}

/// Returns the warning about state at a path that a restart empties.
#[must_use]
pub fn warning(state: &Path) -> Option<String> {
    let why = match Persistence::at(state) {
        Persistence::Lasting => return None,
        Persistence::Memory => "is in memory",
        Persistence::MemoryOverlay => "is on an overlay that keeps its changes in memory",
    };
    Some(format!(
        "warning: the state folder {} {why}: at its next start the device has lost its key, and has to join again under a new one; keep the state on a disk (--state /etc/edge-agent, or a data partition)",
        state.display()
    ))
}

fn kind(stat: &StatFs) -> i128 {
    // The kernel's type of `f_type` has another width and sign on each architecture.
    i128::from(stat.f_type) & 0xffff_ffff
}

fn is_overlay_in_memory(file: &File, stat: &StatFs) -> bool {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()));
    let mounts = fs::read_to_string("/proc/self/mountinfo");
    let (Ok(info), Ok(mounts)) = (info, mounts) else {
        return false;
    };
    let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::read).collect();
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let id = id.and_then(|id| id.trim().parse().ok());
    match id.and_then(|id| changes_are_in_memory(&mounts, id)) {
        Some(known) => known,
        // Where the changes go was unmounted from what we see, as an initramfs does it. An overlay has the size of what
        // takes its changes, and a tmpfs has, unless it was given another, half of the memory's.
        None => {
            let memory = fs::read_to_string("/proc/meminfo");
            let memory = memory.ok().and_then(|text| memory_bytes(&text));
            let size = u128::from(stat.f_blocks)
                .saturating_mul(u128::try_from(stat.f_frsize).unwrap_or(0));
            memory.is_some_and(|memory| is_half(size, memory))
        }
    }
}

/// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug)]
struct Mount {
    id: u64,
    at: PathBuf,
    kind: String,
    /// Of an overlay: the folder that takes its changes.
    changes: Option<PathBuf>,
}

impl Mount {
    fn read(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ');
        let id = before.next()?.parse().ok()?;
        let at = unescaped(before.nth(3)?).into();
        let mut after = after.split(' ');
        let kind = after.next()?.to_owned();
        let changes = after.nth(1).and_then(|options| {
            let upper = |option: &str| option.strip_prefix("upperdir=").map(unescaped);
            options.split(',').find_map(upper)
        });
        Some(Self {
            id,
            at,
            kind,
            changes: changes.map(PathBuf::from),
        })
    }
}

/// Returns whether an overlay's changes are in memory; `None` if where they go is not to be seen.
fn changes_are_in_memory(mounts: &[Mount], overlay: u64) -> Option<bool> {
    let mut mount = mounts.iter().find(|mount| mount.id == overlay)?;
    for _ in 0..MAX_LAYERS {
        // One without changes is read only: nothing is lost that is there.
        let Some(changes) = &mount.changes else {
            return Some(matches!(mount.kind.as_str(), "tmpfs" | "ramfs"));
        };
        let holds = |mount: &&Mount| changes.starts_with(&mount.at);
        // Of several on one folder, the last one covers the others.
        let below = mounts.iter().filter(holds);
        let below = below.max_by_key(|mount| mount.at.components().count())?;
        if below.id == mount.id || below.id == overlay {
            return None;
        }
        mount = below;
    }
    None
}

/// Decodes text in which `\040` is a space, and so on.
fn unescaped(text: &str) -> String {
    let mut plain = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|digits| str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Returns `MemTotal` of `/proc/meminfo`, in bytes.
fn memory_bytes(text: &str) -> Option<u128> {
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u128 = total.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Returns whether it is half of the memory within a sixty-fourth: the total changes a little while a system runs.
fn is_half(size: u128, memory: u128) -> bool {
    let half = memory / 2;
    size.abs_diff(half) <= half / 64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(text: &str, overlay: u64) -> Option<bool> {
        let mounts: Vec<Mount> = text.lines().filter_map(Mount::read).collect();
        assert_eq!(mounts.len(), text.lines().count(), "{text}");
        changes_are_in_memory(&mounts, overlay)
    }

    #[test]
    fn overlay_is_as_volatile_as_what_takes_its_changes() {
        // Debian's overlayroot, and OpenWrt before its flash is ready.
        let overlayroot = "\
22 1 0:21 / / rw,relatime shared:1 - overlay overlayroot rw,lowerdir=/media/root-ro,upperdir=/media/root-rw/overlay,workdir=/media/root-rw/w
30 22 0:30 / /media/root-rw rw,relatime shared:2 - tmpfs tmpfs-root rw
31 22 179:2 / /media/root-ro ro,relatime shared:3 - ext4 /dev/mmcblk0p2 ro";
        assert_eq!(changes(overlayroot, 22), Some(true));
        let openwrt = "\
17 1 31:3 / /rom ro,relatime - squashfs /dev/root ro
18 17 31:4 / /overlay rw,noatime - jffs2 /dev/mtdblock4 rw
19 17 0:9 / / rw,noatime - overlay overlayfs:/overlay rw,lowerdir=/,upperdir=/overlay/upper,workdir=/overlay/work";
        assert_eq!(changes(openwrt, 19), Some(false));
        // The place of the changes is not to be seen, in a container for example.
        let container = "\
40 1 0:40 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/var/lib/docker/x/diff,workdir=/w";
        assert_eq!(changes(container, 40), None);
        let spaces = "\
1 0 0:40 / / rw - ext4 /dev/sda1 rw
2 1 0:41 / /mnt/my\\040data rw - ramfs none rw
3 1 0:42 / /over rw - overlay overlay rw,lowerdir=/l,upperdir=/mnt/my\\040data/up,workdir=/w";
        assert_eq!(changes(spaces, 3), Some(true));
        let read_only = "3 1 0:42 / /over ro - overlay overlay ro,lowerdir=/l:/m";
        assert_eq!(changes(read_only, 3), Some(false));
        assert_eq!(changes(read_only, 4), None);
    }

    #[test]
    fn half_of_the_memory_is_known() {
        let text = "MemTotal:         948280 kB\nMemFree:           80820 kB\n";
        let memory = memory_bytes(text).unwrap();
        assert_eq!(memory, 948_280 * 1024);
        assert!(is_half(memory / 2, memory) && is_half(memory / 2 - 4096, memory));
        assert!(!is_half(memory, memory) && !is_half(31_000_000_000, memory));
        assert_eq!(memory_bytes("MemFree: 1 kB\n"), None);
    }
}
