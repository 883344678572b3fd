//! One session channel, between its opening and the request that starts something on it.

use std::sync::{Arc, MutexGuard};

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::limits::{
    MAX_ENV, MAX_ENV_BYTES, MAX_ENV_NAME, MAX_ENV_VALUE, MAX_TERM, MAX_TERMINAL_MODES,
};
use holdfast_protocol::wire::{Pty, WindowSize};
use russh::ChannelWriteHalf;
use russh::server::Msg;
use thiserror::Error;

use crate::session::admission::Opened;
use crate::session::client::target::SshTarget;
use crate::session::forward::channel::ChannelOpener;
use crate::session::input::{InputReceiver, InputSender};
use crate::ssh::limits::{MAX_CHANNEL_SENTENCES, MAX_ENV_REQUESTS, MAX_SHOWN_VARIABLE};
use crate::sync::Mutex;

/// The result of the decision at a channel's opening. It is set before the channel is confirmed, and taken once.
#[derive(Debug, Default)]
pub(crate) struct Opening(Mutex<FoundChannel>);

#[derive(Debug, Default)]
enum FoundChannel {
    #[default]
    Nothing,
    Opened(Opened),
    Refused,
}

/// A channel on which nothing runs yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// The target that was asked for.
    pub target: SshTarget,
    /// The result of the decision.
    pub opening: Arc<Opening>,
    /// The half that writes to the operator.
    pub write: ChannelWriteHalf<Msg>,
    /// The session's end of the queue.
    pub input: InputReceiver,
    /// The terminal that was asked for.
    pub pty: Option<Pty>,
    /// The environment that was asked for and is allowed.
    pub env: Vec<(String, String)>,
    /// The way to the client's SSH agent, if it was asked for and granted.
    pub(crate) agent: Option<Arc<dyn ChannelOpener>>,
    env_requests: usize,
    /// Sentences that were written to its stderr.
    said: usize,
}

/// A channel of a connection.
#[derive(Debug)]
pub(crate) struct ChannelState {
    /// The sender of its queue.
    pub sender: InputSender,
    /// The kind that it was opened as, until something starts.
    pub waiting: Option<Waiting>,
    /// True if its client has ended its input.
    pub ended: bool,
    /// True if it is a forward through a device.
    pub forward: bool,
}

impl Opening {
    /// Sets where the channel leads.
    pub(crate) fn set(&self, opened: Opened) {
        *self.lock() = FoundChannel::Opened(opened);
    }

    /// Notes that the channel leads nowhere.
    pub(crate) fn refuse(&self) {
        *self.lock() = FoundChannel::Refused;
    }

    /// Returns where the channel leads, once.
    #[must_use]
    pub(crate) fn take(&self) -> Option<Opened> {
        match std::mem::take(&mut *self.lock()) {
            FoundChannel::Opened(opened) => Some(opened),
            FoundChannel::Nothing | FoundChannel::Refused => None,
        }
    }

    fn is_refused(&self) -> bool {
        matches!(*self.lock(), FoundChannel::Refused)
    }

    fn lock(&self) -> MutexGuard<'_, FoundChannel> {
        self.0.lock()
    }
}

impl ChannelState {
    /// Returns whether it was refused, or what it was opened for has ended: then it counts no more, even if its
    /// client has not closed it yet.
    #[must_use]
    pub(crate) fn is_over(&self) -> bool {
        let waiting = self.waiting.as_ref();
        self.sender.is_closed() || waiting.is_some_and(|waiting| waiting.opening.is_refused())
    }
}

impl Waiting {
    /// Creates a channel that was just asked for.
    #[must_use]
    pub(crate) fn new(
        target: SshTarget,
        write: ChannelWriteHalf<Msg>,
        input: InputReceiver,
    ) -> Self {
        let (opening, pty, env) = (Arc::default(), None, Vec::new());
        Self {
            target,
            opening,
            write,
            input,
            pty,
            env,
            agent: None,
            env_requests: 0,
            said: 0,
        }
    }

