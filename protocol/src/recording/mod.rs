//! Recordings: what happened in a session, written where it happened, and checked by the relay.
//!
//! [`record`]s are packed into [`segment`]s of sealed blocks, which only the cluster's recording key opens
//! ([`seal`]). [`scan`] checks segments without that key, [`reader`] opens them. [`chain`] is the keyed
//! digest of a session's streams that both ends compute. `docs/recording.md` has every byte.

pub mod allowance;
pub mod chain;
mod digest;
pub mod ingest;
pub mod medium;
pub mod reader;
pub mod record;
pub mod scan;
pub mod seal;
pub mod segment;
pub mod spool;
pub mod upload;

mod pack;
