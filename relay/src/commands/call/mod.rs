//! How a command is called: by whom, on what, with which right.
pub(crate) mod caller;
pub(crate) mod confirm;
pub(crate) mod input;
pub(crate) mod permit;
