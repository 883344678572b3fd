//! The relay's end of the tunnels. This is a front end: it translates, and holds no rule about who may do what.

pub(crate) mod clones;
pub(crate) mod control;
pub(crate) mod enroll;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod listen;
pub(crate) mod member;
pub(crate) mod peer;
pub(crate) mod registry;
pub(crate) mod reset;
pub(crate) mod socket;
pub(crate) mod tls;
pub(crate) mod uploads;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_protocol::identity::release::ReleaseKey;
use holdfast_protocol::identity::roster::SignedRoster;

use self::clones::Clones;
use self::registry::Registry;
use self::socket::NotedIds;
use self::uploads::UploadHandler;
use crate::audit::Audit;
use crate::store::{RelayId, Store};
use crate::sync::Mutex;

/// The service of tunnels: takes devices in, keeps their tunnels, and knows how each is reached.
#[derive(Debug)]
pub(crate) struct Tunnels {
    /// This run of the relay.
    pub(crate) relay: RelayId,
    /// The relay's store.
    pub(crate) store: Store,
    /// The audit log.
    pub(crate) audit: Audit,
    /// The tunnels that are open.
    pub(crate) registry: Registry,
    /// The connection ids that devices use.
    pub(crate) noted_ids: Arc<NotedIds>,
    /// Devices that are two machines.
    pub(crate) clones: Clones,
    /// The facts about the cluster for devices.
    pub(crate) cluster: ClusterFacts,
    /// Takes what devices upload.
    pub(crate) uploads: Arc<dyn UploadHandler>,
    /// True if no new tunnels are taken any more.
    pub(crate) stopping: AtomicBool,
}

/// The facts about the cluster that devices learn when they join and when they are welcomed.
#[derive(Debug)]
pub(crate) struct ClusterFacts {
    roster: Mutex<SignedRoster>,
    /// The key that devices pin when they enrol.
    pub(crate) release_key: Option<ReleaseKey>,
}

impl ClusterFacts {
    /// Returns what devices learn: the roster, and the key that they pin when they enrol.
    #[must_use]
    pub(crate) fn new(roster: SignedRoster, release_key: Option<ReleaseKey>) -> Self {
        Self {
            roster: Mutex::new(roster),
            release_key,
        }
    }

    /// Returns the roster that devices get.
    #[must_use]
    pub(crate) fn roster(&self) -> SignedRoster {
        self.roster.lock().clone()
    }
}

impl Tunnels {
    /// Stops taking new tunnels: a device that came back now would replace the very tunnel that its last sessions run
    /// on.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Returns whether no new tunnels are taken any more.
    #[must_use]
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}
