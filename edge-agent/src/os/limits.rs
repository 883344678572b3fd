//! Bounds on what the agent takes from the system: accounts, files, processes.

use std::time::Duration;

/// Pipe size that is asked for, for stdin and stdout: a fourth of what the kernel allows anybody, so
/// that a bulk copy needs few wake-ups. A refusal of the kernel costs only speed.
pub(crate) const PIPE_BYTES: usize = 256 * 1024;

/// Between two looks at the processes that go on after their sessions: until then one that has ended stays a zombie.
pub(crate) const LEFT_POLL: Duration = Duration::from_secs(5);

/// Between two looks at a process where the kernel (before 5.3) can't tell of its end.
pub(crate) const EXIT_POLL: Duration = Duration::from_millis(50);

/// Largest `/etc/passwd`, `/etc/group` or `/etc/shadow` that is read: some 40,000 accounts.
pub(crate) const MAX_ACCOUNT_FILE: u64 = 4 * 1024 * 1024;

/// Most bytes of `/etc/environment` that are read: more than a program's whole environment usually has.
pub(crate) const MAX_ENVIRONMENT_FILE: u64 = 64 * 1024;

/// Before this moment (2020) a clock was never set, and says nothing about an account's expiry.
pub(crate) const CLOCK_IS_SET: Duration = Duration::from_secs(1_577_836_800);

/// Limits how long the device's directory may take to answer for one name.
pub(crate) const NSS_TIMEOUT: Duration = Duration::from_secs(4);

/// Most bytes of its answer: an account in very many groups.
pub(crate) const MAX_NSS_LINE: usize = 64 * 1024;

/// Most symbolic links on the way to a folder of the agent's: as many as the kernel follows.
pub(crate) const MAX_FOLDER_LINKS: u32 = 40;

/// Most supplementary groups: far above any device, far below the kernel's 65,536.
pub(crate) const MAX_GROUPS: usize = 1024;

/// Most patterns for environment variables in the config.
pub(crate) const MAX_ENV_PATTERNS: usize = 64;

/// Limits how long an agent that starts waits for the state folder's lock: the one before, which was asked to stop, ends
/// its sessions and writes its recordings for some 10 s at most.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(15);

/// Sets the interval at which it is tried meanwhile.
pub(crate) const LOCK_POLL: Duration = Duration::from_millis(50);
