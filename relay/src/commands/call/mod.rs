//! The call of a command: the command itself, its caller, the context that it runs on, and the right that it needs.

pub(crate) mod caller;
pub(crate) mod change;
mod command;
pub(crate) mod confirm;
pub(crate) mod context;
pub(crate) mod input;
pub(crate) mod permit;

pub(crate) use command::{Call, Command, Done};
pub(crate) use permit::Right;
