//! How a command is called: what it is, by whom and on what it is run, and with which right.

pub(crate) mod caller;
pub(crate) mod change;
mod command;
pub(crate) mod confirm;
pub(crate) mod context;
pub(crate) mod input;
pub(crate) mod permit;

pub(crate) use command::{Call, Command, Done};
pub(crate) use permit::Right;
