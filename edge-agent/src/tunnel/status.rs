//! The state of the tunnel: its driver writes it here, and what reports on the agent reads it.

use crate::os::clock;
use crate::os::sync::Mutex;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use event_listener::Event;
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::{DeviceId, DeviceName};
use holdfast_protocol::wire::Welcome;

use super::membership::Membership;

/// The state of the tunnel, shared by its driver and those that report on it.
#[derive(Debug)]
pub struct TunnelStatus {
    inner: Mutex<TunnelSnapshot>,
    /// Something has changed.
    changed: Event,
}

/// The state of the tunnel at one moment.
#[derive(Clone, Debug)]
pub struct TunnelSnapshot {
    /// The device's identifier.
    pub id: DeviceId,
    /// The device's name.
    pub name: DeviceName,
    /// True if there is a tunnel; without one, a relay is being tried.
    pub is_online: bool,
    /// The relay that the tunnel goes to, or that is tried now.
    pub relay: Option<String>,
    /// The tunnel's generation.
    pub generation: Option<u64>,
    /// The device's address as the relay sees it.
    pub observed_address: Option<String>,
    /// Since when the state has been what it is.
    pub since: Instant,
    /// The reason why the last attempt or tunnel failed.
    pub last_error: Option<String>,
}

impl TunnelSnapshot {
    /// Returns the state as one word.
    #[must_use]
    pub fn state(&self) -> &'static str {
        if self.is_online {
            "online"
        } else {
            "connecting"
        }
    }
}

impl TunnelStatus {
    /// Returns the state for an agent that has just started.
    #[must_use]
    pub fn new(membership: &Membership) -> Arc<Self> {
        let relays = &membership.roster().relays;
        Arc::new(Self {
            inner: Mutex::new(TunnelSnapshot {
                id: membership.id(),
                name: membership.name().clone(),
                is_online: false,
                relay: relays.first().map(|relay| relay.address.clone()),
                generation: None,
                observed_address: None,
                since: clock::instant(),
                last_error: None,
            }),
            changed: Event::new(),
        })
    }

    /// Notes that a relay is being tried.
    pub fn connecting(&self, relay: &str) {
        self.change(|status| {
            if !status.is_online {
                status.relay = Some(relay.to_owned());
            }
        });
    }

    /// Notes that there is a tunnel.
    pub fn connected(&self, relay: &str, name: &DeviceName, welcome: &Welcome) {
        self.change(|status| {
            *status = TunnelSnapshot {
                id: status.id,
                name: name.clone(),
                is_online: true,
                relay: Some(relay.to_owned()),
                generation: Some(welcome.generation.0),
                observed_address: Some(welcome.observed_address.to_string()),
                since: clock::instant(),
                last_error: None,
            };
        });
    }

    /// Notes that the device has another name.
    pub fn renamed(&self, name: &DeviceName) {
        self.change(|status| status.name = name.clone());
    }

    /// Notes that the tunnel is gone.
    pub fn disconnected(&self, why: &str) {
        self.change(|status| {
            status.since = clock::instant();
            status.is_online = false;
            status.generation = None;
            status.observed_address = None;
            status.last_error = Some(why.to_owned());
        });
    }

    /// Notes that an attempt failed.
    pub fn failed(&self, why: &str) {
        self.change(|status| status.last_error = Some(why.to_owned()));
    }

    /// Returns the state in a few words, on one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let status = self.lock();
        match &status.relay {
            Some(relay) => format!("{}, relay {}", status.state(), Escaped(relay)),
            None => status.state().to_owned(),
        }
    }

    /// Returns the state as it is now.
    #[must_use]
    pub fn snapshot(&self) -> TunnelSnapshot {
        self.lock().clone()
    }

    /// Resolves when there is a tunnel.
    pub async fn online(&self) {
        loop {
            let changed = self.changed.listen();
            if self.lock().is_online {
                return;
            }
            changed.await;
        }
    }

    /// Returns why the last attempt or tunnel failed.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.lock().last_error.clone()
    }

    fn change(&self, change: impl FnOnce(&mut TunnelSnapshot)) {
        change(&mut self.lock());
        self.changed.notify(usize::MAX);
    }

    fn lock(&self) -> MutexGuard<'_, TunnelSnapshot> {
        self.inner.lock()
    }
}
