//! The parts of the operating system that the agent uses: accounts, files, processes, clocks, output.

pub(crate) mod accounts;
pub(crate) mod clock;
pub(crate) mod environment;
pub(crate) mod folder;
pub(crate) mod limits;
pub(crate) mod log;
pub mod output;
pub mod process;
pub(crate) mod pty;
pub mod runtime;
pub mod state;
pub mod sync;
pub mod volatile;
