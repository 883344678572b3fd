//! Sessions as a relay sees them: real processes behind a real QUIC connection on loopback.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test fails the test; clippy knows this only of functions marked as tests"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures time")]
#![expect(
    clippy::disallowed_macros,
    reason = "a test writes for who runs it, and may end when that fails"
)]

mod accounts;
mod ending;
mod exec;
mod forward;
mod harness;
mod pressure;
mod recording;
mod terminal;
mod transfer;
