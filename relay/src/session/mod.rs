//! Sessions: how one is admitted, what it is while it lives, and how it ends.

pub mod admission;
pub mod forward;
pub(crate) mod input;
pub(crate) mod output;
pub(crate) mod process;
pub(crate) mod registry;
pub mod report;
pub mod sftp;
pub(crate) mod target;
