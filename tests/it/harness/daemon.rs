//! A program that stays: its log goes to a file, which is shown when the test fails.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait_for;

/// The time that a daemon may take to end once it is asked to, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The end of a log that is shown.
const SHOWN: usize = 16 * 1024;

pub(crate) struct Daemon {
    name: String,
    child: Child,
    out: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts it. Its stdout goes to `NAME.out` in `folder`, which is made anew; its stderr is added to
    /// `NAME.log`.
    #[track_caller]
    pub(crate) fn start(name: &str, command: &mut Command, folder: &Path) -> Self {
        let out = folder.join(format!("{name}.out"));
        let log = folder.join(format!("{name}.log"));
        let stderr = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            out,
            log,
        }
    }

    /// All that it wrote to stdout since it was started.
    pub(crate) fn out(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// All that it and its forerunners wrote to stderr.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns how it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait_for(within, &what, || self.ended())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            let deadline = std::time::Instant::now() + STOP_TIMEOUT;
            while matches!(self.child.try_wait(), Ok(None)) && std::time::Instant::now() < deadline
            {
                std::thread::sleep(super::POLL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let start = log.ceil_char_boundary(log.len().saturating_sub(SHOWN));
            eprintln!("--- log of {}\n{}", self.name, &log[start..]);
        }
    }
}
