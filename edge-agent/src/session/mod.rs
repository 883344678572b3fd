//! Sessions: one for each stream that the relay opens.
//!
//! The rules are in [`holdfast_protocol::session`]; here are their drivers, one for processes and one for forwards,
//! over one pump of the QUIC stream. Nothing here decides who may do what: the relay has, and [`crate::os::accounts`]
//! does.

mod agent_socket;
mod arrivals;
mod dial;
mod forward;
pub mod launch;
pub(crate) mod limits;
mod listen;
mod process;
mod pump;
mod registry;
mod serve;
pub mod subsystem;
pub mod unix;

pub use registry::{AgentSessions, SessionConfig};
