//! The one command tree of both ways in: `relay devices` in a shell on the relay's machine, and `ssh relay devices`
//! from anywhere. What a command does and prints is the same at both. A command is one file that implements
//! [`Command`], and one line in the list below.

pub(crate) mod access;
pub(crate) mod admin;
pub(crate) mod answer;
mod args;
pub(crate) mod call;
pub(crate) mod devices;
mod grammar;
pub(crate) mod limits;
mod line;
mod mistake;
mod recordings;
mod sessions;
mod usage;

use clap::Subcommand;
use serde::Serialize;

use crate::access::policy::Subject;
use crate::audit::Event;
use crate::model::invalid::Fault;
use crate::session::registry::console::{self, Shows};
use crate::session::registry::life::Activity;

pub(crate) use crate::output::{DONE, FAILED, Out, USAGE};
pub(crate) use admin::cluster::JoinArgs;
pub(crate) use answer::failure::Failure;
pub(crate) use call::Done;
pub(crate) use call::caller::Caller;
pub(crate) use call::change::CommandRow;
pub(crate) use call::context::{Context, RelayFacts};
pub(crate) use call::permit::permit;
pub(crate) use devices::Bulk;
pub(crate) use grammar::parse_console;
pub(crate) use recordings::{own_state, recording_states};
pub(crate) use usage::usage;

use call::{Call, Command, Right};

/// Makes the command tree of a list of commands: an enum of their arguments, with the methods of [`Command`].
macro_rules! command_tree {
    ($($name:ident($args:ty),)+) => {
        /// A command that an operator can give a relay. Its help text is with its arguments.
        #[derive(Clone, Debug, Subcommand)]
        pub(crate) enum AnyCommand {
            $($name($args),)+
        }

        impl AnyCommand {
            /// Returns what the caller must hold to run it.
            pub(crate) fn need(&self) -> Right {
                match self { $(Self::$name(args) => args.need(),)+ }
            }

            /// Returns its audit event, if it has one.
            fn event(&self) -> Option<Event> {
                match self { $(Self::$name(args) => args.event(),)+ }
            }

            fn is_deed(&self) -> bool {
                match self { $(Self::$name(args) => args.is_deed(),)+ }
            }

            /// Returns whether [`run`] wants the whole of stdin.
            pub(crate) fn wants_stdin(&self) -> bool {
                match self { $(Self::$name(args) => args.wants_stdin(),)+ }
            }

            /// Returns whether it names a file, which over ssh has to come on stdin.
            pub(crate) fn names_file(&self) -> bool {
                match self { $(Self::$name(args) => args.names_file(),)+ }
            }

            /// Returns the most bytes that it takes from stdin. One byte more has a longer input refused.
            pub(crate) fn max_input(&self) -> usize {
                match self { $(Self::$name(_) => <$args as Command>::MAX_INPUT,)+ }
            }

            /// Returns whether the answer may go on for as long as it is read.
            pub(crate) fn streams(&self) -> bool {
                match self { $(Self::$name(args) => args.streams(),)+ }
            }

            /// Returns which recordings it shows to this caller.
            pub(crate) fn shows(&self, caller: &Caller) -> Shows {
                match self { $(Self::$name(args) => args.shows(caller),)+ }
            }

            /// Returns what counts as activity while it runs.
            pub(crate) fn activity(&self, terminal: bool) -> Activity {
                match self { $(Self::$name(args) => args.activity(terminal),)+ }
            }

            /// Returns what has to be written to a terminal when the answer is given up in the middle.
            pub(crate) fn parting(&self) -> &'static str {
                match self { $(Self::$name(args) => args.parting(),)+ }
            }

            /// Returns the exit status of a failure.
            fn failure_code(&self) -> u8 {
                match self { $(Self::$name(args) => args.failure_code(),)+ }
            }

            /// Returns its answer and exit status where the state folder cannot be opened, if it has one.
            pub(crate) fn unopened(&self, fault: &Fault) -> Option<(String, u8)> {
                match self { $(Self::$name(args) => args.unopened(fault),)+ }
            }

            async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
                match self { $(Self::$name(args) => args.run(call).await,)+ }
            }
        }
    };
}

