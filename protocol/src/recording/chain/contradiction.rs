//! The contradictions between a recording and what the relay knows of its session.

use thiserror::Error;

use crate::count::Count;

/// Describes how a recording contradicts what the relay knows of its session, beside the streams' data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Contradiction {
    /// Its start.
    #[error("its start has another {0} than the session had")]
    Start(Fact),
    /// Its start says whether it holds the streams' data, and the kind of the session says otherwise.
    #[error("it does not hold what a recording of such a session holds")]
    Holds,
    /// A record that has no place in a recording of such a session.
    #[error("it has a record that does not belong in a recording of such a session")]
    Record,
    /// Input is redacted that had to be recorded, or recorded that had to be redacted.
    #[error("its input is not redacted as the session's terms say")]
    Redaction,
    /// It has a gap, and the session's terms allow none.
    #[error("it has a gap, and the session's terms allow none")]
    Gap,
    /// The exit status is not the one that the relay passed on.
    #[error("its exit status is not the one that the relay passed on")]
    Exit,
    /// An end of input that the relay did not send.
    #[error("it has an end of input that was not sent")]
    Eof,
    /// A variable that the device says it refused, and that was not sent, or was set.
    #[error("it has a refused variable that was not sent, or that the session got")]
    Refused,
    /// A forward of a number that the relay did not give.
    #[error("it has a forward {0} that did not exist")]
    ForwardAdded(u32),
    /// A forward began or ended twice.
    #[error("forward {0} begins or ends twice in it")]
    ForwardRepeated(u32),
    /// A forward ended that did not begin.
    #[error("forward {0} ends in it without a beginning")]
    ForwardNotOpened(u32),
    /// A forward that began has no end.
    #[error("forward {0} has no end in it")]
    ForwardNotClosed(u32),
    /// A forward that stood is not in it.
    #[error("forward {0} is missing in it")]
    ForwardDropped(u32),
    /// A forward leads to or comes from another place than it did.
    #[error("forward {0} leads elsewhere in it than it did")]
    ForwardLeads(u32),
    /// More reached a forward's target than the relay passed on.
    #[error("forward {id} has {recorded} bytes sent in it; the relay passed on {passed}")]
    ForwardSent {
        /// Its number.
        id: u32,
        /// As it is recorded.
        recorded: u64,
        /// As the relay counted.
        passed: u64,
    },
    /// Another number of bytes came from a forward's target than the relay passed on.
    #[error("forward {id} has {recorded} bytes received in it; the relay passed on {passed}")]
    ForwardReceived {
        /// Its number.
        id: u32,
        /// As it is recorded.
        recorded: u64,
        /// As the relay counted.
        passed: u64,
    },
    /// The file operations are not those that the relay has seen answered.
    #[error(
        "its file operations differ from those that the relay has seen, from operation {from} on"
    )]
    FilesAltered {
        /// The number, from 1 on, of the first that is not known to be the same.
        from: u64,
    },
    /// A file operation, by its number from 1 on, that was not asked for.
    #[error("file operation {0} in it was not asked for")]
    FileAdded(u64),
    /// File operations that were done are not recorded.
    #[error("it has {}; the relay has seen more", Count(*.recorded, "file operation"))]
    FilesMissing {
        /// Those that are recorded.
        recorded: u64,
    },
    /// The content of a stream ends elsewhere than the session's terms say, or goes on behind that.
    #[error("the content of a stream does not end where the session's terms say")]
    Content,
}

/// The content of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fact {
    /// The operator.
    #[error("user")]
    User,
    /// The device.
    #[error("device")]
    Device,
    /// The account.
    #[error("login")]
    Login,
    /// The operator's address.
    #[error("client address")]
    Client,
    /// Shell, command, subsystem or forwards.
    #[error("kind")]
    Kind,
    /// The command line.
    #[error("command")]
    Command,
    /// The terminal.
    #[error("terminal")]
    Terminal,
    /// The environment.
    #[error("environment")]
    Environment,
    /// The terms of the recording.
    #[error("recording mode")]
    Mode,
}
