//! Several relays on one PostgreSQL database and one bucket.

mod members;
mod runs;
