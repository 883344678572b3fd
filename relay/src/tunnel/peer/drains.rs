//! The relays of the cluster that drain, this one included, and the time at which each closes what is left.

use std::collections::HashMap;

use holdfast_protocol::ids::PublicKey;
use tokio::sync::watch;

use crate::clock::Timestamp;

type Deadlines = HashMap<PublicKey, Timestamp>;

/// The relays that drain, by the keys of their tunnels.
#[derive(Debug)]
pub(crate) struct Drains {
    own: PublicKey,
    deadlines: watch::Sender<Deadlines>,
}

/// Watches the drains that concern a session: that of its own relay, and that of the other relay that has its device.
#[derive(Clone, Debug)]
pub(crate) struct DrainWatch {
    own: PublicKey,
    other: Option<PublicKey>,
    deadlines: watch::Receiver<Deadlines>,
}

impl Drains {
    /// Returns those of a cluster in which no relay drains, as the relay with the key `own` sees them.
    #[must_use]
    pub(crate) fn new(own: PublicKey) -> Self {
        Self {
            own,
            deadlines: watch::Sender::default(),
        }
    }

    /// Notes which relays drain now.
    pub(crate) fn set(&self, deadlines: Deadlines) {
        self.deadlines.send_if_modified(|known| {
            let is_new = *known != deadlines;
            *known = deadlines;
            is_new
        });
    }

    /// Returns whether this relay drains.
    #[must_use]
    pub(crate) fn is_own(&self) -> bool {
        self.deadlines.borrow().contains_key(&self.own)
    }

    /// Returns what watches the drain of this relay, and of the one with the key `other`.
    #[must_use]
    pub(crate) fn watch(&self, other: Option<PublicKey>) -> DrainWatch {
        DrainWatch {
            own: self.own,
            other,
            deadlines: self.deadlines.subscribe(),
        }
    }
}

impl DrainWatch {
    /// Returns when the first of the relays closes what is left, if one drains, and takes note of it.
    pub(crate) fn deadline(&mut self) -> Option<Timestamp> {
        let deadlines = self.deadlines.borrow_and_update();
        let of = |key: &PublicKey| deadlines.get(key).copied();
        let other = self.other.as_ref().and_then(of);
        of(&self.own).into_iter().chain(other).min()
    }

    /// Resolves when a drain began, ended or got another deadline since [`Self::deadline`].
    pub(crate) async fn changed(&mut self) {
        if self.deadlines.changed().await.is_err() {
            // The relay is stopping, which ends what waits here.
            std::future::pending().await
        }
    }

    /// Resolves when one of the relays drains.
    pub(crate) async fn begun(&mut self) {
        while self.deadline().is_none() {
            self.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: PublicKey = PublicKey([1; 32]);
    const OTHER: PublicKey = PublicKey([2; 32]);

    #[test]
    fn first_deadline_of_the_relays_of_a_session_counts() {
        let drains = Drains::new(OWN);
        let (mut local, mut across) = (drains.watch(None), drains.watch(Some(OTHER)));
        assert_eq!((local.deadline(), across.deadline()), (None, None));
        drains.set(HashMap::from([(OTHER, Timestamp(7))]));
        assert_eq!(local.deadline(), None);
        assert_eq!(across.deadline(), Some(Timestamp(7)));
        assert!(!drains.is_own());
        drains.set(HashMap::from([(OTHER, Timestamp(7)), (OWN, Timestamp(9))]));
        assert_eq!(local.deadline(), Some(Timestamp(9)));
        assert_eq!(across.deadline(), Some(Timestamp(7)));
        assert!(drains.is_own());
    }
}
