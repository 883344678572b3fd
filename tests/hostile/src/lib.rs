//! A hostile device and a hostile operator: they speak the protocols of Holdfast correctly until a case has them lie.
//!
//! The tests use them from `tests/it`; a person runs them by `cargo run -p hostile`. Each misbehaviour has a name
//! and a sentence, and is played a number of times.
//!
//! # How to add a case
//!
//! 1. Write an `async fn` (or, of an operator, a plain `fn`) in the file of its family, `cases/FAMILY.rs`.
//!    `device.rs` has what a device does on its tunnel, `device/session.rs` what it does on the stream of one
//!    session, `device/tape.rs` how a recording is sealed and where it may lie, `operator/raw.rs` each packet of SSH.
//! 2. Add a line to the table `CASES` at the top of that file: the name, one sentence, the function.
//! 3. Use it in a test of `tests/it` by `hostile::device::play(..)` or `hostile::operator::play(..)`, and assert
//!    what the relay, its logs and other users show, not what the hostile end believes.
//!
//! A session case says by `Lie::Session { on, .. }` which sessions it lies in; all others are served honestly.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test tool: what fails in it fails the test that uses it"
)]

pub mod cases;
pub mod cli;
pub mod device;
pub mod operator;

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};

/// The outcome of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was sent, and the relay went on.
    Done(String),
    /// The relay refused it, or closed the stream or connection.
    Refused(String),
}

/// Refuses to attack what is not on this machine or a private network: this is a test tool.
///
/// # Errors
/// A sentence.
pub fn check_target(address: SocketAddr) -> Result<()> {
    let near = match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    };
    if !near {
        bail!(
            "{address} is not a loopback or private address: the hostile tools attack test relays only"
        );
    }
    Ok(())
}
