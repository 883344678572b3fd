//! The links between the relays of a cluster, and the routes to devices by them.
//!
//! The relay of an operator dials the one that has the device's tunnel, on the port of the tunnels, and keeps the link.
//! It opens the streams on it, one for each session or forward; the other relay joins each to a stream of the tunnel and
//! is a pipe. All that is decided, recorded, counted and logged of a session is so where its operator is. A link is
//! dialled by the relay that needs it, so that two relays have up to two, each with the streams of its dialler: nothing
//! has to be agreed when both dial at once.

pub(crate) mod drains;
pub(crate) mod elsewhere;
pub(crate) mod limits;
pub(crate) mod link;
pub(crate) mod listen;
pub(crate) mod route;

mod message;
mod pipe;
mod stream;
mod transport;
mod tunnel;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::ids::{DeviceId, PublicKey};
use holdfast_protocol::limits::MAX_RELAYS;
use holdfast_protocol::wire::CloseCode;
use quinn::Endpoint;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::info;

use self::limits::{ROUTE_ATTEMPTS, ROUTE_PAUSE};
use self::link::{Dialled, Dialler, LinkError};
use self::listen::Accepted;
use self::route::DeviceRoute;
use crate::clock::Timestamp;
use crate::limits::STORE_TIMEOUT;
use crate::store::cluster::members::{Located, MemberState};
use crate::store::{ClonePair, StoreError};
use crate::sync::Mutex;
use crate::tunnel::Tunnels;
use crate::tunnel::tls::PeerTls;

/// The service of routes: knows by which relay each device is reached, and keeps the links between relays.
#[derive(Debug)]
pub(crate) struct Peers {
    tunnels: Arc<Tunnels>,
    dialler: Dialler,
    /// The links that were dialled here, by the key of the relay.
    dialled: Mutex<HashMap<PublicKey, Arc<Dialled>>>,
    /// The links that other relays have dialled.
    accepted: Accepted,
    pipes: PipeCounter,
}

/// The reason why no route was found.
#[derive(Debug)]
pub(crate) enum RouteError {
    /// The store cannot say where the device is.
    Store(StoreError),
    /// The store does not answer.
    StoreSilent,
    /// The relay that has the device's tunnel cannot be reached.
    Relay {
        /// The name of that relay.
        name: String,
        /// The reason.
        why: LinkError,
    },
}

impl From<StoreError> for RouteError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Counts the streams of other relays that are joined to a device's.
#[derive(Debug)]
struct PipeCounter(watch::Sender<usize>);

/// One of them, until it is dropped.
struct PipeCount<'a>(&'a PipeCounter);

impl Peers {
    /// Creates the service, which dials from the endpoint of the tunnels.
    #[must_use]
    pub(crate) fn new(tunnels: Arc<Tunnels>, endpoint: Endpoint, tls: PeerTls) -> Arc<Self> {
        Arc::new(Self {
            tunnels,
            dialler: Dialler { endpoint, tls },
            dialled: Mutex::default(),
            accepted: Accepted::default(),
            pipes: PipeCounter(watch::Sender::new(0)),
        })
    }

    /// Returns how a device is reached; `None` if it has no tunnel.
    ///
    /// # Errors
    /// [`RouteError`].
    pub(crate) async fn route(&self, device: DeviceId) -> Result<Option<DeviceRoute>, RouteError> {
        if let Some(tunnel) = self.tunnels.registry.get(device) {
            return Ok(Some(DeviceRoute::Local(tunnel)));
        }
        let store = &self.tunnels.store;
        if !store.is_shared() {
            return Ok(None);
        }
        let mut failed = None;
        // Again, because the device may have moved meanwhile, and a link that is dead is only noticed here.
        for attempt in 0..ROUTE_ATTEMPTS {
            if attempt > 0 {
                sleep(ROUTE_PAUSE).await;
            }
            let located = timeout(STORE_TIMEOUT, store.locate(device)).await;
            let Some(at) = located.map_err(|_| RouteError::StoreSilent)?? else {
                return Ok(None);
            };
            if at.run == self.tunnels.relay {
                // The store knows of a tunnel a moment before the registry does.
                match self.tunnels.registry.get(device) {
                    Some(tunnel) => return Ok(Some(DeviceRoute::Local(tunnel))),
                    None => continue,
                }
            }
            match self.reach(&at, device).await {
                Ok(Some(route)) => return Ok(Some(route)),
                Ok(None) => failed = None,
                Err(why) => {
                    let is_lost = matches!(why, LinkError::Lost(_) | LinkError::Silent);
                    let is_final = failed.is_some() || !is_lost;
                    failed = Some(RouteError::Relay { name: at.name, why });
                    if is_final {
                        break;
                    }
                }
            }
        }
        failed.map_or(Ok(None), Err)
    }

