//! Counts the channels of a client: those of its SSH connection, and those of the connections inside its jumps. A jump
//! and the first channel inside it count as one, because each is of no use without the other.

use std::sync::{Arc, MutexGuard};

use crate::session::limits::{MAX_CHANNELS, MAX_FORWARDS};
use crate::session::refusal::Refusal;
use crate::ssh::channels::Purpose;
use crate::sync::Mutex;

/// The channels of a client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Arc<Mutex<ChannelTally>>);

/// Channels by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ChannelTally {
    sessions: usize,
    forwards: usize,
}

/// The share of one connection in its client's tally, for as long as it lives.
#[derive(Debug)]
pub(crate) struct WindowShare {
    tally: Tally,
    /// True if it is inside a jump, whose own channel counts as its first one.
    is_inner: bool,
    own: ChannelTally,
}

impl ChannelTally {
    fn all(self) -> usize {
        self.sessions + self.forwards
    }

    /// Returns what these add to a tally.
    fn counted(self, is_inner: bool) -> Self {
        match self {
            counted if !is_inner => counted,
            Self {
                sessions: 0,
                forwards,
            } => Self {
                sessions: 0,
                forwards: forwards.saturating_sub(1),
            },
            Self { sessions, forwards } => Self {
                sessions: sessions - 1,
                forwards,
            },
        }
    }
}

impl Tally {
    /// Returns the share of a connection that has no channels yet.
    #[must_use]
    pub(crate) fn share(&self, is_inner: bool) -> WindowShare {
        WindowShare {
            tally: self.clone(),
            is_inner,
            own: ChannelTally::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ChannelTally> {
        self.0.lock()
    }
}

impl WindowShare {
    /// Notes how many channels the connection has.
    pub(crate) fn set(&mut self, sessions: usize, forwards: usize) {
        let tally = self.tally.clone();
        self.change(&mut tally.lock(), ChannelTally { sessions, forwards });
    }

    /// Takes a place for one more channel, and gives how many the client has besides. The place is given back by the
    /// next [`Self::set`] without it.
    ///
    /// # Errors
    /// A sentence: there are too many for any user.
    pub(crate) fn take(&mut self, purpose: Purpose) -> Result<u32, Refusal> {
        let tally = self.tally.clone();
        let mut all = tally.lock();
        let before = (*all, self.own);
        let others = all
            .all()
            .saturating_sub(usize::from(self.is_first_inside()));
        let mut own = self.own;
        match purpose {
            Purpose::Session => own.sessions += 1,
            Purpose::Forward => own.forwards += 1,
        }
        self.change(&mut all, own);
        let (of_kind, most, what) = match purpose {
            Purpose::Session => (all.sessions, MAX_CHANNELS, "channels"),
            Purpose::Forward => (all.forwards, MAX_FORWARDS, "forwards"),
        };
        match u32::try_from(others) {
            Ok(others) if of_kind <= most => Ok(others),
            _ => {
                (*all, self.own) = before;
                Err(Refusal::Channels { what, most })
            }
        }
    }

    /// Returns the number of channels the client has besides one that would be new here.
    #[must_use]
    pub(crate) fn others(&self) -> u32 {
        let others = self.tally.lock().all();
        let others = others.saturating_sub(usize::from(self.is_first_inside()));
        u32::try_from(others).unwrap_or(u32::MAX)
    }

    /// Returns whether the next channel is the one that the jump counts as.
    fn is_first_inside(&self) -> bool {
        self.is_inner && self.own.all() == 0
    }

    fn change(&mut self, all: &mut ChannelTally, own: ChannelTally) {
        let (before, after) = (self.own.counted(self.is_inner), own.counted(self.is_inner));
        all.sessions = (all.sessions + after.sessions).saturating_sub(before.sessions);
        all.forwards = (all.forwards + after.forwards).saturating_sub(before.forwards);
        self.own = own;
    }
}

impl Drop for WindowShare {
    fn drop(&mut self) {
        self.set(0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_and_its_first_channel_are_one() {
        let tally = Tally::default();
        let mut outer = tally.share(false);
        assert_eq!(outer.take(Purpose::Session).unwrap(), 0);
        let mut inner = tally.share(true);
        assert_eq!(inner.take(Purpose::Session).unwrap(), 0);
        assert_eq!(inner.take(Purpose::Forward).unwrap(), 1);
        let mut other = tally.share(true);
        assert_eq!(outer.take(Purpose::Session).unwrap(), 2);
        assert_eq!(other.take(Purpose::Forward).unwrap(), 2);
        assert_eq!(other.others(), 3);
        drop(inner);
        assert_eq!(other.others(), 2);
        other.set(0, 0);
        outer.set(0, 0);
        assert_eq!(tally.lock().all(), 0);
    }

    #[test]
    fn jumps_do_not_multiply_channels() {
        let tally = Tally::default();
        let mut outer = tally.share(false);
        let (mut inners, mut opened) = (Vec::new(), 0);
        while outer.take(Purpose::Session).is_ok() {
            let mut inner = tally.share(true);
            while inner.take(Purpose::Session).is_ok() {
                opened += 1;
            }
            inners.push(inner);
        }
        assert_eq!(opened, MAX_CHANNELS);
        // What was refused has left nothing behind.
        drop(inners);
        outer.set(0, 0);
        assert_eq!(*tally.lock(), ChannelTally::default());
    }
}