command_tree! {
    User(access::user::Args),
    Ca(access::ca::Args),
    Token(devices::token::Args),
    Devices(devices::list::Args),
    Wait(devices::wait::Args),
    Exec(devices::exec::Args),
    Cp(devices::cp::Args),
    Apply(access::apply::Args),
    Get(access::get::Args),
    Role(access::role::Args),
    Doctor(admin::doctor::Args),
    Lock(access::lock::Args),
    Unlock(access::lock::UnlockArgs),
    Sessions(sessions::Args),
    Recordings(recordings::Args),
    Play(recordings::play::Args),
    Export(recordings::export::Args),
    SshConfig(devices::ssh_config::Args),
    Audit(admin::audit::Args),
    Cluster(admin::cluster::Args),
    Whoami(access::whoami::Args),
}

impl AnyCommand {
    /// Returns the work on many devices that it asks for, if it is a command for those.
    pub(crate) fn bulk(&self) -> Option<Bulk<'_>> {
        match self {
            Self::Exec(args) => Some(Bulk::Exec(args)),
            Self::Cp(args) => Some(Bulk::Cp(args)),
            _ => None,
        }
    }
}

impl AnyCommand {
    /// Returns the arguments of a relay that joins a cluster, which is done without a state folder.
    pub(crate) fn join(&self) -> Option<&JoinArgs> {
        match self {
            Self::Cluster(args) => args.join(),
            _ => None,
        }
    }

    /// Returns the condition that must hold for as long as it runs: the user may run it.
    #[must_use]
    pub(crate) fn condition(&self) -> console::ConsoleCondition {
        let command = self.clone();
        Box::new(move |subject: &Subject| permit(&Caller::User(subject.clone()), &command).is_ok())
    }
}

/// Runs a command for its caller: checks whether they may, does it, and writes what it says to `out` or, if it fails,
/// one sentence to `err`. Returns the exit status. Of `stdin`, a byte more than [`AnyCommand::max_input`] is enough.
pub(crate) async fn run(
    command: AnyCommand,
    caller: &Caller,
    context: &Context,
    stdin: Option<&[u8]>,
    out: &mut Out<'_>,
    err: &mut Out<'_>,
) -> u8 {
    // What goes on for long takes nothing away: what others changed meanwhile is theirs to wait for.
    let changes_nothing = command.streams();
    let is_deed = command.is_deed();
    let failed = match caller {
        // A file of the operator's machine cannot be read here: wrong usage, whatever else fails.
        Caller::User(_) if command.names_file() && permit(caller, &command).is_ok() => USAGE,
        _ => command.failure_code(),
    };
    let done = async {
        let before = context.store.access_version().await?;
        let Done {
            text,
            code,
            complaint,
        } = run_audited(command, caller, context, stdin, out).await?;
        let written = answer::write(out, err, &text, is_deed).await;
        if !complaint.is_empty() {
            answer::complain(err, &complaint).await;
        }
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
            failed
        }
    }
}

/// Runs a command, and sees that the audit log has it, whatever comes of it.
async fn run_audited(
    command: AnyCommand,
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
    let row = CommandRow::new(context.audit.entry(event.clone()));
    let context = Context {
        row: row.clone(),
        ..context.clone()
    };
    let done = dispatch(command, caller, &context, stdin, out).await;
    if let Err(failure @ Failure(why)) = &done
        && !failure.is_quiet()
        && !row.is_written()
    {
        context.audit.note(event.failed(why)).await;
    }
    done
}

async fn dispatch(
    command: AnyCommand,
    caller: &Caller,
    context: &Context,
    stdin: Option<&[u8]>,
    out: &mut Out<'_>,
) -> Result<Done, Failure> {
    let most = command.max_input();
    if stdin.is_some_and(|stdin| stdin.len() > most) {
        return Err(Failure(format!("stdin is longer than {most} bytes")));
    }
    command
        .run(Call {
            caller,
            context,
            stdin,
            out,
        })
        .await
}

/// Returns JSON as all commands print it: indented, with a final newline.
fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    crate::json::pretty(value)
        .map_err(|error| Failure(format!("the answer cannot be written as JSON: {error}")))
}

#[cfg(test)]
mod tests;