    async fn reach(
        &self,
        at: &Located,
        device: DeviceId,
    ) -> Result<Option<DeviceRoute>, LinkError> {
        let dialled = {
            let mut links = self.dialled.lock();
            // Those of relays that have left make room.
            if links.len() >= MAX_RELAYS && !links.contains_key(&at.tunnel_key) {
                links.retain(|_, dialled| dialled.is_linked());
            }
            links.entry(at.tunnel_key).or_default().clone()
        };
        let link = dialled.link(&self.dialler, at).await?;
        let tunnel = link.tunnel(device, at.generation).await?;
        Ok(tunnel.map(DeviceRoute::Peer))
    }

    /// Returns the addresses of the two machines that use a device's key, if there are two.
    #[must_use]
    pub(crate) fn clones(&self, device: DeviceId, route: &DeviceRoute) -> Option<ClonePair> {
        match route {
            DeviceRoute::Local(_) => self.tunnels.clones.pair(device),
            DeviceRoute::Peer(tunnel) => tunnel.clones(),
        }
    }

    /// Returns the name of the member with this key; `None` if there is none, or it has left.
    async fn member(&self, key: PublicKey) -> Result<Option<String>, StoreError> {
        let member = self.tunnels.store.member_by_key(&key).await?;
        let member = member.filter(|member| member.state != MemberState::Removed);
        Ok(member.map(|member| member.name))
    }

    /// Closes the links with relays that are no members any more. Costs nothing where there are no links.
    ///
    /// # Errors
    /// The store cannot say who is a member.
    pub(crate) async fn close_removed(&self) -> Result<(), StoreError> {
        if !self.has_links() {
            return Ok(());
        }
        let members = self.tunnels.store.in_background().members().await?;
        let is_member = |key: &PublicKey| {
            let of_key = members.iter().find(|member| member.tunnel_key == *key);
            of_key.is_some_and(|member| member.state != MemberState::Removed)
        };
        if self.close_but(is_member, CloseCode::NoMember, "no member of this cluster") {
            info!("the links with a relay that has left the cluster are closed");
        }
        Ok(())
    }

    /// Closes the links with relays that do not live, and what passes on them: a lock does not wait for them any more.
    /// Costs nothing where there are no links. Only a relay that may judge others does this.
    ///
    /// # Errors
    /// The store cannot say who lives.
    pub(crate) async fn close_dead(&self, now: Timestamp) -> Result<(), StoreError> {
        if !self.has_links() {
            return Ok(());
        }
        let store = self.tunnels.store.in_background();
        let living = store.living_members(now).await?;
        let lives = |key: &PublicKey| living.contains(key);
        if self.close_but(lives, CloseCode::Stopping, "declared dead") {
            info!("the links with a relay that was declared dead are closed");
        }
        Ok(())
    }

    fn has_links(&self) -> bool {
        !self.dialled.lock().is_empty() || !self.accepted.keys().is_empty()
    }

    /// Closes the links with all relays but some. Returns whether there were any.
    fn close_but(&self, keeps: impl Fn(&PublicKey) -> bool, code: CloseCode, why: &str) -> bool {
        let mut closes = false;
        self.dialled.lock().retain(|key, link| {
            if keeps(key) {
                return true;
            }
            closes |= link.is_linked();
            link.close(code, why);
            false
        });
        for key in self.accepted.keys() {
            if !keeps(&key) {
                closes = true;
                self.accepted.close(key, code, why);
            }
        }
        closes
    }

    /// Returns how many sessions and forwards of other relays' operators go over tunnels of this relay.
    #[must_use]
    pub(crate) fn passages(&self) -> usize {
        *self.pipes.0.borrow()
    }

    /// Waits for the sessions and forwards of other relays' operators to end, up to `grace`.
    pub(crate) async fn wait_idle(&self, grace: Duration) {
        let mut count = self.pipes.0.subscribe();
        let _ = timeout(grace, count.wait_for(|count| *count == 0)).await;
    }
}

impl PipeCounter {
    fn enter(&self) -> PipeCount<'_> {
        self.0.send_modify(|count| *count += 1);
        PipeCount(self)
    }
}

impl Drop for PipeCount<'_> {
    fn drop(&mut self) {
        self.0
            .0
            .send_modify(|count| *count = count.saturating_sub(1));
    }
}
