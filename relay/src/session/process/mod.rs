//! A session that runs a process on a device: its start, its splice and its end.
pub(crate) mod context;
pub(crate) mod down;
pub(crate) mod files;
pub(crate) mod older;
pub(crate) mod programs;
pub(crate) mod splice;
pub(crate) mod start;
