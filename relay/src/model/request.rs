//! What an operator asks to run on a device. A forward runs nothing and is asked for in other ways, so it is no part of
//! this.

use holdfast_protocol::wire::Work;

/// The work that a session is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProcessRequest {
    /// The account's login shell.
    Shell,
    /// A command line for that shell, as bytes from outside.
    Exec(Vec<u8>),
    /// A subsystem by its name.
    Subsystem(String),
}

impl From<ProcessRequest> for Work {
    fn from(request: ProcessRequest) -> Self {
        match request {
            ProcessRequest::Shell => Self::Shell,
            ProcessRequest::Exec(line) => Self::Exec(line),
            ProcessRequest::Subsystem(name) => Self::Subsystem(name),
        }
    }
}
