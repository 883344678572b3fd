//! The two databases that the store runs on, and all that differs between them.
//!
//! The statements of the store are written once ([`sql`]): `$1` for values, BIGINT, identifiers as bytes, times in
//! microseconds, `ON CONFLICT` and `RETURNING` are common ground. What is not, is here: how one connects, how writers are
//! ordered, how long one waits, and how a change is noticed.
#[macro_use]
mod macros;
pub(crate) mod check;
pub(crate) mod connection;
mod place;
pub(crate) mod postgres;
pub(crate) mod sql;
pub(crate) mod sqlite;
pub(crate) mod transfer;

/// The fact that binds a database to a cluster: its public key, in hexadecimal.
pub(crate) const BOUND_CLUSTER: &str = "cluster";
