//! Several relays on one PostgreSQL database and one bucket.

mod across;
mod fence;
mod members;
mod operators;
mod runs;
