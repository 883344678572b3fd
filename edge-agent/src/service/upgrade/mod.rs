//! Replacing this program by a newer one, from afar, on a device without physical access.
//!
//! `edge-agent upgrade FILE` ([`command`]) checks the signature ([`signature`]) and tries the new program
//! ([`candidate`]) while the old one runs. Then the running agent puts it in its own place ([`swap`]) and becomes it,
//! by exec(2): the same process, so that nothing depends on what started it. The new program is on trial until it has
//! a tunnel ([`trial`]); what a start means meanwhile is decided in [`plan`].
//!
//! Who puts the old program back, if there is no tunnel in time:
//!
//! - the new program itself, if it runs ([`trial`]), or when it was started too often;
//! - the old one, which the device's init runs before each start, when the new one was started too often ([`watch`]);
//! - the old one, which was left running aside, if the new one does neither ([`watch`]).

mod candidate;
pub mod command;
mod disk;
mod plan;
pub mod self_test;
mod signature;
pub(crate) mod swap;
pub mod trial;
pub mod watch;
