//! The parts of the database that are about no table: the queue of writes, and the check of a database file.
pub(crate) mod check;
pub(crate) mod write_queue;
