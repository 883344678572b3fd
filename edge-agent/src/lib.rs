//! The device's side of Holdfast: one static program that keeps a tunnel open and serves sessions.
//!
//! Nothing here knows about SSH: the relay speaks it, and hands on what a session needs as frames on a
//! QUIC stream.

mod accounts;
pub mod cli;
mod clock;
pub mod doctor;
pub mod enroll;
mod environment;
mod folder;
mod forward;
pub mod identity;
pub mod install;
pub mod instance;
pub mod launch;
pub mod limits;
mod listen;
pub mod log;
pub mod membership;
pub mod notify;
pub mod output;
pub mod process;
mod pty;
pub mod recording;
mod refusal;
pub mod release;
pub mod runtime;
pub mod session;
pub mod sftp;
mod socket;
pub mod state;
pub mod status;
pub mod subsystem;
mod tls;
pub mod tunnel;
pub mod unix;
pub mod upgrade;
pub mod volatile;
