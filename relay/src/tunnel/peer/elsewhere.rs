//! The devices that have their tunnels at other relays, for who waits for many of them.

use std::collections::HashSet;

use holdfast_protocol::ids::DeviceId;
use tokio::time::Instant;
use tracing::warn;

use super::Peers;
use crate::clock;
use crate::tunnel::peer::limits::ELSEWHERE_POLL;

/// The devices at other relays, as they were at the last look.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    devices: HashSet<DeviceId>,
    looked: Option<Instant>,
}

impl Elsewhere {
    /// Looks again, if the last look was some time ago. Where there is only one relay, there is nothing to look at.
    pub(crate) async fn look(&mut self, peers: &Peers) {
        let now = clock::instant();
        let store = &peers.tunnels.store;
        let is_due = self.looked.is_none_or(|last| now >= last + ELSEWHERE_POLL);
        if !is_due || !store.is_shared() {
            return;
        }
        self.looked = Some(now);
        match store
            .in_background()
            .tunnels_elsewhere(peers.tunnels.relay)
            .await
        {
            Ok(devices) => self.devices = devices,
            Err(error) => warn!(%error, "the store cannot say which devices other relays have"),
        }
    }

    /// Returns whether a device was at another relay at the last look.
    #[must_use]
    pub(crate) fn has(&self, device: DeviceId) -> bool {
        self.devices.contains(&device)
    }
}
