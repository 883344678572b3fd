//! Places for connections that have come to a device and whose channel is being opened: who announces one has none of
//! its own, so each takes a place before it costs anything, and the device is held back by its stream while there is
//! none.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::session::limits::{
    MAX_ARRIVALS_OF_CLIENT, MAX_ARRIVALS_OF_CONNECTION, MAX_ARRIVALS_OF_LISTENER,
};

/// The places of one SSH connection. What runs inside its jumps shares those of the client.
#[derive(Debug)]
pub(crate) struct Arrivals {
    own: Arc<Semaphore>,
    of_client: Arc<Semaphore>,
}

/// A place, until it is dropped: when bytes may pass, or nothing comes of it.
#[derive(Debug)]
pub(in crate::session) struct Arrival {
    _of_listener: Option<OwnedSemaphorePermit>,
    _own: OwnedSemaphorePermit,
    _of_client: OwnedSemaphorePermit,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            own: Arc::new(Semaphore::new(MAX_ARRIVALS_OF_CONNECTION)),
            of_client: Arc::new(Semaphore::new(MAX_ARRIVALS_OF_CLIENT)),
        }
    }
}

impl Arrivals {
    /// Returns the permits of a connection inside a jump.
    #[must_use]
    pub(crate) fn inside(&self) -> Self {
        Self {
            own: Arc::new(Semaphore::new(MAX_ARRIVALS_OF_CONNECTION)),
            of_client: self.of_client.clone(),
        }
    }

    /// Returns the places of one port or socket.
    pub(in crate::session) fn of_listener() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_ARRIVALS_OF_LISTENER))
    }

    /// Waits for a place of a listener. Always in this order, so that no two wait for each other.
    pub(in crate::session) async fn wait(&self, listener: &Arc<Semaphore>) -> Option<Arrival> {
        let of_listener = listener.clone().acquire_owned().await.ok()?;
        let own = self.own.clone().acquire_owned().await.ok()?;
        let of_client = self.of_client.clone().acquire_owned().await.ok()?;
        Some(Arrival {
            _of_listener: Some(of_listener),
            _own: own,
            _of_client: of_client,
        })
    }

    /// Returns a place for a connection to an agent socket, if there is one now.
    pub(in crate::session) fn try_take(&self) -> Option<Arrival> {
        Some(Arrival {
            _of_listener: None,
            _own: self.own.clone().try_acquire_owned().ok()?,
            _of_client: self.of_client.clone().try_acquire_owned().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn listener_pauses_at_capacity_and_resumes() {
        let arrivals = Arrivals::default();
        let listener = Arrivals::of_listener();
        let mut held = Vec::new();
        for _ in 0..MAX_ARRIVALS_OF_LISTENER {
            held.push(arrivals.wait(&listener).await.unwrap());
        }
        let waits = tokio::time::timeout(Duration::from_secs(60), arrivals.wait(&listener));
        assert!(waits.await.is_err());
        // Another listener has places of its own.
        assert!(arrivals.wait(&Arrivals::of_listener()).await.is_some());
        held.pop();
        assert!(arrivals.wait(&listener).await.is_some());
    }

    #[test]
    fn jumps_do_not_multiply_the_places_of_a_client() {
        let outer = Arrivals::default();
        let mut held = Vec::new();
        for _ in 0..2 * MAX_ARRIVALS_OF_CLIENT / MAX_ARRIVALS_OF_CONNECTION {
            let inner = outer.inside();
            held.extend(std::iter::from_fn(|| inner.try_take()));
        }
        assert_eq!(held.len(), MAX_ARRIVALS_OF_CLIENT);
    }
}
