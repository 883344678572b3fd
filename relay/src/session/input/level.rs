//! The fill level of a channel's queue, and the window that its client may have by it.

use crate::session::limits::{SHARED_WINDOW, SSH_WINDOW, TRICKLE_WINDOW};

/// The fill level of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum QueueLevel {
    /// Nothing, or little.
    Low,
    /// The device falls behind.
    Filling,
    /// Its client gets a trickle.
    Loaded,
    /// Its neighbours' clients get one too.
    Full,
}

/// Returns how much window a channel's client may have at most, by its own queue's level and the highest of the others
/// on its connection.
#[must_use]
pub(crate) fn allowance(own: QueueLevel, others: QueueLevel) -> u32 {
    let own = match own {
        QueueLevel::Low => SSH_WINDOW,
        QueueLevel::Filling => SSH_WINDOW / 2,
        QueueLevel::Loaded | QueueLevel::Full => TRICKLE_WINDOW,
    };
    let beside = match others {
        QueueLevel::Low => SSH_WINDOW,
        QueueLevel::Filling => SSH_WINDOW / 2,
        QueueLevel::Loaded => SHARED_WINDOW,
        QueueLevel::Full => TRICKLE_WINDOW,
    };
    own.min(beside)
}
