//! The context that both directions of a process's splice use.

use std::sync::atomic::AtomicBool;

use crate::fence::StoreFence;
use crate::recording::stream_digests::StreamDigests;
use crate::session::forward::agent::AgentForwarding;
use crate::session::process::files::Files;
use crate::store::Store;

/// The state that both directions of a splice use.
#[derive(Clone, Copy)]
pub(crate) struct SpliceContext<'a> {
    /// True if the device has accepted the session.
    pub started: &'a AtomicBool,
    /// The digests of what passes, if it is recorded.
    pub watched: Option<&'a StreamDigests>,
    /// The fence before what passes.
    pub fence: &'a StoreFence,
    /// The store, for what the device says of its account.
    pub store: &'a Store,
    /// The file operations.
    pub files: &'a Files<'a>,
    /// Serves the connections to its agent's socket.
    pub agent: Option<&'a AgentForwarding>,
}
