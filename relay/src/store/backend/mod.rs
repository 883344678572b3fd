//! The ground that the queries run on: the queue of writes, and the check of a database file.
pub(crate) mod check;
pub(crate) mod write_queue;
