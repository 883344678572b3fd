//! Measures sessions and processes.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Running;

/// A session that repeats each line.
pub(crate) struct Echo {
    session: Running,
    lines: u32,
}

impl Echo {
    #[track_caller]
    pub(crate) fn start(mut ssh: Command) -> Self {
        let mut echo = Self {
            session: Running::start(&mut ssh),
            lines: 0,
        };
        echo.round_trip();
        echo
    }

    #[track_caller]
    pub(crate) fn round_trip(&mut self) -> Duration {
        self.lines += 1;
        let line = format!("<{}>\n", self.lines);
        let began = Instant::now();
        self.session.write(&line);
        self.session.wait_out(&line);
        began.elapsed()
    }
}

/// The 99th percentile of a hundred round trips.
#[track_caller]
pub(crate) fn p99(echo: &mut Echo) -> Duration {
    let mut times: Vec<Duration> = (0..100).map(|_| echo.round_trip()).collect();
    times.sort_unstable();
    times[98]
}

/// Bytes of memory that are a process' own. Pages of its program and its database, which come as they are touched,
/// are the system's to take back.
pub(crate) fn memory(process: u32) -> u64 {
    field(&format!("/proc/{process}/status"), "RssAnon:") * 1024
}

/// A number in a file of `/proc`.
pub(crate) fn field(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no {name} in {file}"))
}
