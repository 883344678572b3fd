//! The one command tree of the CLI and the SSH console: `relay devices` in a shell on the relay's machine, and
//! `ssh relay devices` from anywhere. What a command does and says is the same at both; who may run it
//! is asked in one place, [`permit`].

pub(crate) mod access;
pub(crate) mod admin;
mod answer;
mod args;
pub(crate) mod call;
pub(crate) mod devices;
mod line;
mod recordings;
mod sessions;
mod usage;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use holdfast_protocol::ids::ClusterFingerprint;
use serde::Serialize;
use thiserror::Error;

use crate::audit::{Actor, Audit, Event};
use crate::clock::Timestamp;
use crate::recording::archive::Archive;
use crate::recording::export::screen;
use crate::session::registry::console::{ConsoleStream, Need, Shows};
use crate::session::registry::life::Activity;
use crate::state::State;
use crate::store::{self, Store, StoreError};

pub(crate) use crate::output::{DONE, FAILED, Out, USAGE};
pub(crate) use admin::doctor::unopened;
pub(crate) use call::caller::Caller;
pub(crate) use call::permit::permit;
pub(crate) use recordings::{own_state, recording_states};
pub(crate) use usage::usage;

/// The most that a command reads from stdin or a file: some hundred public keys.
pub(crate) const MAX_INPUT: usize = 64 * 1024;

/// The same of `ca revoke`: a revocation list of some ten thousand entries.
pub(crate) const MAX_REVOCATION_INPUT: usize = 1024 * 1024;

/// The same of `apply`: some ten thousand users with their keys.
pub(crate) const MAX_POLICY_INPUT: usize = 4 * 1024 * 1024;

/// The longest line that the console parses: no command needs more, keys come by stdin.
pub(crate) const MAX_CONSOLE_LINE: usize = 8 * 1024;

/// A command that an operator can give a relay.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Operators: who they are, by which keys they are known, what roles they have
    User(access::user::Args),
    /// Certificate authorities for users, and revoked keys and certificates
    Ca(access::ca::Args),
    /// Tokens that let devices join
    Token(devices::token::Args),
    /// The fleet: list, show, rename, label, revoke
    Devices(devices::list::Args),
    /// Wait until a device is online
    Wait(devices::wait::Args),
    /// Run a command on many devices
    Exec(devices::exec::Args),
    /// Put a file onto many devices
    Cp(devices::cp::Args),
    /// Put roles and users from a file into force
    Apply(access::apply::Args),
    /// Give roles or users back, in the form that `apply` takes
    Get(access::get::Args),
    /// Roles: list, remove
    Role(access::role::Args),
    /// Look for what is wrong or careless with this relay
    Doctor(admin::doctor::Args),
    /// Shut out a user, role, login, device or address: nothing new, and live sessions end
    Lock(access::lock::Args),
    /// Remove a lock
    Unlock(access::lock::UnlockArgs),
    /// Live sessions: list, kill
    Sessions(sessions::Args),
    /// Recorded sessions: list, show, verify, search, remove
    Recordings(recordings::Args),
    /// Watch a recorded session
    Play(recordings::play::Args),
    /// A recorded session for other programs
    Export(recordings::export::Args),
    /// Print the lines for ~/.ssh/config and known_hosts that reach devices by name
    SshConfig(devices::ssh_config::Args),
    /// Print the audit log: who did what, where, and how it went
    Audit(admin::audit::Args),
    /// Print the user that the relay takes you for
    Whoami(access::whoami::Args),
}

/// The context that commands work in.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The store.
    pub store: Store,
    /// The facts about the relay's keys.
    pub facts: Facts,
    /// The time that the command is run at.
    pub now: Timestamp,
    /// The audit log.
    pub audit: Audit,
    /// The actor that the log knows the caller as.
    pub actor: Actor,
    /// The address of the caller; `None` for the relay's own shell.
    pub client: Option<SocketAddr>,
    /// The command on the live-session registry, if it streams to an operator.
    pub stream: Option<Arc<ConsoleStream>>,
    /// The number of columns the caller's terminal has; `None`: the answer goes elsewhere, and lines may be of any
    /// length.
    pub width: Option<usize>,
}

