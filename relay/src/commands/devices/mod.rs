//! Commands about devices: listing, joining, and work on many of them.
pub(crate) mod cp;
pub(crate) mod exec;
pub(crate) mod list;
pub(crate) mod ssh_config;
pub(crate) mod token;
pub(crate) mod wait;

use crate::commands::Failure;

/// Work on many devices, which runs as the user over SSH.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bulk<'a> {
    /// One command on each.
    Exec(&'a exec::Args),
    /// One file onto each.
    Cp(&'a cp::Args),
}

/// Returns the failure of work on many devices that was not asked for over SSH.
fn only_over_ssh() -> Failure {
    Failure::new("work on many devices is done over ssh")
}
