//! A bound on a program's memory, by a cgroup of its own: who takes more is killed by the kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{SOON, wait_until};

/// A cgroup, until it is dropped. What runs in it must have ended by then.
pub(crate) struct MemoryBound {
    folder: PathBuf,
    /// The file with the most that was used.
    peak: &'static str,
}

impl MemoryBound {
    /// A cgroup of so many bytes. Where none can be made, the reason is printed; on CI, where nothing is skipped, the
    /// test fails.
    #[track_caller]
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("holdfast-test-{}-{number}", std::process::id());
        // Version 1 has a folder for each controller, version 2 one for all.
        let kinds = [
            (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.max_usage_in_bytes",
            ),
            ("/sys/fs/cgroup", "memory.max", "memory.peak"),
        ];
        for (root, limit, peak) in kinds {
            let folder = Path::new(root).join(&name);
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let bound = Self { folder, peak };
            if fs::write(bound.folder.join(limit), bytes.to_string()).is_ok() {
                return Some(bound);
            }
        }
        assert!(
            std::env::var_os("CI").is_none(),
            "this test needs a memory cgroup, and CI skips nothing"
        );
        eprintln!(
            "without a bound by the kernel: no memory cgroup can be made here (it needs root and /sys/fs/cgroup)"
        );
        None
    }

    /// Returns the command that runs a program in it.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let enter = format!(
            "echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"",
            self.folder.display()
        );
        ["sh".to_owned(), "-c".to_owned(), enter].into()
    }

    /// The most that was used in it, in bytes; files that are only cached count too.
    pub(crate) fn peak(&self) -> Option<u64> {
        let text = fs::read_to_string(self.folder.join(self.peak)).ok()?;
        text.trim().parse().ok()
    }
}

impl Drop for MemoryBound {
    fn drop(&mut self) {
        // The kernel may need a moment after the last process has ended.
        if !std::thread::panicking() {
            wait_until(SOON, "the cgroup is empty", || {
                fs::remove_dir(&self.folder).is_ok()
            });
        } else {
            let _ = fs::remove_dir(&self.folder);
        }
    }
}
