//! Compares the facts of a recording, its streams' data aside, with the relay's own row of the session.

use alloc::vec::Vec;

use super::contradiction::{Contradiction, Fact};
use super::expect::{command_tag, env_tag};
use super::forwards::ForwardCheck;
use super::lane::Unproved;
use super::{ChainKey, Expectation, RecordedKind, SessionStart};
use crate::limits::MAX_RECORD_COMMAND;
use crate::recording::digest::Mac;
use crate::recording::record::{
    EnvironmentRefused, Event, RecordingStart, StartedWork, Stream, cut_name,
};
use crate::wire::{Exit, StdinMode};

/// Compares everything but the streams' data. Keeps the first contradiction.
#[derive(Debug)]
pub(super) struct FactCheck<'s> {
    key: &'s ChainKey,
    expected: &'s Expectation,
    pub(super) holds_data: bool,
    forwards: ForwardCheck<'s>,
    command: Option<CommandCheck>,
    exit: Option<Exit>,
    has_eof: bool,
    /// The names that were sent and are not in the start, as far as the device did not say that it refused them.
    unset: Vec<&'s str>,
    found: Option<Contradiction>,
}

/// The command line, as it comes in pieces.
struct CommandCheck {
    mac: Mac,
    length: u64,
    said: u64,
}

impl<'s> FactCheck<'s> {
    pub(super) fn new(key: &'s ChainKey, expected: &'s Expectation) -> Self {
        let begun = expected.begun.as_ref();
        Self {
            key,
            expected,
            holds_data: expected.kind.holds_data(begun),
            forwards: ForwardCheck::new(
                expected.forwards.as_ref(),
                begun.is_some_and(|begun| !begun.may_have_gaps()),
            ),
            command: None,
            exit: None,
            has_eof: false,
            unset: Vec::new(),
            found: None,
        }
    }

    /// Takes the next record; `stdin` frames of input are before it. False: its data counts for nothing.
    pub(super) fn handle(&mut self, event: &Event<'_>, stdin: u64) -> bool {
        if !matches!(event, Event::CommandLine(_)) {
            self.finish_command();
        }
        let found = match event {
            Event::Start(start) => self.start(start),
            Event::CommandLine(part) => self.command_line(part.0),
            Event::Data(..) | Event::Part(..) | Event::Redacted(_) if !self.holds_data => {
                Some(Contradiction::Record)
            }
            Event::Data(stream, _) | Event::Part(stream, _) => {
                let off = self.begun().map(|begun| begun.stdin) == Some(StdinMode::Off);
                (off && *stream == Stream::Stdin).then_some(Contradiction::Redaction)
            }
            Event::Redacted(_) => self.redacted(),
            Event::ContentEnds(_) if !self.holds_data => Some(Contradiction::Content),
            Event::Gap(_) => self.gap(),
            Event::Exit(exit) => self.exit(*exit),
            Event::Eof(Stream::Stdin) => self.eof(stdin),
            Event::Resize(_) | Event::Signal(_) if self.is(RecordedKind::Forwards) => {
                Some(Contradiction::Record)
            }
            // Programs are listed within a terminal alone.
            Event::Command(_) | Event::CommandExit(_) | Event::CommandsUnavailable(_)
                if self.is_without_terminal() =>
            {
                Some(Contradiction::Record)
            }
            Event::EnvironmentRefused(refused) => self.refused(refused),
            Event::File(_) | Event::FilesUnfollowed(_)
                if self.holds_data || !self.is(RecordedKind::Sftp) =>
            {
                Some(Contradiction::Record)
            }
            Event::ForwardOpened(_) | Event::ForwardClosed(_)
                if !self.is(RecordedKind::Forwards) =>
            {
                Some(Contradiction::Record)
            }
            _ => None,
        };
        if let Some(found) = found.or_else(|| self.forwards.handle(event)) {
            self.contradict(found);
        }
        self.holds_data
    }

    /// Returns what contradicts, once all records were taken. `whole` says that the recording is complete by itself.
    pub(super) fn finish(&self, whole: bool) -> Option<Contradiction> {
        let passed = self.expected.closing.and_then(|closing| closing.exit);
        let lacks_exit = whole && passed.is_some() && self.exit.is_none();
        let found = self.found.or(lacks_exit.then_some(Contradiction::Exit));
        found.or(self.forwards.finish(whole).0)
    }

    /// Returns why its forwards are not all proved.
    pub(super) fn forwards_lack(&self, whole: bool) -> Option<Unproved> {
        self.forwards.finish(whole).1
    }

    pub(super) fn contradict(&mut self, found: Contradiction) {
        self.found.get_or_insert(found);
    }

