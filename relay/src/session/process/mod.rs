//! A session that runs a process on a device: its start, its splice and its end.
pub(crate) mod down;
pub(crate) mod ending;
pub(crate) mod older;
pub(crate) mod recorded;
pub(crate) mod splice;
pub(crate) mod start;
pub(crate) mod timeouts;
