//! The protocol of a Holdfast relay and its devices: bounds, names, messages, and the state machines of both ends.
//!
//! Nothing here knows about sockets, clocks, threads, random sources or an async runtime: every state
//! machine takes `(now, input)` and yields actions and the time of its next timeout, so that it runs
//! under virtual time in `tests/sim` and under a fuzzer. `now` is a [`core::time::Duration`] since any
//! fixed moment of the caller's choice; it must never go backwards.
#![no_std]
#![warn(unreachable_pub)]

extern crate alloc;

pub mod causes;
pub mod codec;
pub mod escape;
pub mod forward;
pub mod identity;
pub mod ids;
pub mod limits;
pub mod recording;
pub mod session;
pub mod sftp;
pub mod tunnel;
pub mod wire;
pub mod words;

pub use words::count;
