//! The operators' face: it translates between russh's callbacks and the relay, and holds no rule.

pub mod algorithms;
pub mod channels;
pub mod connection;
pub mod console;
pub mod handler;
pub mod jump;
pub mod login;
pub mod server;
pub mod stream;
pub mod throttle;
