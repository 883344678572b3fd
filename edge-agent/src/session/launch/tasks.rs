//! The bound on tasks (processes and threads) of sessions, so that a fork bomb leaves the agent and the next login
//! what they need.
//!
//! A session runs in a cgroup (version 2) of its own, below one of its account, both with `pids.max`, below the agent's
//! own cgroup. They are *threaded* cgroups: only such ones may stand below a cgroup that has processes itself. So the
//! agent stays where its service manager put it, where a restarted agent is put while sessions of the one before still
//! run, and what an administrator sets for the service (memory, CPU) holds for its sessions, too. `Delegate=` in the
//! unit would stand in the way: systemd then makes an ordinary cgroup there for `ExecStartPre=`, which may not be
//! beside threaded ones.
//!
//! Where there is no such cgroup, `RLIMIT_NPROC` bounds the processes of every account but root.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use holdfast_protocol::ids::SessionId;
use rustix::fs::{Access, access};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::session::limits::{
    CGROUP_ATTEMPTS, MAX_SWEPT_CGROUPS, MIN_TASKS, TASKS_SHARE_ACCOUNT, TASKS_SHARE_SESSION,
};

/// The prefix of the names of accounts' cgroups; the user id follows.
const PREFIX: &str = "holdfast-uid-";

/// The bound on the tasks of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskLimit {
    /// Cgroups below this one, which is the agent's own.
    Cgroup {
        /// Its folder.
        folder: PathBuf,
        /// Most tasks of all sessions of one account.
        account: u64,
        /// Most tasks of one session.
        session: u64,
    },
    /// `RLIMIT_NPROC`: most processes of an account that is not root.
    Account(u64),
    /// No limit.
    #[default]
    None,
}

impl TaskLimit {
    /// Returns what this device has.
    #[must_use]
    pub fn detect() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let own = own_folder(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
        Self::of(own.as_deref(), &read("/proc/sys/kernel/threads-max"))
    }

    /// Creates the limit from the agent's own cgroup, if it has one of version 2, and the system's maximum of tasks.
    fn of(own: Option<&Path>, system: &str) -> Self {
        // An agent that is not root has one account, its own, whose limits would be the agent's, too.
        if !geteuid().is_root() {
            return Self::None;
        }
        let Some(system) = number(system) else {
            return Self::None;
        };
        if let Some(folder) = own.filter(|folder| has_pids(folder)) {
            let most = fs::read_to_string(folder.join("pids.max"));
            let most = most.ok().and_then(|text| number(&text)).unwrap_or(system);
            let account = (most.min(system) / TASKS_SHARE_ACCOUNT).max(MIN_TASKS);
            return Self::Cgroup {
                folder: folder.to_owned(),
                account,
                session: (account / TASKS_SHARE_SESSION).max(MIN_TASKS),
            };
        }
        Self::Account((system / TASKS_SHARE_SESSION / TASKS_SHARE_ACCOUNT).max(MIN_TASKS))
    }

    /// Puts this process, which is about to become the account `uid`, and all that it starts under the bound. Where
    /// the cgroup cannot be had after all, the account is bounded as without cgroups.
    pub(super) fn apply(&self, session: SessionId, uid: u32) {
        match self {
            Self::Cgroup { account, .. } => {
                if self.enter(session, uid).is_err() {
                    bound_processes(*account);
                }
            }
            Self::Account(most) => bound_processes(*most),
            Self::None => {}
        }
    }

    fn enter(&self, session: SessionId, uid: u32) -> io::Result<()> {
        let mut attempt = 1;
        loop {
            match self.try_enter(session, uid) {
                // The agent removed the account's cgroup behind the session before.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && attempt < CGROUP_ATTEMPTS =>
                {
                    attempt += 1;
                }
                entered => return entered,
            }
        }
    }

