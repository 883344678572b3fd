//! The SSH connections that are open, and what each source costs.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::stream::Guard;
use super::throttle::{Throttle, ThrottleRefusal};
use crate::clock;
use crate::model::source::Source;
use crate::session::client::ClientId;
use crate::ssh::limits::MAX_LINGERING_REFUSALS;
use crate::sync::Mutex;

/// The SSH connections of this relay that are open, and what each source costs.
#[derive(Debug)]
pub(crate) struct Connections {
    open: Mutex<BTreeMap<ClientId, (Source, Guard)>>,
    throttle: Mutex<Throttle>,
    /// Permits for refused connections whose clients still read why.
    pub(super) lingering: Arc<Semaphore>,
    began: Instant,
}

impl Connections {
    /// Creates an empty list. Sources in `exempt` never get a penalty.
    #[must_use]
    pub(crate) fn new(exempt: Vec<IpNet>) -> Self {
        Self {
            open: Mutex::default(),
            throttle: Mutex::new(Throttle::new(exempt)),
            lingering: Arc::new(Semaphore::new(MAX_LINGERING_REFUSALS)),
            began: clock::instant(),
        }
    }

    /// Takes a connection into the books, for which the oldest of the same source that has not logged in may have to
    /// go.
    pub(super) fn admit(&self, source: Source) -> Result<(), ThrottleRefusal> {
        let now = self.now();
        let admitted = self.throttle().admit(source, now);
        if admitted != Err(ThrottleRefusal::TooManyUnauthenticated) {
            return admitted;
        }
        let open = self.lock();
        // Identifiers grow, so the oldest comes first.
        let oldest = open.values().find(|(other, guard)| {
            *other == source && !guard.is_cut() && !guard.is_authenticated()
        });
        let Some((_, oldest)) = oldest else {
            return admitted;
        };
        if !self.throttle().admit_instead(source, now) {
            return admitted;
        }
        oldest.cut();
        Ok(())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<ClientId, (Source, Guard)>> {
        self.open.lock()
    }

    pub(super) fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock()
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Notes that a source was authenticated.
    pub(super) fn authenticated(&self, source: Source) {
        let now = self.now();
        self.throttle().authenticated(source, now);
    }
}
