//! The cores of `holdfast-protocol` under virtual time: hours in milliseconds, and every run repeatable.
//!
//! Each test runs many seeds. A failure prints its seed; `HOLDFAST_SEED=N` runs that one alone, and
//! `HOLDFAST_SEEDS=N` runs so many instead of the usual number, `HOLDFAST_SEEDS_TIMES=N` so many times as many.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test fails the test; clippy knows this only of functions marked as tests"
)]

mod congestion;
mod link;
mod random;
mod recording;
mod session;
