//! Running a program to its end, with its output and a time limit.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::capture::Capture;
use super::{COMMAND_TIMEOUT, POLL, SOON};

/// A command in a clean environment: nothing of the caller's environment reaches what is tested.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LANG", "C.UTF-8");
    for name in ["PATH", "RUST_LOG", "RUST_BACKTRACE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Runs to the end, with nothing on stdin.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    run_with_input(command, b"")
}

/// Runs to the end; `input` is all there is on stdin.
#[track_caller]
pub(crate) fn run_with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut running = Running::start(command);
    let feeder = running.feed(input.to_vec());
    let output = running.wait(COMMAND_TIMEOUT);
    feeder.join().unwrap();
    output
}

/// Reads one line of its stdout and closes that, as `head -1` does, and gives the line and the exit status. Its stdin
/// stays open, as a person's terminal does.
#[track_caller]
pub(crate) fn read_one_line(command: &mut Command) -> (String, ExitStatus) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let output = child.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (line, status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!(
                "`{}` goes on although nothing reads its output",
                render(command)
            );
        }
        std::thread::sleep(POLL);
    }
}

/// The exit of a command, and its output.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) line: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) took: Duration,
}

impl Output {
    /// Stdout as text.
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Stderr as text.
    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The exit status; 128 and the signal's number where one ended it, as a shell has it.
    pub(crate) fn code(&self) -> i32 {
        let by_signal = || 128 + self.status.signal().unwrap_or(0);
        self.status.code().unwrap_or_else(by_signal)
    }

    /// Fails the test unless the command exited with 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.exits(0)
    }

    /// Fails the test unless the command exited with `code`.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{self}");
        self
    }

    /// Fails the test unless stderr holds `sentence`.
    #[track_caller]
    pub(crate) fn says(self, sentence: &str) -> Self {
        assert!(self.err().contains(sentence), "no {sentence:?} in {self}");
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |bytes: &[u8]| {
            let end = bytes.len().min(4096);
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        write!(
            f,
            "`{}` ended with {} after {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.line,
            self.status,
            self.took,
            short(&self.stdout),
            short(&self.stderr)
        )
    }
}

/// A command that runs.
pub(crate) struct Running {
    line: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Capture,
    stderr: Capture,
    started: Instant,
}

impl Running {
    /// Starts it, with pipes for all three streams.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let line = render(command);
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("cannot start `{line}`: {error}"));
        Self {
            line,
            stdin: child.stdin.take(),
            stdout: Capture::of(child.stdout.take().unwrap()),
            stderr: Capture::of(child.stderr.take().unwrap()),
            child,
            started: Instant::now(),
        }
    }

    /// Writes to its stdin.
    #[track_caller]
    pub(crate) fn write(&mut self, text: &str) {
        self.write_bytes(text.as_bytes());
    }

    /// Writes bytes to its stdin.
    #[track_caller]
    pub(crate) fn write_bytes(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(bytes).unwrap();
    }

    /// Writes to its stdin, which may be closed by now.
    pub(crate) fn write_if_open(&mut self, text: &str) {
        if let Some(stdin) = self.stdin.as_mut() {
            let _ = stdin.write_all(text.as_bytes());
        }
    }

    /// Ends its stdin.
    pub(crate) fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Waits until `text` is on its stdout.
    #[track_caller]
    pub(crate) fn wait_out(&self, text: &str) {
        self.wait_text(&self.stdout, text);
    }

    /// Waits until `text` is on its stderr.
    #[track_caller]
    pub(crate) fn wait_err(&self, text: &str) {
        self.wait_text(&self.stderr, text);
    }

    #[track_caller]
    fn wait_text(&self, stream: &Capture, text: &str) {
        let found = stream.wait_text(0, text.as_bytes(), super::SOON);
        assert!(
            found.is_some(),
            "`{}` did not say {text:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.line,
            String::from_utf8_lossy(&self.stdout.bytes()),
            String::from_utf8_lossy(&self.stderr.bytes())
        );
    }

    /// Returns what is on its stdout so far.
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout.bytes()).into_owned()
    }

    /// Returns what is on its stderr so far.
    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr.bytes()).into_owned()
    }

    /// Returns whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Waits for its end; after `within` it is killed and the test fails.
    #[track_caller]
    pub(crate) fn wait(mut self, within: Duration) -> Output {
        let deadline = self.started.max(Instant::now()) + within;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break Some(status);
            }
            if Instant::now() > deadline {
                break None;
            }
            std::thread::sleep(POLL / 4);
        };
        let took = self.started.elapsed();
        if status.is_none() {
            let _ = self.child.kill();
        }
        // A background process (ControlPersist) may keep the streams open: what it says is not waited for.
        for stream in [&self.stdout, &self.stderr] {
            stream.wait_end(Duration::from_secs(2));
        }
        let output = Output {
            line: self.line.clone(),
            status: status.unwrap_or_else(|| ExitStatus::from_raw(Signal::KILL.as_raw())),
            stdout: self.stdout.bytes(),
            stderr: self.stderr.bytes(),
            took,
        };
        assert!(status.is_some(), "it hangs, and was killed: {output}");
        output
    }

    /// Writes all of `input` and ends stdin, in a thread: a program may answer before it has read all.
    fn feed(&mut self, input: Vec<u8>) -> JoinHandle<()> {
        let stdin = self.stdin.take();
        std::thread::spawn(move || {
            if let Some(mut stdin) = stdin {
                // A program need not read what it is offered.
                let _ = stdin.write_all(&input);
            }
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn render(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}