    fn try_enter(&self, id: SessionId, uid: u32) -> io::Result<()> {
        let Self::Cgroup {
            folder,
            account,
            session,
        } = self
        else {
            return Ok(());
        };
        // Written each time: a service manager that looks at its units again may have taken it back.
        enable_pids(folder)?;
        let of_account = folder.join(format!("{PREFIX}{uid}"));
        make(&of_account, *account)?;
        enable_pids(&of_account)?;
        let of_session = of_account.join(id.to_string());
        make(&of_session, *session)?;
        fs::write(of_session.join("cgroup.procs"), "0")
    }

    /// Removes the cgroups of sessions that have ended. What still runs there keeps its cgroup.
    pub(crate) fn sweep(&self) {
        let Self::Cgroup { folder, .. } = self else {
            return;
        };
        let folders = |path: &Path| {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            folders.take(MAX_SWEPT_CGROUPS).map(|entry| entry.path())
        };
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(PREFIX))
        };
        for account in folders(folder).filter(is_ours) {
            for session in folders(&account) {
                let _ = fs::remove_dir(session);
            }
            let _ = fs::remove_dir(account);
        }
    }
}

impl fmt::Display for TaskLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup {
                account, session, ..
            } => write!(
                f,
                "at most {session} of a session and {account} of an account (cgroup)"
            ),
            Self::Account(most) => write!(
                f,
                "at most {most} processes of an account, and no bound for root: there is no writable cgroup v2 with the \
                 pids controller"
            ),
            Self::None => {
                f.write_str("no bound: the agent is not root, or the system reports no limit")
            }
        }
    }
}

/// Returns the folder of the cgroup of version 2 that a process is in, by its `cgroup` and `mountinfo` in `/proc`.
fn own_folder(cgroup: &str, mounts: &str) -> Option<PathBuf> {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = place.split(' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        let below = Path::new(own).strip_prefix(root).ok()?;
        // A path with a space or a backslash is escaped there; no cgroup is mounted on one.
        (!mount.contains('\\')).then(|| Path::new(mount).join(below))
    })
}

/// Returns whether cgroups below this one can bound tasks.
fn has_pids(folder: &Path) -> bool {
    let controllers = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    controllers.split_whitespace().any(|name| name == "pids")
        && access(folder.join("cgroup.subtree_control"), Access::WRITE_OK).is_ok()
        && enable_pids(folder).is_ok()
        && probe(folder).is_ok()
}

/// Tries whether a bounded cgroup can be made: not below one that has ordinary cgroups with processes.
fn probe(folder: &Path) -> io::Result<()> {
    let probe = folder.join(format!("{PREFIX}probe"));
    let made = make(&probe, MIN_TASKS);
    let _ = fs::remove_dir(probe);
    made
}

fn enable_pids(folder: &Path) -> io::Result<()> {
    fs::write(folder.join("cgroup.subtree_control"), "+pids")
}

/// Makes a threaded cgroup with a bound, or takes the one that is there.
fn make(folder: &Path, most: u64) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let kind = folder.join("cgroup.type");
    if fs::read_to_string(&kind)?.trim() != "threaded" {
        fs::write(kind, "threaded")?;
    }
    fs::write(folder.join("pids.max"), most.to_string())
}

