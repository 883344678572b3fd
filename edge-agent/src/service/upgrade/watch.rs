//! The old program watches over the new one: before each start that the device's init makes, and aside, until the
//! trial is over. It trusts the new program with nothing, not even with ending.

use crate::os::clock;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::disk::Real;
use super::plan::{Counter, ProgramStart, UpgradePhase};
use super::swap::{self, SwapError, UpgradePaths};
use crate::os::state::{StateDir, StateDirError, StateLock};
use crate::service::limits::{TAKE_OVER_TIMEOUT, WATCH_INTERVAL, WATCH_MARGIN};
use crate::session::launch::close_inherited;
use crate::warn;

/// The command that the device's init runs before each start of the agent.
pub const GUARD: &str = "internal-guard";

/// The suffix that the kernel adds to the path of a program whose file was replaced.
const REPLACED: &str = " (deleted)";

/// The command that stays aside.
pub const WATCH: &str = "internal-watch";

/// Returns the path of a program as it was before its file was replaced.
pub(super) fn unmarked(path: PathBuf) -> PathBuf {
    let replaced = path.to_str().and_then(|path| path.strip_suffix(REPLACED));
    replaced.map(PathBuf::from).unwrap_or(path)
}

/// Counts a start before it is made, and restores the old program after too many. In any case the start goes
/// on.
pub fn guard(state: &Path) {
    if let Err(error) = try_guard(state) {
        warn!("{error}");
    }
}

fn try_guard(state: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let Some(places) = places_of(state) else {
        return Ok(());
    };
    let folder = StateDir::create_or_open(state)?;
    let lock = match folder.lock() {
        // An agent runs: this is no start.
        Err(StateDirError::Locked(_)) => return Ok(()),
        locked => locked?,
    };
    let Some(journal) = swap::read_journal(&Real, &places) else {
        return Ok(());
    };
    let program = swap::digest(&Real, &places.program)?;
    match journal.at_start(&program, Counter::Init) {
        ProgramStart::Usual => {}
        ProgramStart::Over(over) => swap::write_journal(&Real, &places, &over)?,
        ProgramStart::PutBack(why) => {
            swap::put_back(&Real, &places, &journal, &why)?;
            warn!("version {} is rolled back: {why}", journal.version);
        }
        ProgramStart::Trial(counted) => {
            swap::write_journal(&Real, &places, &counted)?;
            drop(lock);
            start_aside(&places)?;
        }
    }
    Ok(())
}

/// Starts [`watch`] as a process that is not a child of this one.
///
/// # Errors
/// The system's.
pub fn start_aside(places: &UpgradePaths) -> io::Result<()> {
    let mut command = watcher(&places.state);
    let status = command.arg("--aside").status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(status.to_string()))
    }
}

/// Returns the second half of [`start_aside`]: its child, whose own child has no parent when it ends.
///
/// # Errors
/// The system's.
pub fn step_aside(state: &Path) -> io::Result<()> {
    // What becomes of it, the journal tells.
    watcher(state).process_group(0).spawn().map(drop)
}

fn watcher(state: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(WATCH).arg("--state").arg(state);
    // What the service manager wants to hear it hears from the agent.
    command.env_remove("NOTIFY_SOCKET");
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Waits until the trial is over, or should be, and then ends the new program and puts the old one back.
pub fn watch(state: &Path) {
    // An init's script may hold a lock while it starts the agent (OpenWrt's do), and every later call of the script
    // would wait for a process that kept it open.
    close_inherited(0);
    // Without a terminal and a session, no hangup ends it.
    let _ = rustix::process::setsid();
    let Some(places) = places_of(state) else {
        return;
    };
    let Some(mut known) = swap::read_journal(&Real, &places) else {
        return;
    };
    let trial = known.trial();
    let margin = (trial / 4).clamp(*WATCH_MARGIN.start(), *WATCH_MARGIN.end());
    let mut deadline = clock::instant() + trial + margin;
    while clock::instant() < deadline {
        thread::sleep(WATCH_INTERVAL);
        match swap::read_journal(&Real, &places) {
            Some(now) if now.phase == UpgradePhase::Trial && now.new == known.new => {
                // Each start has its whole time, and there are few.
                if now != known {
                    known = now;
                    deadline = clock::instant() + trial + margin;
                }
            }
            _ => return,
        }
    }
    if let Err(error) = take_over(&places) {
        warn!(
            "version {} should be rolled back, but {error}",
            known.version
        );
    }
}

fn take_over(places: &UpgradePaths) -> Result<(), SwapError> {
    let Some(_lock) = lock_by_force(places) else {
        return Ok(());
    };
    let journal = swap::read_journal(&Real, places);
    let Some(journal) = journal.filter(|journal| journal.phase == UpgradePhase::Trial) else {
        return Ok(());
    };
    let why = "it got no tunnel in time, and did not say why";
    swap::put_back(&Real, places, &journal, why)?;
    warn!("version {} is rolled back: {why}", journal.version);
    Ok(())
}

/// Takes the lock of the state folder, if need be by ending the agent that has it: its init starts the program again.
fn lock_by_force(places: &UpgradePaths) -> Option<StateLock> {
    let folder = StateDir::create_or_open(&places.state).ok()?;
    let deadline = clock::instant() + TAKE_OVER_TIMEOUT;
    loop {
        if let Ok(lock) = folder.lock() {
            return Some(lock);
        }
        let holder = folder
            .lock_holder()
            .filter(|&pid| runs(pid, &places.program));
        if let Some(holder) = holder {
            let _ = kill_process(holder, Signal::KILL);
        }
        if clock::instant() >= deadline {
            warn!("the agent on {} cannot be ended", places.state.display());
            return None;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Returns whether the process runs this program: a number alone may have come to mean another process.
fn runs(pid: Pid, program: &Path) -> bool {
    let link = format!("/proc/{}/exe", pid.as_raw_nonzero());
    std::fs::read_link(link).is_ok_and(|path| unmarked(path) == program)
}

/// Returns the path of the program of the last upgrade.
fn places_of(state: &Path) -> Option<UpgradePaths> {
    let mut places = UpgradePaths {
        program: PathBuf::new(),
        state: state.to_owned(),
    };
    places.program = swap::read_journal(&Real, &places)?.program;
    Some(places)
}
