//! What a session on a device is, on both ways.

mod accounts;
mod environment;
mod hangup;
mod login;
mod losses;
mod sentences;
mod signals;
mod streams;
mod terminals;
