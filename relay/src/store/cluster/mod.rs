//! The relays that share a database: who they are, and which of their runs live.

pub(crate) mod drain;
pub(crate) mod members;
pub(crate) mod relays;
pub(crate) mod runs;
pub(crate) mod settings;
