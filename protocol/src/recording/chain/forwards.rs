//! Compares each forward in a recording of forwards with the relay's own row of it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::contradiction::Contradiction;
use super::lane::Unproved;
use crate::limits::MAX_FORWARDS_OF_RECORDING;
use crate::recording::record::{
    EndReason, Event, ForwardClosed, ForwardDirection, ForwardEnding, ForwardOpened, SSH_AGENT,
};

/// The relay's facts of the forwards in one recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenForwards {
    /// The count of numbers that were given to forwards, from 1 on; `None` if the relay was killed before it kept that.
    pub given: Option<u32>,
    /// Those that have ended, by their numbers. One that was under way when its relay was killed is missing.
    pub ended: BTreeMap<u32, SeenForward>,
}

/// The relay's facts of a forward that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenForward {
    /// The way that it went.
    pub direction: ForwardDirection,
    /// The place that the device was asked for; `None` of a connection that came to a port: the port may have more
    /// addresses than the relay knows.
    pub to: Option<String>,
    /// The peer of a connection that came to a port.
    pub from: Option<SocketAddr>,
    /// The address that was dialled or listened on, as the device said while the forward began.
    pub address: Option<SocketAddr>,
    /// Bytes that were passed on to the device.
    pub sent: u64,
    /// Bytes from the device that the operator took.
    pub received: u64,
    /// True if the device accepted it, after it had recorded its beginning.
    pub opened: bool,
    /// True if the device reported its end, behind all that came from its target.
    pub orderly: bool,
}

/// Compares each forward. What was sent and did not reach the target, the device alone knows: a target may close while
/// bytes are under way to it.
#[derive(Debug)]
pub(super) struct ForwardCheck<'s> {
    expected: Option<&'s SeenForwards>,
    /// True if the recording may have no gap.
    strict: bool,
    /// The forwards that the recording has, and whether they ended. At most [`MAX_FORWARDS_OF_RECORDING`].
    recorded: BTreeMap<u32, bool>,
    /// The first that ended without a beginning. The gap that the beginning is in may be recorded later than the end.
    not_opened: Option<u32>,
    /// True if records are missing.
    gaps: bool,
    end: Option<EndReason>,
    lack: Option<Unproved>,
}

impl<'s> ForwardCheck<'s> {
    pub(super) fn new(expected: Option<&'s SeenForwards>, strict: bool) -> Self {
        Self {
            expected,
            strict,
            recorded: BTreeMap::new(),
            not_opened: None,
            gaps: false,
            end: None,
            lack: None,
        }
    }

    /// Takes the next record of a recording of forwards.
    pub(super) fn handle(&mut self, event: &Event<'_>) -> Option<Contradiction> {
        let expected = self.expected?;
        match event {
            Event::ForwardOpened(opened) => self.opened(expected, opened),
            Event::ForwardClosed(closed) => self.closed(expected, closed),
            Event::Gap(gap) => {
                self.gaps |= gap.records > 0;
                None
            }
            Event::End(end) => {
                self.end = Some(end.why);
                None
            }
            _ => None,
        }
    }

    fn opened(
        &mut self,
        expected: &SeenForwards,
        opened: &ForwardOpened<'_>,
    ) -> Option<Contradiction> {
        let id = opened.id;
        if !expected.was_given(id) {
            return Some(Contradiction::ForwardAdded(id));
        }
        if self.recorded.insert(id, false).is_some() {
            return Some(match self.not_opened {
                Some(ended) if ended == id => Contradiction::ForwardNotOpened(id),
                _ => Contradiction::ForwardRepeated(id),
            });
        }
        let Some(seen) = expected.ended.get(&id) else {
            self.lacks(Unproved::NotKept);
            return None;
        };
        (!seen.leads_as(opened)).then_some(Contradiction::ForwardLeads(id))
    }

