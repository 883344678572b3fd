//! Processes that go on after their sessions: they are observed no more, and only taken off the kernel's table when
//! they have ended. None of them costs a descriptor, so however many are left, the agent can still start sessions.

use crate::os::sync::Mutex;
use std::sync::MutexGuard;

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use smol::Timer;

use crate::os::limits::LEFT_POLL;
use crate::os::runtime;

static LEFT: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Adds a child whose session is over.
pub(super) fn add(pid: Pid) {
    let mut left = lock();
    left.push(pid);
    if left.len() == 1 {
        runtime::spawn(reap()).detach();
    }
}

/// Takes over the children that another version of this program has left to this process by exec(2). Call it before
/// anything is started.
pub fn adopt() {
    for pid in children_of(std::process::id()) {
        add(pid);
    }
}

/// Runs until none is left.
async fn reap() {
    loop {
        Timer::after(LEFT_POLL).await;
        let mut left = lock();
        left.retain(|pid| !has_ended(*pid));
        if left.is_empty() {
            return;
        }
    }
}

/// Takes the process off the kernel's table if it has ended.
fn has_ended(pid: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match waitid(WaitId::Pid(pid), options) {
        Ok(None) | Err(Errno::INTR) => false,
        Ok(Some(_)) | Err(_) => true,
    }
}

fn children_of(parent: u32) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let is_child = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name may hold anything; behind its last parenthesis come the state and the parent.
        let (_, rest) = stat.rsplit_once(')').unwrap_or_default();
        let found = rest.split_whitespace().nth(1);
        found.and_then(|found| found.parse().ok()) == Some(parent)
    };
    let pids = entries.flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        is_child(pid).then(|| Pid::from_raw(pid)).flatten()
    });
    pids.collect()
}

fn lock() -> MutexGuard<'static, Vec<Pid>> {
    LEFT.lock()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::zombie_processes, reason = "to reap it is what is tested")]
    fn a_child_is_found_and_reaped_when_it_has_ended() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        assert!(children_of(std::process::id()).contains(&pid));
        assert!(!has_ended(pid));
        drop(child.stdin.take());
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        smol::block_on(smol::Async::new(pidfd).unwrap().readable()).unwrap();
        assert!(has_ended(pid));
        assert!(!children_of(std::process::id()).contains(&pid));
    }
}
