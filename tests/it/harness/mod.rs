//! The parts that tests are made of: programs under test, an operator's stock tools, and ways to wait.
//!
//! Nothing here sleeps to get an order of events: each wait is for a condition and up to a
//! deadline. Every child is ended by its id when its owner is dropped.

mod accounts;
pub(crate) mod bucket;
mod capture;
mod cgroup;
mod client;
mod cluster;
mod command;
mod daemon;
mod device;
mod emulated;
mod hostile;
mod link;
mod measure;
mod operator;
mod programs;
mod relay;
mod site;
mod terminal;

use std::time::{Duration, Instant};

pub(crate) use accounts::Accounts;
pub(crate) use cgroup::MemoryBound;
pub(crate) use client::{Session, SshClient, block_on};
pub(crate) use cluster::Cluster;
pub(crate) use command::{Output, Running, command, read_one_line, run, run_with_input};
pub(crate) use daemon::Daemon;
pub(crate) use device::Device;
pub(crate) use emulated::Emulated;
pub(crate) use hostile::Hostile;
pub(crate) use link::{DatabaseLink, TunnelLink};
pub(crate) use measure::{Echo, field, memory, p99};
pub(crate) use operator::{KeyKind, User, Way, make_key};
pub(crate) use programs::{agent_program, relay_program};
pub(crate) use relay::Relay;
pub(crate) use site::Site;
pub(crate) use terminal::Terminal;

/// The time that anything may take that takes well under a second on an idle machine: CI's are loaded.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The time that a whole command may take: a hung `ssh` fails its test, and not the run.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// The interval at which a condition is checked.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `condition` holds; after `within` the test fails and says that `what` did not happen.
#[track_caller]
pub(crate) fn wait_until(within: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(within, what, || condition().then_some(()));
}

/// Waits until `find` finds something, which it returns; after `within` the test fails and says `what`
/// was waited for.
#[track_caller]
pub(crate) fn wait_for<T>(within: Duration, what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {within:?} in vain: {what}"
        );
        std::thread::sleep(POLL);
    }
}

/// The name of the account that runs the tests: the one that every device has.
pub(crate) fn own_login() -> String {
    run(command("id").arg("-un")).ok().out().trim().to_owned()
}

/// Returns whether there is a program on PATH. Where it is missing, the reason to skip is printed; on CI, where
/// nothing is skipped, the test fails.
#[track_caller]
pub(crate) fn needs_program(name: &str, origin: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(name).is_file()) {
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "this test needs {name} ({origin}), and CI skips nothing"
    );
    eprintln!("skipped: it needs {name} ({origin})");
    false
}

/// Returns whether the test runs as root. Where it does not, the reason to skip is printed; on CI, where nothing
/// is skipped, the test fails.
#[track_caller]
pub(crate) fn is_root(why: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "this test needs root ({why}), and CI skips nothing"
    );
    eprintln!("skipped: it needs root ({why})");
    false
}
