//! The context that commands work on.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use holdfast_protocol::ids::ClusterFingerprint;

use super::change::{CommandRow, CommandTx};
use crate::audit::{Actor, Audit, Event};
use crate::clock::Timestamp;
use crate::identity::keys::line_of;
use crate::recording::archive::Archive;
use crate::session::registry::console::ConsoleStream;
use crate::state::State;
use crate::store::{MemberId, Store, StoreError};

/// The state that commands work on.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The store.
    pub(crate) store: Store,
    /// The public side of the relay's state.
    pub(crate) facts: RelayFacts,
    /// The time that the command is run at.
    pub(crate) now: Timestamp,
    /// The log of what was done.
    pub(crate) audit: Audit,
    /// The command's row in it, which its change writes.
    pub(crate) row: CommandRow,
    /// The caller, as the log names them.
    pub(crate) actor: Actor,
    /// The address of the caller; `None` for the relay's own shell.
    pub(crate) client: Option<SocketAddr>,
    /// The command in the live-session registry, if it streams to an operator.
    pub(crate) stream: Option<Arc<ConsoleStream>>,
    /// The number of columns of the caller's terminal; `None`: the answer goes elsewhere, and lines may be of any
    /// length.
    pub(crate) width: Option<usize>,
}

impl Context {
    /// Begins a change, which survives a power cut once it is committed. The first one of a command takes the command's
    /// audit row with it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(in crate::commands) async fn begin(&self) -> Result<CommandTx, StoreError> {
        CommandTx::begin(&self.store, &self.row).await
    }

    /// Returns the event with the caller and their address.
    pub(crate) fn event(&self, event: Event) -> Event {
        let event = event.user(self.actor.clone());
        match self.client {
            Some(client) => event.client(client),
            None => event,
        }
    }
}

/// The public side of the relay's state.
#[derive(Clone, Debug)]
pub(crate) struct RelayFacts {
    /// The member of the cluster that the relay is.
    pub(crate) member: MemberId,
    /// The fingerprint of the cluster, for tokens.
    pub(crate) cluster: ClusterFingerprint,
    /// The SSH host CA's public key, as in a `.pub` file.
    pub(crate) ssh_ca: String,
    /// The relay's own SSH host key, as in a `.pub` file.
    pub(crate) ssh_host: String,
    /// The one that follows it, while it is being replaced.
    pub(crate) ssh_host_next: Option<String>,
    /// The one before it, which is shown until the relay starts again.
    pub(crate) ssh_host_served: Option<String>,
    /// The state folder.
    pub(crate) folder: PathBuf,
    /// The recordings, and the keys that open them.
    pub(crate) archive: Archive,
}

impl RelayFacts {
    /// Takes them from the state.
    #[must_use]
    pub(crate) fn of(state: &State, archive: Archive) -> Self {
        let next = state.ssh_host_next.as_ref();
        Self {
            member: state.member,
            cluster: state.cluster_fingerprint(),
            ssh_ca: line_of(state.ssh_ca.public_key()),
            ssh_host: line_of(state.ssh_host.public_key()),
            ssh_host_served: state.ssh_host_served.as_ref().map(line_of),
            ssh_host_next: next.map(|key| line_of(key.public_key())),
            folder: state.dir.clone(),
            archive,
        }
    }
}
