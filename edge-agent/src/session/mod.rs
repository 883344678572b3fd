//! Sessions: one for each stream that the relay opens.
//!
//! The rules stand in [`holdfast_protocol::session`]; here is the thin skin between them, a QUIC stream
//! and a process. Nothing here decides who may do what: the relay has, and [`crate::os::accounts`] does.

mod agent_socket;
mod arrivals;
mod dial;
mod driver;
mod gone;
mod inbound;
pub mod launch;
pub(crate) mod limits;
mod listen;
mod outbound;
mod registry;
pub mod subsystem;
pub mod unix;

pub use registry::{AgentSessions, SessionConfig};
