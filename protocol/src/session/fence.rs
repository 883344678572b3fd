//! The fence of a relay that shares its store with others: whether bytes may pass on its sessions.
//!
//! A lock is in force when each relay has enforced it, or counts as dead because its heartbeats have ceased. So a relay
//! that cannot store heartbeats lets nothing pass before the others count it as dead. What it has missed meanwhile it
//! learns from the store, and bytes pass again only after it has enforced a policy that was read after a heartbeat was
//! stored again.
//!
//! A heartbeat counts from the moment before it was sent, because that is what the others read of it in the store, and
//! its answer may be late. `now` has to be of a clock that goes on while the process is stopped.

use core::time::Duration;

/// The times of a fence.
#[derive(Clone, Copy, Debug)]
pub struct FenceTimes {
    /// The time for which a heartbeat lets bytes pass: shorter than a relay without heartbeats counts as living.
    pub hold: Duration,
    /// The time after which a relay without its store gives up waiting for it.
    pub patience: Duration,
}

/// The fence of one run of a relay.
#[derive(Clone, Debug)]
pub struct Fence {
    times: FenceTimes,
    /// The moment before the newest heartbeat was sent that was stored.
    sent: Duration,
    lapse: Option<Lapse>,
    is_shut: bool,
}

/// The loss of the store, until the newest policy is enforced again.
#[derive(Clone, Copy, Debug)]
struct Lapse {
    /// The moment at which it was noticed.
    noticed: Duration,
    /// The moment from which what is read of the store is new enough, if heartbeats are stored again.
    back: Option<Duration>,
}

/// The state of a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceState {
    /// Bytes may pass.
    Open,
    /// Nothing passes until the store is back.
    Frozen {
        /// The time since the last heartbeat.
        silence: Duration,
    },
    /// The store has been away for so long that what waits for it is to end.
    GivenUp {
        /// The time since the last heartbeat.
        silence: Duration,
    },
}

impl Fence {
    /// Creates the fence of a run whose beginning is in the store, as of `sent`.
    #[must_use]
    pub const fn new(times: FenceTimes, sent: Duration) -> Self {
        Self {
            times,
            sent,
            lapse: None,
            is_shut: false,
        }
    }

    /// Returns the state at a moment. A loss of the store is noticed here at the latest.
    pub fn look(&mut self, now: Duration) -> FenceState {
        let silence = now.saturating_sub(self.sent);
        if silence >= self.times.hold {
            // What was read since the last heartbeat may be older than a lock that did not wait for this relay.
            let noticed = self.lapse.map_or(now, |lapse| lapse.noticed);
            self.lapse = Some(Lapse {
                noticed,
                back: None,
            });
        }
        match self.lapse {
            None => FenceState::Open,
            Some(lapse) if now.saturating_sub(lapse.noticed) >= self.times.patience => {
                FenceState::GivenUp { silence }
            }
            Some(_) => FenceState::Frozen { silence },
        }
    }

    /// Notes that a heartbeat that was sent behind the moment `sent` is stored, as is known at `now`.
    pub fn beat(&mut self, sent: Duration, now: Duration) -> FenceState {
        // By the heartbeats before: this one does not undo what its delay has let lapse.
        self.look(now);
        self.sent = self.sent.max(sent);
        if let Some(lapse) = &mut self.lapse {
            lapse.back.get_or_insert(now);
        }
        self.look(now)
    }

    /// Returns whether heartbeats are stored again, and the newest policy has to be enforced before bytes pass.
    #[must_use]
    pub fn awaits_enforcement(&self) -> bool {
        self.lapse.is_some_and(|lapse| lapse.back.is_some())
    }

    /// Notes that a policy is enforced that was read after the moment `began`.
    pub fn enforced(&mut self, began: Duration, now: Duration) -> FenceState {
        self.look(now);
        let is_new = |lapse: Lapse| lapse.back.is_some_and(|back| began >= back);
        if self.lapse.is_some_and(is_new) {
            self.lapse = None;
        }
        self.look(now)
    }

    /// Lets nothing pass any more: the run is over.
    pub fn shut(&mut self) {
        self.is_shut = true;
    }

    /// Returns the moment until which bytes may pass, if nothing else happens; zero: they may not.
    #[must_use]
    pub fn until(&self) -> Duration {
        match self.lapse.is_some() || self.is_shut {
            true => Duration::ZERO,
            false => self.sent.saturating_add(self.times.hold),
        }
    }

    /// Returns whether nothing passes any more, whatever comes.
    #[must_use]
    pub const fn is_shut(&self) -> bool {
        self.is_shut
    }
}

#[cfg(test)]
mod tests;
