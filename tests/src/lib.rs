//! Tests alone: `it` drives real processes with the real OpenSSH, `sim` drives the state machines of `protocol` under
//! virtual time.

pub mod postgres;
