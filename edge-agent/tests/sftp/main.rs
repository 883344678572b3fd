//! `edge-agent internal-sftp` as its clients see it: OpenSSH's `sftp`, and packets made by hand.
#![expect(
    clippy::unwrap_used,
    reason = "what fails in a test fails the test; clippy knows this only of functions marked as tests"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures time")]
#![expect(
    clippy::disallowed_macros,
    reason = "a test writes for who runs it, and may end when that fails"
)]

mod client;
mod compare;
mod flood;
mod peer;
mod root;

/// The agent that was built with this test.
const AGENT: &str = env!("CARGO_BIN_EXE_edge-agent");

/// The path of OpenSSH's server on Debian, for comparisons.
const OPENSSH: &str = "/usr/lib/openssh/sftp-server";
