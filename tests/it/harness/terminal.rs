//! A program on a terminal of its own, driven by what it shows.

use std::fs::File;
use std::io::Write as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use super::capture::Capture;
use super::{SOON, command, wait_for};

pub(crate) struct Terminal {
    child: Child,
    master: File,
    screen: Capture,
    /// Up to where the test has looked.
    seen: usize,
}

impl Terminal {
    /// Starts `command` with a terminal of `columns` by `rows` as its controlling one.
    #[track_caller]
    pub(crate) fn start(inner: &Command, columns: u16, rows: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        tcsetwinsize(&master, size(columns, rows)).unwrap();
        // A session leader whose controlling terminal this is: only so does it hear of a new size. The
        // program takes `setsid`'s place, so the child's id is its own.
        let mut leader = command("setsid");
        leader
            .arg("--ctty")
            .arg(inner.get_program())
            .args(inner.get_args());
        leader.env_clear().envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let child = leader
            .env("TERM", "xterm-256color")
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .stdout(Stdio::from(slave.try_clone().unwrap()))
            .stderr(Stdio::from(slave))
            .spawn()
            .unwrap();
        let master = File::from(master);
        Self {
            child,
            screen: Capture::of(master.try_clone().unwrap()),
            master,
            seen: 0,
        }
    }

    /// Types.
    #[track_caller]
    pub(crate) fn send(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` is shown behind what was expected before, and gives what came before it.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) -> String {
        let found = self.screen.wait_text(self.seen, text.as_bytes(), SOON);
        let bytes = self.screen.bytes();
        let Some(end) = found else {
            panic!(
                "the terminal does not show {text:?}, but {:?}",
                String::from_utf8_lossy(&bytes[self.seen..])
            );
        };
        let before = String::from_utf8_lossy(&bytes[self.seen..end - text.len()]).into_owned();
        self.seen = end;
        before
    }

    /// Everything it has shown.
    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.screen.bytes()).into_owned()
    }

    /// Gives the terminal another size.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        tcsetwinsize(&self.master, size(columns, rows)).unwrap();
    }

    /// The modes that the program has set on it.
    pub(crate) fn modes(&self) -> Termios {
        tcgetattr(&self.master).unwrap()
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Waits for the program's end and for the last of what it shows.
    #[track_caller]
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        let child = &mut self.child;
        let status = wait_for(within, "the end of the program on the terminal", || {
            child.try_wait().unwrap()
        });
        self.screen.wait_end(Duration::from_secs(2));
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- terminal\n{}", self.shown());
        }
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
