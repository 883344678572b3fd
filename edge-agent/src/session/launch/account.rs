//! Makes the helper become an account: the ids, and what setuid(2) leaves as it was.
//!
//! The rule: what gives the agent's process more than an account has by itself is dropped (keyring, capabilities,
//! priorities, protection from the OOM killer). What the service manager takes away from the service (resource limits,
//! CPU affinity, the bounding set, `NoNewPrivileges`, seccomp, namespaces) stays, because sessions are a part of the
//! service and because it cannot be given back. Interval timers and a signal for the parent's death are not inherited
//! across fork(2), and exec(2) resets `keepcaps` and whether the process may be dumped.

use std::fs;
use std::io;

use ioprio::{BePriorityLevel, Class, Pid, Priority, Target};
use keyutils_raw::{KEY_SPEC_SESSION_KEYRING, keyctl_get_keyring_id, keyctl_join_session_keyring};
use nix::sys::personality::{self, Persona};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{
    Gid, Resource, Rlimit, Uid, chdir, geteuid, getpriority_process, getrlimit,
    setpriority_process, setrlimit, umask,
};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    clear_ambient_capability_set, current_timer_slack, set_capabilities,
    set_capabilities_secure_bits, set_current_timer_slack, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use thread_priority::ThreadPriority;
use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id, thread_schedule_policy,
};

use crate::os::accounts::Account;
use crate::session::limits::{SESSION_OPEN_FILES, USUAL_TIMER_SLACK};

/// The permissions that new files may not have by default: sshd's.
pub(super) const UMASK: u32 = 0o022;

/// Becomes the account, in the order of the steps. Whatever must hold for the session to be the account's alone fails
/// the session if it cannot be had.
pub(crate) fn become_account(account: &Account) -> io::Result<()> {
    prepare()?;
    take_account(account)
}

/// Takes the steps that are the same for every account: they drop what is the agent's.
pub(super) fn prepare() -> io::Result<()> {
    umask(Mode::from_raw_mode(UMASK));
    chdir("/")?;
    leave_keyring()?;
    drop_priority();
    drop_io_priority();
    drop_timer_precision();
    drop_oom_protection();
    drop_limits();
    reset_personality();
    Ok(())
}

/// Takes the steps after [`prepare`] and PAM.
pub(super) fn take_account(account: &Account) -> io::Result<()> {
    if geteuid().is_root() {
        take_loginuid(account.uid);
        let _ = set_capabilities_secure_bits(CapabilitiesSecureBits::empty());
        take_ids(account)?;
    }
    drop_capabilities(account)?;
    take_keyring();
    Ok(())
}

/// Writes for the kernel's audit who logged in, which stays with all that the session starts, whatever they become. An
/// agent that itself was started in a login session keeps the number of that one, as sshd does.
pub(super) fn take_loginuid(uid: u32) {
    let path = "/proc/self/loginuid";
    let unset = u32::MAX.to_string();
    if fs::read_to_string(path).is_ok_and(|present| present.trim_end() == unset) {
        // The right to it may be missing in a container: audit then says less, and the session goes on.
        let _ = fs::write(path, uid.to_string());
    }
}

/// Groups before user: a process that is the user already may not choose groups.
fn take_ids(account: &Account) -> io::Result<()> {
    let groups: Vec<Gid> = account.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Joins a new, empty session keyring. Who holds a keyring may read the keys in it whatever their owner: with the
/// agent's, every account would have what root's sessions put there.
fn leave_keyring() -> io::Result<()> {
    let Err(error) = keyctl_join_session_keyring(None) else {
        return Ok(());
    };
    let error = io::Error::from_raw_os_error(error.0);
    // A kernel without keys has nothing to share, and where a container forbids all of keyctl(2), it is forbidden to
    // the sessions, too.
    let is_forbidden = keyctl_get_keyring_id(KEY_SPEC_SESSION_KEYRING, false)
        .is_err_and(|error| Errno::from_raw_os_error(error.0) == Errno::PERM);
    match Errno::from_io_error(&error) {
        Some(Errno::NOSYS) => Ok(()),
        Some(Errno::PERM) if is_forbidden => Ok(()),
        _ => Err(error),
    }
}

/// Joins another, which is the account's own and counts against its quota. Without one the empty keyring of
/// [`leave_keyring`] stays.
fn take_keyring() {
    let _ = keyctl_join_session_keyring(None);
}

/// Drops a priority above the usual one, which is the agent's: a nice value or real-time policy with which one shell
/// could stop the device. One below it is what the service manager wants for sessions.
fn drop_priority() {
    let nice = getpriority_process(None).unwrap_or(0);
    if let Ok(ThreadSchedulePolicy::Realtime(_)) = thread_schedule_policy() {
        let usual = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
        let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, usual);
        // Which it may have changed, too.
        let _ = setpriority_process(None, nice.max(0));
    } else if nice < 0 {
        let _ = setpriority_process(None, 0);
    }
}

