//! The relay: it terminates the operator's SSH connection, decides what is allowed, and splices each
//! channel onto a stream to the device.
//!
//! `serve` is the composition root. `commands` is the one command tree of the command line and of the console
//! over SSH. Rules live in `access`, facts in `store`, keys in `state`.

pub mod access;
pub mod audit;
pub(crate) mod bulk;
pub mod cli;
pub mod clock;
pub mod commands;
pub(crate) mod config;
pub(crate) mod hex;
pub(crate) mod identity;
pub(crate) mod json;
pub mod limits;
mod log;
pub(crate) mod log_limit;
pub(crate) mod model;
mod output;
pub(crate) mod recording;
pub(crate) mod serve;
pub(crate) mod session;
pub(crate) mod ssh;
pub mod state;
pub mod store;
pub(crate) mod tunnel;
pub(crate) mod watch;
