//! Sessions on a device, on both ways.

mod accounts;
mod environment;
mod hangup;
mod login;
mod losses;
mod sentences;
mod signals;
mod streams;
mod terminals;