/// Bounds the processes of an account; root has the right to exceed it.
fn bound_processes(most: u64) {
    let present = getrlimit(Resource::Nproc);
    let lower = |limit: Option<u64>| Some(limit.map_or(most, |limit| limit.min(most)));
    let bounded = Rlimit {
        current: lower(present.current),
        maximum: lower(present.maximum),
    };
    let _ = setrlimit(Resource::Nproc, bounded);
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SessionId = SessionId([7; 16]);

    /// Fills a folder so that it looks like a cgroup, as the kernel does with a new one.
    fn fill(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in [
            ("cgroup.controllers", "cpu pids\n"),
            ("cgroup.subtree_control", ""),
            ("cgroup.type", "domain\n"),
            ("cgroup.procs", ""),
            ("pids.max", "max\n"),
        ] {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn own_cgroup_is_found_by_its_mount() {
        let hybrid = "9:pids:/x\n0::/system.slice/edge-agent.service\n";
        let mounts = "24 1 0:22 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
            25 1 0:23 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let found = |cgroup, mounts| own_folder(cgroup, mounts);
        let expected = "/sys/fs/cgroup/unified/system.slice/edge-agent.service";
        assert_eq!(found(hybrid, mounts), Some(PathBuf::from(expected)));
        let below = "25 1 0:23 /system.slice /cg rw - cgroup2 cgroup2 rw\n";
        let expected = Some(PathBuf::from("/cg/edge-agent.service"));
        assert_eq!(found(hybrid, below), expected);
        for (cgroup, mounts) in [
            ("9:pids:/x\n", mounts),
            (hybrid, ""),
            (hybrid, "25 1 0:23 /elsewhere /cg rw - cgroup2 cgroup2 rw\n"),
            ("0::/\n", "nonsense - cgroup2"),
        ] {
            assert_eq!(found(cgroup, mounts), None, "{cgroup:?} {mounts:?}");
        }
    }

    #[test]
    fn bounds_are_shares_of_what_the_agent_has() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path();
        let limit = |system: &str| TaskLimit::of(Some(own), system);
        assert_eq!(limit("32000\n"), TaskLimit::Account(8000), "no controller");
        fill(own);
        // Beside ordinary cgroups there can be no threaded one.
        assert_eq!(limit("32000\n"), TaskLimit::Account(8000), "no probe");
        fill(&own.join("holdfast-uid-probe"));
        let cgroup = |account, session| TaskLimit::Cgroup {
            folder: own.to_owned(),
            account,
            session,
        };
        assert_eq!(limit("32000\n"), cgroup(16_000, 8000));
        fs::write(own.join("pids.max"), "4915\n").unwrap();
        assert_eq!(limit("32000\n"), cgroup(2457, 1228));
        assert_eq!(limit("not a number"), TaskLimit::None);
        assert_eq!(TaskLimit::of(None, "32000"), TaskLimit::Account(8000));
    }

    #[test]
    fn a_session_has_a_bounded_cgroup_within_its_accounts() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().to_owned();
        fill(&own);
        let account = own.join("holdfast-uid-1000");
        let session = account.join(ID.to_string());
        fill(&session);
        fill(&account);
        let limit = TaskLimit::Cgroup {
            folder: own.clone(),
            account: 200,
            session: 100,
        };
        limit.enter(ID, 1000).unwrap();
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        for (cgroup, most) in [(&account, "200"), (&session, "100")] {
            assert_eq!(read(cgroup.join("cgroup.type")), "threaded");
            assert_eq!(read(cgroup.join("pids.max")), most);
        }
        for cgroup in [&own, &account] {
            assert_eq!(read(cgroup.join("cgroup.subtree_control")), "+pids");
        }
        assert_eq!(read(session.join("cgroup.procs")), "0");
        // A cgroup that cannot be had is an error, and not a session without a bound.
        let nowhere = TaskLimit::Cgroup {
            folder: own.join("no/such/cgroup"),
            account: 1,
            session: 1,
        };
        assert!(nowhere.enter(ID, 1000).is_err());
    }

    #[test]
    fn only_cgroups_of_sessions_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path();
        let busy = own.join("holdfast-uid-0/busy");
        for path in [
            "holdfast-uid-1000/ended",
            "others/empty",
            "holdfast-uid-0/busy",
        ] {
            fs::create_dir_all(own.join(path)).unwrap();
        }
        fs::write(busy.join("process"), "").unwrap();
        let limit = TaskLimit::Cgroup {
            folder: own.to_owned(),
            account: 1,
            session: 1,
        };
        limit.sweep();
        assert!(!own.join("holdfast-uid-1000").exists());
        assert!(busy.exists() && own.join("others/empty").exists());
    }
}