/// Drops an I/O priority above the usual one, which is the agent's: with the real-time class, one shell could keep all
/// others from the disk. One below it is what the service manager wants for sessions, and stays.
fn drop_io_priority() {
    let own = Target::Process(Pid::from_raw(0));
    // A kernel without I/O priorities has none to give.
    let Ok(present) = ioprio::get_priority(own) else {
        return;
    };
    let usual = BePriorityLevel::fallback().level();
    let is_low = match present.class() {
        Some(Class::BestEffort(level)) => level.level() >= usual,
        Some(Class::Idle) => true,
        // Also what newer kernels add to a class, and this crate does not read.
        Some(Class::Realtime(_)) | None => false,
    };
    if !is_low {
        let _ = ioprio::set_priority(own, Priority::standard());
    }
}

/// Takes the usual precision of timers where the agent's is higher: that wakes the processor more often. A lower one is
/// what the service manager wants for sessions, and stays.
fn drop_timer_precision() {
    if current_timer_slack().is_ok_and(|slack| slack < USUAL_TIMER_SLACK.get()) {
        let _ = set_current_timer_slack(Some(USUAL_TIMER_SLACK));
    }
}

/// Drops the agent's protection from the OOM killer, which is not for its sessions.
fn drop_oom_protection() {
    let path = "/proc/self/oom_score_adj";
    let is_spared = fs::read_to_string(path).is_ok_and(|score| score.trim_start().starts_with('-'));
    if is_spared {
        let _ = fs::write(path, "0");
    }
}

/// Limits by which a process may raise its own priority go; the soft limit of open files, which the agent's service
/// raises for the agent, becomes the usual one again, and may be raised as before.
fn drop_limits() {
    for resource in [Resource::Nice, Resource::Rtprio] {
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        let _ = setrlimit(resource, none);
    }
    let files = getrlimit(Resource::Nofile);
    if files.current.is_none_or(|soft| soft > SESSION_OPEN_FILES) {
        let lowered = Rlimit {
            current: Some(SESSION_OPEN_FILES),
            maximum: files.maximum,
        };
        let _ = setrlimit(Resource::Nofile, lowered);
    }
}

/// Flags that make memory of the session's programs easier to predict go; a 32-bit personality stays.
fn reset_personality() {
    let weak = Persona::ADDR_NO_RANDOMIZE
        | Persona::ADDR_COMPAT_LAYOUT
        | Persona::MMAP_PAGE_ZERO
        | Persona::READ_IMPLIES_EXEC;
    if let Ok(present) = personality::get()
        && present.intersects(weak)
    {
        let _ = personality::set(present.difference(weak));
    }
}

/// Drops all capabilities at the change to another account, also where the agent's secure bits keep them; a program
/// with capabilities of its own gets none from the agent. Root's come back with its first program.
fn drop_capabilities(account: &Account) -> io::Result<()> {
    // Kernels before 4.3 have no ambient set.
    let _ = clear_ambient_capability_set();
    let present = capabilities(None)?;
    let kept = |set: CapabilitySet| match account.uid {
        0 => set,
        _ => CapabilitySet::empty(),
    };
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept(present.effective),
            permitted: kept(present.permitted),
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}