/// The public side of the relay's state.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The fingerprint of the cluster in tokens.
    pub cluster: ClusterFingerprint,
    /// The SSH host CA's public key, as in a `.pub` file.
    pub ssh_ca: String,
    /// The relay's own SSH host key, as in a `.pub` file.
    pub ssh_host: String,
    /// The one that follows it, while it is being replaced.
    pub ssh_host_next: Option<String>,
    /// The path of the state.
    pub folder: PathBuf,
    /// The storage of recordings, and the key that opens them.
    pub archive: Archive,
}

impl Facts {
    /// Takes them from the state.
    #[must_use]
    pub(crate) fn of(state: &State, archive: Archive) -> Self {
        Self {
            cluster: state.cluster_fingerprint(),
            ssh_ca: access::keys::line_of(state.ssh_ca.public_key()),
            ssh_host: access::keys::line_of(state.ssh_host.public_key()),
            ssh_host_next: state
                .ssh_host_next
                .as_ref()
                .map(|key| access::keys::line_of(key.public_key())),
            folder: state.dir.clone(),
            archive,
        }
    }
}

impl Command {
    /// Returns whether [`run`] wants the whole of stdin: for `--key -` and `-f -`.
    #[must_use]
    pub(crate) fn wants_stdin(&self) -> bool {
        match self {
            Self::User(args) => args.wants_stdin(),
            Self::Ca(args) => args.wants_stdin(),
            Self::Apply(args) => args.wants_stdin(),
            _ => false,
        }
    }

    /// Returns the most bytes that it takes from stdin. Hand it one more to have a longer input refused.
    #[must_use]
    pub(crate) fn max_input(&self) -> usize {
        match self {
            Self::Ca(_) => MAX_REVOCATION_INPUT,
            Self::Apply(_) => MAX_POLICY_INPUT,
            _ => MAX_INPUT,
        }
    }

    /// Returns whether the answer may go on for as long as it is read.
    #[must_use]
    pub(crate) fn streams(&self) -> bool {
        match self {
            Self::Audit(args) => args.streams(),
            Self::Recordings(args) => args.streams(),
            Self::Wait(_) | Self::Play(_) | Self::Export(_) => true,
            Self::Exec(_) | Self::Cp(_) => true,
            _ => false,
        }
    }

    /// Returns the right that has to hold for as long as it runs: the caller may run it.
    #[must_use]
    pub(crate) fn need(&self) -> Need {
        let command = self.clone();
        Box::new(move |subject| permit(&Caller::User(subject.clone()), &command).is_ok())
    }

    /// Returns the recordings that it shows to this caller.
    #[must_use]
    pub(crate) fn shows(&self, caller: &Caller) -> Shows {
        match self {
            Self::Recordings(_) | Self::Play(_) | Self::Export(_) => recordings::shown(caller),
            _ => Shows::Nothing,
        }
    }

    /// Returns what counts as activity while it runs. What ends by itself is at work; what goes on until its reader has
    /// seen enough is not.
    #[must_use]
    pub(crate) fn activity(&self, terminal: bool) -> Activity {
        match self {
            Self::Audit(args) if !args.follows() => Activity::Running,
            Self::Audit(_) | Self::Play(_) if terminal => Activity::Input,
            Self::Audit(_) | Self::Play(_) => Activity::Bytes,
            _ => Activity::Running,
        }
    }

