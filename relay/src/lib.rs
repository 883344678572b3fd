//! The relay: it terminates the operator's SSH connection, decides what is allowed, and splices each
//! channel onto a stream to the device.
//!
//! `serve` is the composition root. `commands` is the one command tree behind both doors, the shell
//! and the console over ssh. Rules live in `access`, facts in `store`, keys in `state`.

pub mod access;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod fleet;
pub mod hex;
pub mod json;
pub mod limits;
mod log;
pub mod log_limit;
mod output;
pub mod recording;
pub mod serve;
pub mod session;
pub mod ssh;
pub mod state;
pub mod store;
pub mod tunnel;
pub mod watch;
