//! The state machines of a tunnel: when to dial, whether it is alive, what its control stream says and when, and how
//! fast it sends.

pub mod backoff;
pub mod congestion;
pub mod control;
pub mod link;