    /// Returns what has to be written to a terminal when the answer is given up in the middle.
    #[must_use]
    pub(crate) fn parting(&self) -> &'static str {
        match self {
            Self::Play(_) => screen::CLOSE,
            _ => "",
        }
    }

    /// Returns what the audit log says when this is done, or refused, or goes wrong; `None` for a command that
    /// changes nothing. A change writes it in its own transaction, which adds what only it knows.
    fn event(&self) -> Option<Event> {
        match self {
            Self::User(args) => args.event(),
            Self::Ca(args) => args.event(),
            Self::Token(args) => args.event(),
            Self::Devices(args) => args.event(),
            Self::Apply(args) => args.event(),
            Self::Role(args) => args.event(),
            Self::Lock(args) => args.event(),
            Self::Unlock(args) => Some(args.event()),
            Self::Audit(args) => Some(args.event()),
            Self::Recordings(args) => args.event(),
            Self::Play(args) => Some(args.event()),
            Self::Export(args) => Some(args.event()),
            // What is done on each device is a session there, with rows of its own.
            Self::Exec(_) | Self::Cp(_) => None,
            // The user who ended a session is in its own `client.disconnect`.
            Self::Sessions(_)
            | Self::Wait(_)
            | Self::Get(_)
            | Self::Doctor(_)
            | Self::SshConfig(_)
            | Self::Whoami(_) => None,
        }
    }
}

impl Context {
    /// Returns the event with who is asking and from where.
    fn event(&self, event: Event) -> Event {
        let event = event.user(self.actor.clone());
        match self.client {
            Some(client) => event.client(client),
            None => event,
        }
    }
}

/// Runs a command for a caller: checks whether they may, does it, and writes what it says to `out` or,
/// if it fails, one sentence to `err`. Gives the exit status. Of `stdin`, a byte more than
/// [`Command::max_input`] is enough.
pub(crate) async fn run(
    command: Command,
    caller: &Caller,
    context: &Context,
    stdin: Option<&[u8]>,
    out: &mut Out<'_>,
    err: &mut Out<'_>,
) -> u8 {
    // What goes on for long changes nothing: what others changed meanwhile is theirs to wait for.
    let changes_nothing = command.streams();
    let is_deed = answer::is_deed(&command);
    let done = async {
        let before = context.store.access_version().await?;
        let Done { text, code } = run_audited(command, caller, context, stdin, out).await?;
        let written = answer::write(out, err, &text, is_deed).await;
        if !changes_nothing {
            // What was taken away is in force before the command returns.
            if let Some(sentence) = call::confirm::wait(&context.store, before).await? {
                return Err(Failure(sentence));
            }
        }
        written.map(|()| code)
    };
    match done.await {
        Ok(code) => code,
        Err(failure) if failure.is_quiet() => DONE,
        Err(Failure(sentence)) => {
            // If stderr is gone as well, the exit status is all that is left to say it with.
            answer::complain(err, &sentence).await;
            FAILED
        }
    }
}

/// The answer of a command that was done, on stdout, and its exit status.
pub(crate) struct Done {
    text: String,
    code: u8,
}

impl From<String> for Done {
    fn from(text: String) -> Self {
        Self { text, code: DONE }
    }
}

/// Runs a command, and sees that the audit log tells of it, whatever comes of it.
async fn run_audited(
    command: Command,
    caller: &Caller,
    context: &Context,
    stdin: Option<&[u8]>,
    out: &mut Out<'_>,
) -> Result<Done, Failure> {
    let event = command.event().map(|event| context.event(event));
    if let Err(refused) = permit(caller, &command) {
        if let Some(event) = event {
            context.audit.note_refusal(event.refused(&refused)).await;
        }
        return Err(Failure(refused));
    }
    let Some(event) = event else {
        return dispatch(command, caller, context, stdin, out).await;
    };
    let (store, attributed) = context
        .store
        .attributed(vec![context.audit.entry(event.clone())]);
    let context = Context {
        store,
        ..context.clone()
    };
    let done = dispatch(command, caller, &context, stdin, out).await;
    if let Err(failure @ Failure(why)) = &done
        && !failure.is_quiet()
        && !attributed.is_written()
    {
        context.audit.note(event.failed(why)).await;
    }
    done
}

