//! Sessions: how one is admitted, what it is while it lives, and how it ends.

pub(crate) mod admission;
pub(crate) mod forward;
pub(crate) mod input;
pub(crate) mod output;
pub(crate) mod process;
pub(crate) mod registry;
pub(crate) mod report;
pub(crate) mod sftp;
pub(crate) mod target;
