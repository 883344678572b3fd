//! The operators' face: it translates between russh's callbacks and the relay, and holds no rule.

pub mod algorithms;
pub mod attempts;
pub mod auth;
pub mod certificate;
pub mod channel;
pub mod channels;
pub mod connection;
pub mod console;
pub mod handler;
pub mod jump;
pub mod krl;
mod lines;
pub mod login;
pub mod outlet;
pub mod queue;
pub mod server;
pub mod stream;
pub mod tally;
pub mod target;
pub mod throttle;
