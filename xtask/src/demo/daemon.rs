//! A program that runs beside us: in a process group of its own, so that Ctrl-C reaches only us and
//! we end it in order, and with its output in a file.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process;

/// After SIGTERM; the relay's own grace for live sessions is shorter.
const STOP_WITHIN: Duration = Duration::from_secs(8);
const STOP_POLL: Duration = Duration::from_millis(20);
/// As much of a log as fits a screen.
const LOG_LINES: usize = 40;

pub(super) struct DemoDaemon {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl DemoDaemon {
    /// Starts `command` with stdout and stderr in the file `log`.
    pub(super) fn start(name: &str, command: &mut Command, log: PathBuf) -> Result<Self> {
        let file = create(&log)?;
        let copy = file
            .try_clone()
            .with_context(|| format!("cannot open {}", log.display()))?;
        Self::spawn(name, command.stdout(copy).stderr(file), log)
    }

    /// Like [`DemoDaemon::start`]; the first line on stdout comes by the receiver, and the log has it too.
    /// The receiver is closed when stdout ends without a line.
    pub(super) fn start_and_read_line(
        name: &str,
        command: &mut Command,
        log: PathBuf,
    ) -> Result<(Self, Receiver<String>)> {
        let mut file = create(&log)?;
        let copy = file
            .try_clone()
            .with_context(|| format!("cannot open {}", log.display()))?;
        let mut daemon = Self::spawn(name, command.stdout(Stdio::piped()).stderr(copy), log)?;
        let (sender, receiver) = mpsc::sync_channel(1);
        if let Some(stdout) = daemon.child.stdout.take() {
            // Reads on after the first line, so that the program never waits for us.
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let _ = writeln!(file, "{line}");
                    let _ = sender.try_send(line);
                }
            });
        }
        Ok((daemon, receiver))
    }

    fn spawn(name: &str, command: &mut Command, log: PathBuf) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start `{}`", process::render(command)))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
            ended: None,
        })
    }

    /// An error when the program has ended by itself.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.poll()? {
            bail!("{} ended with {status}", self.name);
        }
        Ok(())
    }

    /// SIGTERM, a bounded wait, SIGKILL. An error tells of a program that had to be killed.
    pub(super) fn stop(&mut self) -> Result<()> {
        if self.poll()?.is_some() {
            return Ok(());
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM)
            .with_context(|| format!("cannot stop {}", self.name))?;
        let deadline = Instant::now() + STOP_WITHIN;
        while self.poll()?.is_none() {
            if Instant::now() > deadline {
                self.kill()?;
                bail!(
                    "{} did not end within {STOP_WITHIN:?} of SIGTERM: killed",
                    self.name
                );
            }
            thread::sleep(STOP_POLL);
        }
        Ok(())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Ends the program without a farewell, as a power cut does.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .with_context(|| format!("cannot kill {}", self.name))?;
        self.ended = Some(self.wait()?);
        Ok(())
    }

    /// Prints the end of the log to stderr.
    pub(super) fn show_log(&self) {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        eprintln!("\nlast lines of {}:", self.name);
        for line in lines.get(from..).unwrap_or_default() {
            eprintln!("  {}", line.escape_debug());
        }
    }

    fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self
                .child
                .try_wait()
                .with_context(|| format!("cannot wait for {}", self.name))?;
        }
        Ok(self.ended)
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        self.child
            .wait()
            .with_context(|| format!("cannot wait for {}", self.name))
    }
}

impl Drop for DemoDaemon {
    /// For a panic on our side; [`DemoDaemon::stop`] is the ordinary way.
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
        }
    }
}

fn create(log: &PathBuf) -> Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))
}
