//! Sessions: how one is admitted, what it is while it lives, and how it ends.
//!
//! An operator is a [`client::Client`] here, whichever front end they came by; what a session shows goes to an
//! [`output::Output`].

pub(crate) mod admission;
pub(crate) mod client;
pub(crate) mod ending;
pub(crate) mod forward;
pub(crate) mod input;
pub(crate) mod limits;
pub(crate) mod output;
pub(crate) mod process;
pub(crate) mod refusal;
pub(crate) mod registry;
pub(crate) mod report;
pub(crate) mod sftp;
pub(crate) mod stream;

use std::sync::Arc;

use self::client::Clients;
use self::client::lease::Leases;
use self::registry::Live;
use self::report::Report;
use crate::recording::Recordings;
use crate::store::{RelayId, Store};
use crate::tunnel::Tunnels;
use crate::tunnel::peer::Peers;

/// The service of sessions: admits clients, and decides on, starts, lists and ends what they ask for.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// This run of the relay.
    pub(crate) relay: RelayId,
    /// The relay's store.
    pub(crate) store: Store,
    /// The tunnels to the devices of this relay.
    pub(crate) tunnels: Arc<Tunnels>,
    /// The routes to devices, of this relay and of others.
    pub(crate) peers: Arc<Peers>,
    /// The recordings.
    pub(crate) recordings: Recordings,
    /// The clients that are connected.
    pub(crate) clients: Clients,
    /// The live-session registry.
    pub(crate) live: Arc<Live>,
    /// The slots of quotas that are in use here.
    pub(crate) leases: Arc<Leases>,
    /// The reporter of sessions' events.
    pub(crate) report: Report,
    /// The words before a console command, for texts that name one.
    pub(crate) console: String,
}