    /// Takes a request for a terminal.
    ///
    /// # Errors
    /// [`RequestRefusal`]: why it cannot be had.
    pub(crate) fn set_pty(
        &mut self,
        term: &str,
        size: WindowSize,
        modes: &[(russh::Pty, u32)],
    ) -> Result<(), RequestRefusal> {
        if self.pty.is_some() {
            return Err(RequestRefusal::SecondTerminal);
        }
        if term.len() > MAX_TERM {
            return Err(RequestRefusal::LongTerm(term.len()));
        }
        if term.contains('\0') {
            return Err(RequestRefusal::ZeroInTerm);
        }
        let modes = modes
            .iter()
            .filter(|(mode, _)| *mode != russh::Pty::TTY_OP_END)
            .take(MAX_TERMINAL_MODES)
            .map(|(mode, value)| (*mode as u8, *value))
            .collect();
        self.pty = Some(Pty {
            term: term.to_owned(),
            size,
            modes,
        });
        Ok(())
    }

    /// Returns whether one more sentence may be written to the channel before anything runs on it.
    pub(crate) fn may_say(&mut self) -> bool {
        self.said += 1;
        self.said <= MAX_CHANNEL_SENTENCES
    }

    /// Takes an environment variable.
    ///
    /// # Errors
    /// [`RequestRefusal`]: why it is not passed on.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) -> Result<(), RequestRefusal> {
        self.env_requests += 1;
        let checked = self.check_env(name, value);
        checked.map_err(|why| RequestRefusal::Variable {
            name: name.chars().take(MAX_SHOWN_VARIABLE).collect(),
            why,
        })?;
        self.env.retain(|(present, _)| present != name);
        self.env.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    fn check_env(&self, name: &str, value: &str) -> Result<(), VariableError> {
        let taken: usize = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if self.env_requests > MAX_ENV_REQUESTS || self.env.len() >= MAX_ENV {
            return Err(VariableError::TooMany);
        }
        if name.len() > MAX_ENV_NAME {
            return Err(VariableError::LongName(name.len()));
        }
        if value.len() > MAX_ENV_VALUE {
            return Err(VariableError::LongValue(value.len()));
        }
        if taken + name.len() + value.len() > MAX_ENV_BYTES {
            return Err(VariableError::TooMuch);
        }
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(VariableError::Malformed);
        }
        // The device has its own allow-list, which decides. Names that make a program run other code are
        // never passed on, whatever the device thinks.
        match is_dangerous(name) {
            true => Err(VariableError::Dangerous),
            false => Ok(()),
        }
    }
}

/// The reason why a request of a channel is refused before anything runs on it.
#[derive(Debug, Error)]
pub(crate) enum RequestRefusal {
    /// The channel has a terminal.
    #[error("no second terminal: the channel has one")]
    SecondTerminal,
    /// The terminal's name is too long.
    #[error("no terminal: TERM has {0} bytes; the maximum is {MAX_TERM}")]
    LongTerm(usize),
    /// It holds a zero byte.
    #[error("no terminal: TERM holds a zero byte")]
    ZeroInTerm,
    /// It is too late for one.
    #[error("no terminal: something runs on this channel already")]
    Started,
    /// The certificate permits none.
    #[error("no terminal: your certificate does not permit one")]
    NoTerminalPermitted,
    /// A variable is not passed on.
    #[error("{} is not passed on: {why}", Escaped(.name))]
    Variable {
        /// The beginning of its name.
        name: String,
        /// The reason.
        why: VariableError,
    },
}

/// The reason why a variable is not passed on.
#[derive(Clone, Copy, Debug, Error)]
pub(crate) enum VariableError {
    /// There are as many as there may be.
    #[error("there are too many; the maximum is {MAX_ENV}")]
    TooMany,
    /// Its name is too long.
    #[error("its name has {0} bytes; the maximum is {MAX_ENV_NAME}")]
    LongName(usize),
    /// Its value is too long.
    #[error("its value has {0} bytes; the maximum is {MAX_ENV_VALUE}")]
    LongValue(usize),
    /// All together are too long.
    #[error("the environment of a session has at most {MAX_ENV_BYTES} bytes")]
    TooMuch,
    /// It is no variable.
    #[error("it is not a variable's name and value")]
    Malformed,
    /// It makes programs run other code.
    #[error("it chooses which code programs run")]
    Dangerous,
}

fn is_dangerous(name: &str) -> bool {
    ["LD_", "DYLD_", "BASH_FUNC_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || [
            "PATH",
            "IFS",
            "ENV",
            "BASH_ENV",
            "SHELLOPTS",
            "BASHOPTS",
            "PS4",
        ]
        .contains(&name)
}
