//! The trait of a command: everything that the CLI and the SSH console need to know of it, in one place.

use super::caller::Caller;
use super::context::Context;
use super::permit::Right;
use crate::audit::Event;
use crate::commands::answer::failure::Failure;
use crate::commands::limits::MAX_INPUT;
use crate::model::invalid::Fault;
use crate::output::{DONE, FAILED, Out};
use crate::session::registry::console::Shows;
use crate::session::registry::life::Activity;

/// A command of the tree. Its arguments implement it: their documentation is the help text, and the methods answer
/// what both ways in ask before, while and after it runs.
pub(crate) trait Command: clap::Args + Clone {
    /// The most bytes that it takes from stdin. One byte more has a longer input refused.
    const MAX_INPUT: usize = MAX_INPUT;

    /// Returns what the caller must hold to run it with these arguments.
    fn need(&self) -> Right;

    /// Returns what the audit log says when this is done, or refused, or goes wrong; `None` for a command that changes
    /// nothing and shows nothing that is worth a row. A change writes the event in its own transaction, which adds
    /// what only the change knows.
    fn event(&self) -> Option<Event>;

    /// Returns whether the deed counts, and the answer only reports it: then it succeeds even if the answer cannot be
    /// written.
    fn is_deed(&self) -> bool {
        false
    }

    /// Returns whether it wants the whole of stdin, as for `--key -` and `-f -`.
    fn wants_stdin(&self) -> bool {
        false
    }

    /// Returns whether it names a file of the machine that it is typed on, which the relay does not see over ssh.
    fn names_file(&self) -> bool {
        false
    }

    /// Returns whether the answer may go on for as long as it is read. Such a command changes nothing, or waits by itself
    /// until what it changes is so; it is listed and ended as sessions are.
    fn streams(&self) -> bool {
        false
    }

    /// Returns which recordings it shows to this caller.
    fn shows(&self, _caller: &Caller) -> Shows {
        Shows::Nothing
    }

    /// Returns what counts as activity while it runs, with or without a terminal. What ends by itself is at work; what
    /// goes on until its reader has seen enough is not.
    fn activity(&self, _terminal: bool) -> Activity {
        Activity::Running
    }

    /// Returns what has to be written to a terminal when the answer is given up in the middle.
    fn parting(&self) -> &'static str {
        ""
    }

    /// Returns the answer and the exit status where the state folder cannot be opened because of this fault; `None` for
    /// a command that needs it open.
    fn unopened(&self, _fault: &Fault) -> Option<(String, u8)> {
        None
    }

    /// Returns the exit status of a failure: [`FAILED`], unless that means something else here.
    fn failure_code(&self) -> u8 {
        FAILED
    }

    /// Does it, and returns the answer.
    ///
    /// # Errors
    /// The sentence to fail with.
    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure>;
}

/// The parameters of a command's run.
pub(crate) struct Call<'c, 'o> {
    /// The user or the local account that runs it.
    pub(crate) caller: &'c Caller,
    /// The context that it works on.
    pub(crate) context: &'c Context,
    /// The whole of stdin, if it was wanted.
    pub(crate) stdin: Option<&'c [u8]>,
    /// The output of an answer that streams.
    pub(crate) out: &'c mut Out<'o>,
}

/// The text of a finished command on stdout, and its exit status.
pub(crate) struct Done {
    /// The answer, or what is left of one that streamed.
    pub(crate) text: String,
    /// The exit status.
    pub(crate) code: u8,
    /// A sentence for stderr about what was written; empty: none.
    pub(crate) complaint: String,
}

impl Done {
    /// Returns the end of an answer with another exit status than [`DONE`].
    pub(crate) fn with_code(text: String, code: u8) -> Self {
        Self {
            code,
            ..Self::from(text)
        }
    }

    /// Returns the end of an answer that streamed, and that its reader must not take for what it seems.
    pub(crate) fn complaining(complaint: String, code: u8) -> Self {
        Self {
            text: String::new(),
            code,
            complaint,
        }
    }
}

impl From<String> for Done {
    fn from(text: String) -> Self {
        Self {
            text,
            code: DONE,
            complaint: String::new(),
        }
    }
}
