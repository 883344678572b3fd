//! The relay: it terminates the operator's SSH connection, decides what is allowed, and splices each
//! channel onto a stream to the device.
//!
//! `serve` is the composition root. `commands` is the one command tree of the command line and of the console
//! over SSH. Rules live in `access`, facts in `store`, keys in `state`.

#![warn(unreachable_pub)]

mod access;
mod audit;
mod bulk;
mod clock;
mod commands;
mod config;
pub mod entry;
mod fence;
#[cfg(test)]
mod figures;
mod hex;
mod identity;
mod json;
mod limits;
mod log;
mod log_limit;
mod model;
mod output;
mod recording;
mod serve;
mod session;
mod ssh;
mod state;
mod store;
mod sync;
mod tunnel;
mod watch;
mod web;
