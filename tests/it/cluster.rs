//! Several relays on one PostgreSQL database and one bucket.

mod across;
mod members;
mod operators;
mod runs;
