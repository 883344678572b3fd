//! The agent's own SFTP server: `edge-agent internal-sftp`, a process of the account that asked for files.
//!
//! One thread, one client, on stdin and stdout, and no state but what the client has open. Requests are
//! answered in their order; all that have come are answered before the client is waited for, with few writes.
//! [`holdfast_protocol::sftp`] knows the bytes and no files, [`root`] where paths lead, and the rest is the operations.

mod attributes;
mod content;
mod handles;
pub(crate) mod limits;
mod names;
mod people;
mod root;
mod serve;
mod status;
mod temporary;

use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::stdio::{stdin, stdout};
use thiserror::Error;

use crate::sftp::limits::MAX_SFTP_HANDLES;
use root::SftpTree;
use serve::FileServer;

pub use root::RootError;
pub use serve::ServeError;

/// The argument of the agent when it is to be the server.
pub const ARGUMENT: &str = "internal-sftp";

/// The reason why there is no service, or no more.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "documented at their types")]
pub enum SftpError {
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Serves the client on stdin and stdout until it ends. With `root` its paths begin and end in that folder;
/// with `read_only` it changes nothing.
///
/// # Errors
/// [`SftpError`].
pub fn run(root: Option<&Path>, read_only: bool) -> Result<(), SftpError> {
    // It may have been started by the number of a descriptor: people look for a name.
    let _ = rustix::thread::set_name(c"internal-sftp");
    let tree = match root {
        Some(root) => SftpTree::under(root)?,
        None => SftpTree::Whole,
    };
    allow_descriptors();
    match FileServer::new(tree, read_only).serve(stdin(), stdout()) {
        // The client went away while it was answered, as clients do.
        Err(ServeError::Lost(Errno::PIPE)) => Ok(()),
        other => Ok(other?),
    }
}

/// Raises the limit of descriptors: as many as a client may have handles, and some for the work. Where that is
/// forbidden, opens fail sooner.
fn allow_descriptors() {
    let wanted = MAX_SFTP_HANDLES as u64 + 32;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        let current = Some(maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    }
}
