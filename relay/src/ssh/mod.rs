//! The operators' face: it translates between russh's callbacks and the relay, and holds no rule.

pub(crate) mod algorithms;
pub(crate) mod channels;
pub(crate) mod connection;
pub(crate) mod console;
pub(crate) mod handler;
pub(crate) mod jump;
pub(crate) mod login;
pub(crate) mod server;
pub(crate) mod stream;
pub(crate) mod throttle;
