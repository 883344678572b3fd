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
use holdfast_protocol::limits::DRAIN_MINOR;
use holdfast_protocol::wire::{CloseCode, RelayMessage};

use self::clones::Clones;
use self::peer::drains::Drains;
use self::registry::{Registry, Tunnel};
use self::socket::NotedIds;
use self::uploads::UploadHandler;
use crate::audit::Audit;
use crate::fence::StoreFence;
use crate::state::{State, StateError};
use crate::store::{MemberId, RelayId, Store, StoreError};
use crate::sync::Mutex;

/// The service of tunnels: takes devices in, keeps their tunnels, and knows how each is reached.
#[derive(Debug)]
pub(crate) struct Tunnels {
    /// This run of the relay.
    pub(crate) relay: RelayId,
    /// The member of the cluster that this relay is.
    pub(crate) member: MemberId,
    /// The relay's store.
    pub(crate) store: Store,
    /// The fence before all that passes, which the loss of the store closes.
    pub(crate) fence: StoreFence,
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
    /// The relays that drain: this one takes no tunnels if it does.
    pub(crate) drains: Drains,
}

/// The facts about the cluster that devices learn when they join and when they are welcomed.
#[derive(Debug)]
pub(crate) struct ClusterFacts {
    roster: Mutex<SignedRoster>,
    /// The key that devices pin when they enrol.
    pub(crate) release_key: Option<ReleaseKey>,
    /// The state folder, for the keys that a relay that joins gets.
    state: Arc<State>,
    /// The reason why no other relay may join; `None`: they may.
    alone: Option<&'static str>,
}

impl ClusterFacts {
    /// Reads what devices learn: the roster, and the key that they pin when they enrol; and what a relay that joins gets,
    /// unless this one has to stay alone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn read(
        store: &Store,
        release_key: Option<ReleaseKey>,
        state: Arc<State>,
        alone: Option<&'static str>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            roster: Mutex::new(enroll::roster::present(&state, store).await?),
            release_key,
            state,
            alone,
        })
    }

    /// Returns the keys that all relays of the cluster have.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn shared_keys(&self) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        self.state.shared_keys()
    }

    /// Returns the reason why no other relay may join, if there is one.
    #[must_use]
    pub(crate) fn alone(&self) -> Option<&'static str> {
        self.alone
    }

    /// Returns whether `roster` is another one than before, which it replaces.
    fn set_roster(&self, roster: &SignedRoster) -> bool {
        let mut present = self.roster.lock();
        let is_new = *present != *roster;
        if is_new {
            *present = roster.clone();
        }
        is_new
    }

    /// Returns the roster that devices get.
    #[must_use]
    pub(crate) fn roster(&self) -> SignedRoster {
        self.roster.lock().clone()
    }
}

impl Tunnels {
    /// Reads the roster again, and gives a new one to all devices that have a tunnel. Those that are away get it with
    /// their next.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn renew_roster(&self) -> Result<(), StoreError> {
        let store = self.store.in_background();
        let roster = enroll::roster::present(&self.cluster.state, &store).await?;
        if self.cluster.set_roster(&roster) {
            for tunnel in self.registry.all() {
                tunnel.tell(RelayMessage::Roster(roster.clone()));
            }
        }
        Ok(())
    }

    /// Stops taking new tunnels: a device that came back now would replace the very tunnel that its last sessions run
    /// on.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Takes a tunnel away whose device has a newer one at another relay. Where this relay has sent the device away, the
    /// tunnel is kept for the sessions over it.
    pub(crate) fn replaced(&self, tunnel: &Arc<Tunnel>) {
        let sent_away = self.drains.is_own() || self.is_stopping();
        if sent_away && tunnel.minor >= DRAIN_MINOR {
            self.registry.keep(tunnel);
        } else {
            tunnel.close(
                CloseCode::Replaced,
                "replaced by a newer tunnel of this device at another relay",
            );
        }
    }

    /// Returns whether no new tunnels are taken any more.
    #[must_use]
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}
