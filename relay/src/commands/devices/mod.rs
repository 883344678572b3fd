//! Commands about devices: listing, joining, and work on many of them.
pub(crate) mod cp;
pub(crate) mod exec;
pub(crate) mod list;
pub(crate) mod ssh_config;
pub(crate) mod token;
pub(crate) mod wait;