async fn dispatch(
    command: Command,
    caller: &Caller,
    context: &Context,
    stdin: Option<&[u8]>,
    out: &mut Out<'_>,
) -> Result<Done, Failure> {
    let most = command.max_input();
    if stdin.is_some_and(|stdin| stdin.len() > most) {
        return Err(Failure(format!("stdin is longer than {most} bytes")));
    }
    let text = match command {
        Command::User(args) => access::user::run(args, caller, context, stdin).await?,
        Command::Ca(args) => access::ca::run(args, caller, context, stdin).await?,
        Command::Token(args) => devices::token::run(args, context).await?,
        Command::Devices(args) => devices::list::run(args, caller, context).await?,
        Command::Wait(args) => devices::wait::run(&args, caller, context).await?,
        // The CLI and the console take these elsewhere: they are no answer to a question.
        Command::Exec(_) | Command::Cp(_) => {
            return Err(Failure::new(
                "this is work for a fleet, which is done over ssh",
            ));
        }
        Command::Apply(args) => access::apply::run(&args, caller, context, stdin).await?,
        Command::Get(args) => access::get::run(&args, context).await?,
        Command::Role(args) => access::role::run(args, context).await?,
        Command::Doctor(args) => return admin::doctor::run(&args, context).await,
        Command::Lock(args) => access::lock::run(args, caller, context).await?,
        Command::Unlock(args) => access::lock::unlock(&args, context).await?,
        Command::Sessions(args) => sessions::run(args, caller, context).await?,
        Command::Recordings(args) => return recordings::run(args, caller, context, out).await,
        Command::Play(args) => recordings::play::run(&args, caller, context, out).await?,
        Command::Export(args) => recordings::export::run(&args, caller, context, out).await?,
        Command::SshConfig(args) => devices::ssh_config::run(&args, context).await?,
        Command::Audit(args) => admin::audit::run(args, context, out).await?,
        Command::Whoami(args) => access::whoami::run(&args, caller, context).await?,
    };
    Ok(text.into())
}

/// The console's grammar: the command tree alone. `serve` and `--state` do not exist there.
#[derive(Parser)]
#[command(
    name = "ssh RELAY",
    about = "The relay's console: the same commands as on the relay itself",
    no_binary_name = true,
    disable_version_flag = true
)]
struct Console {
    #[command(subcommand)]
    command: Command,
}

/// Parses a line that came over ssh, in the words of a POSIX shell: quotes and backslashes, but no
/// variables, no wildcards and no pipes.
///
/// # Errors
/// The text to answer with and the exit status: with [`DONE`] it is help and belongs on stdout, with
/// [`USAGE`] it says what is wrong and belongs on stderr.
pub(crate) fn parse_console(line: &str) -> Result<Command, (String, u8)> {
    if line.len() > MAX_CONSOLE_LINE {
        let text = format!("the command is longer than {MAX_CONSOLE_LINE} bytes\n");
        return Err((text, USAGE));
    }
    let words = line::words(line)
        .map_err(|_| ("a quote in the command is not closed\n".to_owned(), USAGE))?;
    let words = own_state(words.into_iter().map(Into::into), false);
    match Console::try_parse_from(words) {
        Ok(console) => Ok(console.command),
        Err(error) => {
            let (mut text, code) = usage(&error);
            text.push_str(usage::console_tip(&error));
            Err((text, code))
        }
    }
}

/// The reason why a command did not do it: one sentence, for stderr. An empty one: its reader has seen enough.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct Failure(String);

impl Failure {
    fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// Returns the answer cannot be written; a reader that has seen enough (`| head`) hears nothing of it.
    fn unwritten(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self(String::new()),
            _ => Self(format!("cannot write the answer: {error}")),
        }
    }

    /// Returns whether its reader ended it.
    const fn is_quiet(&self) -> bool {
        self.0.is_empty()
    }
}

/// The errors of the store and of the key parser are such sentences.
macro_rules! failure_from {
    ($($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self(error.to_string())
            }
        })+
    };
}
failure_from!(
    StoreError,
    store::KeyError,
    store::AuthorityError,
    store::RevocationError,
    access::ca::ListError,
    crate::state::StateError,
    store::RenameError,
    store::LabelError,
    store::RevokeError,
    store::LockError,
    store::ApplyError,
    store::RoleError,
    access::keys::KeyFileError,
    access::policy::DocumentError
);

/// Returns JSON as all commands print it: indented, with a final newline.
fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    crate::json::pretty(value)
        .map_err(|error| Failure(format!("the answer cannot be written as JSON: {error}")))
}

#[cfg(test)]
mod tests;