    fn begun(&self) -> Option<&'s SessionStart> {
        self.expected.begun.as_ref()
    }

    fn is(&self, kind: RecordedKind) -> bool {
        self.expected.kind == kind
    }

    fn is_without_terminal(&self) -> bool {
        let begun = self.begun();
        self.is(RecordedKind::Forwards) || begun.is_some_and(|begun| begun.terminal.is_none())
    }

    fn start(&mut self, start: &RecordingStart<'_>) -> Option<Contradiction> {
        self.unset = self
            .begun()
            .map_or_else(Vec::new, |begun| unset(start, begun));
        let expected = self.expected;
        let checks = [
            (start.user == expected.user, Fact::User),
            (start.device == expected.device, Fact::Device),
            (start.login == expected.login, Fact::Login),
            (start.client == expected.client, Fact::Client),
            (is_kind(&start.work, expected), Fact::Kind),
        ];
        let begun = self.begun();
        let more = begun.into_iter().flat_map(|begun| {
            let terminal = start.terminal.as_ref();
            let terminal = terminal.map(|terminal| (terminal.term, terminal.size));
            let asked = begun.terminal.as_ref();
            let asked = asked.map(|(term, size)| (term.as_str(), *size));
            [
                (terminal == asked, Fact::Terminal),
                (self.is_env(start, begun), Fact::Environment),
                (
                    (start.mode, start.stdin) == (begun.mode, begun.stdin),
                    Fact::Mode,
                ),
            ]
        });
        let wrong = checks.into_iter().chain(more).find(|(holds, _)| !holds);
        if let Some((_, fact)) = wrong {
            return Some(Contradiction::Start(fact));
        }
        if start.streams != self.holds_data {
            return Some(Contradiction::Holds);
        }
        let asked = begun.and_then(|begun| begun.command);
        if let (StartedWork::Exec { length, head }, Some(_)) = (&start.work, asked) {
            let mut command = CommandCheck {
                mac: command_tag(self.key),
                length: 0,
                said: u64::from(*length),
            };
            command.take(head.0);
            self.command = Some(command);
        }
        None
    }

    /// Returns whether the environment is what was sent, in that order; the device may have refused some of it.
    fn is_env(&self, start: &RecordingStart<'_>, begun: &SessionStart) -> bool {
        let mut sent = begun.env.iter();
        start.env.iter().all(|(name, value)| {
            let tag = env_tag(self.key, name, value);
            sent.any(|(sent_name, sent_tag)| sent_name == name && *sent_tag == tag)
        })
    }

    /// Takes the names of what the device did not set: each was sent, and is not in the start.
    fn refused(&mut self, refused: &EnvironmentRefused<'_>) -> Option<Contradiction> {
        self.begun()?;
        for name in &refused.names {
            let is_it = |sent: &&str| cut_name(sent) == *name;
            let Some(at) = self.unset.iter().position(is_it) else {
                return Some(Contradiction::Refused);
            };
            self.unset.remove(at);
        }
        let more = usize::try_from(refused.more).unwrap_or(usize::MAX);
        (more > self.unset.len()).then_some(Contradiction::Refused)
    }

    fn command_line(&mut self, part: &[u8]) -> Option<Contradiction> {
        if let Some(command) = &mut self.command {
            command.take(part);
            return None;
        }
        // Of a session from before an upgrade it is not known.
        let unknown = self.begun().is_none() && self.is(RecordedKind::Exec);
        (!unknown).then_some(Contradiction::Record)
    }

    /// Completes the command line, because something else follows.
    fn finish_command(&mut self) {
        let Some(command) = self.command.take() else {
            return;
        };
        let asked = self.begun().and_then(|begun| begun.command);
        if asked.is_some_and(|(length, tag)| {
            (command.length, command.said) != (length, length) || command.mac.finalize() != tag
        }) {
            self.contradict(Contradiction::Start(Fact::Command));
        }
    }

    fn redacted(&self) -> Option<Contradiction> {
        let begun = self.begun()?;
        let may = match begun.stdin {
            StdinMode::Full => false,
            StdinMode::Off => true,
            StdinMode::Redact => begun.terminal.is_some(),
        };
        (!may).then_some(Contradiction::Redaction)
    }

    fn gap(&self) -> Option<Contradiction> {
        let may = self.begun()?.may_have_gaps();
        (!may).then_some(Contradiction::Gap)
    }

    fn exit(&mut self, exit: Exit) -> Option<Contradiction> {
        if self.is(RecordedKind::Forwards) {
            return Some(Contradiction::Record);
        }
        let second = self.exit.replace(exit).is_some();
        let passed = self.expected.closing.and_then(|closing| closing.exit);
        let other = passed.is_some_and(|passed| passed != exit);
        (second || other).then_some(Contradiction::Exit)
    }

    fn eof(&mut self, stdin: u64) -> Option<Contradiction> {
        if core::mem::replace(&mut self.has_eof, true) {
            return Some(Contradiction::Eof);
        }
        let control = self.expected.control.as_ref()?;
        // What the relay sent after it was noted last is not known of a relay that was killed.
        if self.expected.closing.is_none() && control.eof.is_none() {
            return None;
        }
        (control.eof != Some(stdin)).then_some(Contradiction::Eof)
    }
}

impl CommandCheck {
    fn take(&mut self, part: &[u8]) {
        self.mac.update(part);
        self.length = self.length.saturating_add(part.len() as u64);
    }
}

/// Returns the names of what was sent and is not in the start.
fn unset<'s>(start: &RecordingStart<'_>, begun: &'s SessionStart) -> Vec<&'s str> {
    let mut set = start.env.iter().map(|(name, _)| *name).peekable();
    let sent = begun.env.iter().map(|(name, _)| name.as_str());
    sent.filter(|name| set.next_if(|set| set == name).is_none())
        .collect()
}

/// Returns whether the work is of the kind that the session was.
fn is_kind(work: &StartedWork<'_>, expected: &Expectation) -> bool {
    match (work, expected.kind) {
        (StartedWork::Shell, RecordedKind::Shell)
        | (StartedWork::Forwards, RecordedKind::Forwards) => true,
        (StartedWork::Exec { length, head }, RecordedKind::Exec) => {
            // The rest of a command line follows only behind a head that is full.
            let length = usize::try_from(*length).unwrap_or(usize::MAX);
            head.0.len() == length.min(MAX_RECORD_COMMAND)
        }
        (StartedWork::Subsystem(name), RecordedKind::Sftp) => {
            let begun = expected.begun.as_ref();
            let asked = begun.and_then(|begun| begun.subsystem.as_deref());
            asked.is_none_or(|asked| asked == *name)
        }
        _ => false,
    }
}

impl core::fmt::Debug for CommandCheck {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CommandCheck")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}
