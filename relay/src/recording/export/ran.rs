//! The commands that ran within a recorded session.

use holdfast_protocol::recording::record::{Event, Record};
use holdfast_protocol::wire::Exit;
use serde::Serialize;

use super::text::{EscapedOrText, exit_word, seconds};
use crate::recording::limits::MAX_SHOWN_COMMANDS;
use crate::recording::verify::clock;

/// The commands of a recording. The names are relied upon.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Ran {
    /// The commands, in the order in which they began.
    pub commands: Vec<RanCommand>,
    /// The number of commands beyond those that are listed.
    pub commands_more: u64,
    /// The reason why there are none, or not all; `null` if nothing is known to be missing.
    pub commands_unavailable: Option<String>,
}

/// One of them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RanCommand {
    /// Seconds from the recording's start.
    pub time: f64,
    /// Its process.
    pub pid: u32,
    /// The process that started it.
    pub parent: u32,
    /// The program's name and its arguments; empty for one that was over too soon.
    pub argv: Vec<String>,
    /// True if arguments are missing.
    pub cut: bool,
    /// The folder that it ran in.
    pub cwd: Option<String>,
    /// Its exit status; `null` while it runs, or if it was not seen to end.
    pub status: Option<u32>,
    /// The signal that ended it.
    pub signal: Option<String>,
    #[serde(skip)]
    micros: u64,
}

impl Ran {
    /// Takes the next record.
    pub(crate) fn handle(&mut self, micros: u64, record: &Record<'_>) {
        match &record.event {
            Event::Command(_) if self.commands.len() >= MAX_SHOWN_COMMANDS => {
                self.commands_more += 1;
            }
            Event::Command(command) => {
                let text = |bytes: &[u8]| EscapedOrText(bytes).to_string();
                self.commands.push(RanCommand {
                    time: seconds(micros),
                    pid: command.pid,
                    parent: command.parent,
                    argv: command.argv.iter().map(|word| text(word.0)).collect(),
                    cut: command.cut,
                    cwd: command.cwd.map(|folder| text(folder.0)),
                    status: None,
                    signal: None,
                    micros,
                });
            }
            Event::CommandExit(ended) => {
                // A shell that becomes another program is two commands of one process: the last one ended.
                let of = |command: &&mut RanCommand| command.pid == ended.pid;
                let Some(command) = self.commands.iter_mut().rev().find(of) else {
                    return;
                };
                match ended.exit {
                    Exit::Status(status) => command.status = Some(status),
                    Exit::Signal { .. } => command.signal = Some(exit_word(&ended.exit)),
                }
            }
            Event::CommandsUnavailable(why) => {
                self.commands_unavailable = Some((*why).to_owned());
            }
            _ => {}
        }
    }

    /// Returns a row for each: when, process, parent, end, command, folder. Escape them.
    #[must_use]
    pub(crate) fn rows(&self) -> Vec<[String; 6]> {
        let row = |command: &RanCommand| {
            let end = match (command.status, &command.signal) {
                (Some(status), _) => status.to_string(),
                (None, Some(signal)) => signal.clone(),
                (None, None) => "-".to_owned(),
            };
            [
                clock(command.micros),
                command.pid.to_string(),
                command.parent.to_string(),
                end,
                command.cwd.clone().unwrap_or_else(|| "-".to_owned()),
                command.line(),
            ]
        };
        self.commands.iter().map(row).collect()
    }

    /// Returns a sentence about what is missing; `None` if nothing is known to be.
    #[must_use]
    pub(crate) fn lack(&self) -> Option<String> {
        if let Some(why) = &self.commands_unavailable {
            return Some(format!("unavailable: {why}"));
        }
        let more = self.commands_more;
        (more > 0).then(|| format!("{more} more are not shown: see `relay export --format json`"))
    }
}

impl RanCommand {
    /// Returns it as a shell would take it.
    fn line(&self) -> String {
        match (self.argv.as_slice(), self.cut) {
            ([], _) => "(over too soon to be seen)".to_owned(),
            (words, false) => shell_words::join(words),
            (words, true) => format!("{} …", shell_words::join(words)),
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::recording::record::{CommandExit, CommandRun, RecordedBytes};

    use super::*;

    fn record(event: Event<'_>) -> Record<'_> {
        Record { delta: 1, event }
    }

    fn command<'a>(pid: u32, argv: &[&'a [u8]]) -> Event<'a> {
        Event::Command(CommandRun {
            pid,
            parent: 1,
            argv: argv.iter().map(|word| RecordedBytes(word)).collect(),
            cut: argv.is_empty(),
            cwd: Some(RecordedBytes(b"/tmp")),
        })
    }

    #[test]
    fn a_command_is_one_line_with_how_it_ended() {
        let mut ran = Ran::default();
        let exit = |status| {
            Event::CommandExit(CommandExit {
                pid: 7,
                exit: Exit::Status(status),
            })
        };
        ran.handle(1_000_000, &record(command(7, &[b"sh", b"-c", b"a b"])));
        ran.handle(2_000_000, &record(command(7, &[b"ls"])));
        ran.handle(3_000_000, &record(exit(3)));
        ran.handle(4_000_000, &record(command(8, &[])));
        ran.handle(4_000_000, &record(exit(0)));
        let rows = ran.rows();
        let words: Vec<[&str; 3]> = rows
            .iter()
            .map(|row| [&*row[0], &*row[3], &*row[5]])
            .collect();
        assert_eq!(
            words,
            [
                ["00:01", "-", "sh -c 'a b'"],
                ["00:02", "0", "ls"],
                ["00:04", "-", "(over too soon to be seen)"],
            ]
        );
        assert_eq!(ran.lack(), None);
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut ran = Ran::default();
        for _ in 0..MAX_SHOWN_COMMANDS + 2 {
            ran.handle(0, &record(command(7, &[b"true"])));
        }
        assert_eq!(ran.commands.len(), MAX_SHOWN_COMMANDS);
        assert!(ran.lack().unwrap().starts_with("2 more are not shown"));
        ran.handle(0, &record(Event::CommandsUnavailable("no right")));
        assert_eq!(ran.lack().unwrap(), "unavailable: no right");
    }
}
