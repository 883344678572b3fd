//! End to end: real `relay` and `edge-agent` processes, and the real `ssh`, `scp`, `sftp` and `rsync`.
//!
//! Each test has a relay of its own, on a loopback address of its own, so that all of them run at once. With
//! HOLDFAST_IT_ACROSS=1 the tests that take a whole site have the device at one relay of a cluster, and the operators at
//! another.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a test fails the test; clippy knows this only of functions marked as tests"
)]

mod abuse;
mod agents;
mod audit;
mod balancer;
mod certificates;
mod clients;
mod clock;
mod clones;
mod cluster;
mod console;
mod control;
mod copies;
mod emulated;
mod enrolment;
mod fleet;
mod forward;
mod front;
mod harness;
mod health;
mod host_keys;
mod hostile;
mod jump;
mod listings;
mod migrate;
mod named;
mod nat;
mod policy;
mod postgres;
mod pressure;
mod recordings;
mod refusals;
mod reports;
mod service;
mod sessions;
mod sftp_constraints;
mod smoke;
mod state;
mod systemd;
mod tunnel;
mod unenrolled;
mod upgrade;
mod uploads;
mod volatile;