    fn closed(&mut self, expected: &SeenForwards, closed: &ForwardClosed) -> Option<Contradiction> {
        let id = closed.id;
        if !expected.was_given(id) {
            return Some(Contradiction::ForwardAdded(id));
        }
        match self.recorded.insert(id, true) {
            Some(false) => {}
            Some(true) => return Some(Contradiction::ForwardRepeated(id)),
            None => {
                self.not_opened.get_or_insert(id);
            }
        }
        let Some(seen) = expected.ended.get(&id) else {
            self.lacks(Unproved::NotKept);
            return None;
        };
        if closed.sent > seen.sent {
            let (recorded, passed) = (closed.sent, seen.sent);
            return Some(Contradiction::ForwardSent {
                id,
                recorded,
                passed,
            });
        }
        // All that the operator took, the device has read before.
        let is_less = closed.received < seen.received;
        if is_less && closed.why == ForwardEnding::StillOpen {
            self.lacks(Unproved::CutShort);
            return None;
        }
        let is_more = seen.orderly && closed.received > seen.received;
        (is_less || is_more).then_some(Contradiction::ForwardReceived {
            id,
            recorded: closed.received,
            passed: seen.received,
        })
    }

    /// Returns what contradicts, and what is not proved, once all records were taken. `whole` says that the recording
    /// is complete by itself.
    pub(super) fn finish(&self, whole: bool) -> (Option<Contradiction>, Option<Unproved>) {
        let Some(expected) = self.expected else {
            return (None, None);
        };
        if !whole {
            return (None, Some(Unproved::CutShort));
        }
        if self.gaps {
            return (None, Some(Unproved::Gaps));
        }
        if let Some(id) = self.not_opened {
            return (Some(Contradiction::ForwardNotOpened(id)), self.lack);
        }
        let left_open = self.recorded.iter().find(|(_, ended)| !**ended);
        if let Some((id, _)) = left_open {
            return (Some(Contradiction::ForwardNotClosed(*id)), self.lack);
        }
        let mut ended = expected.ended.iter();
        let dropped = ended.find(|(id, seen)| seen.opened && !self.recorded.contains_key(id));
        let unknown = (!expected.has_all()).then_some(Unproved::NotKept);
        let lack = self.lack.or(unknown);
        match dropped {
            // A recording that its device ended takes no more of them, where they need not be recorded.
            Some(_) if !self.strict && self.was_ended_by_device() => {
                (None, lack.or(Some(Unproved::CutShort)))
            }
            Some((id, _)) => (Some(Contradiction::ForwardDropped(*id)), lack),
            None => (None, lack),
        }
    }

    fn was_ended_by_device(&self) -> bool {
        matches!(
            self.end,
            Some(EndReason::AgentStopped | EndReason::SpoolFull)
        )
    }

    fn lacks(&mut self, lack: Unproved) {
        self.lack.get_or_insert(lack);
    }
}

impl SeenForwards {
    fn was_given(&self, id: u32) -> bool {
        let most = self.given.unwrap_or(MAX_FORWARDS_OF_RECORDING);
        (1..=most.min(MAX_FORWARDS_OF_RECORDING)).contains(&id)
    }

    /// Returns whether each forward that has a number is known. Of one that is not, nothing says whether the recording
    /// lacks it.
    fn has_all(&self) -> bool {
        let is_known = |id| self.ended.contains_key(&id);
        self.given.is_some_and(|given| (1..=given).all(is_known))
    }
}

impl SeenForward {
    /// Returns whether the recording has it lead where it led.
    fn leads_as(&self, opened: &ForwardOpened<'_>) -> bool {
        self.direction == opened.direction
            && self.to.as_deref().is_none_or(|to| to == opened.to)
            && self.comes_from(opened.from)
            && match self.address {
                Some(address) => opened.address == Some(address),
                // The relay may not have heard it of a port. A path has none.
                None => opened.address.is_none() || !self.leads_to_path(),
            }
    }

    /// Returns whether this is the peer that came. The text of an IPv6 address may have a scope, which the wire has
    /// not.
    fn comes_from(&self, text: &str) -> bool {
        let Some(from) = self.from else {
            // Who came to a port is known to the relay, if it came to one at all.
            return text.is_empty();
        };
        text.parse::<SocketAddr>()
            .is_ok_and(|peer| (peer.ip(), peer.port()) == (from.ip(), from.port()))
    }

    fn leads_to_path(&self) -> bool {
        let to = self.to.as_deref();
        to.is_some_and(|to| to.starts_with('/') || to == SSH_AGENT)
    }
}

#[cfg(test)]
mod tests;
