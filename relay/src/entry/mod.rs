//! The two entries to the command tree: the command line, and the console over SSH.

pub mod cli;
pub(crate) mod console;
