//! The agent's side of an upload: what is sent next, and when not.
//!
//! One segment is under way at a time, and of it no more bytes than the relay has room for in front of a
//! keystroke. A lost tunnel costs nothing: the relay says how far it has come.

mod inventory;
mod pace;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::medium::SegmentName;
use super::spool::Spool;
use crate::ids::SessionId;
use crate::limits::{
    INVENTORY_MINOR, MAX_INVENTORIES, MAX_UPLOAD_CHUNK, RELIST_DELAY, UPLOAD_IN_FLIGHT,
    UPLOAD_RETRY,
};
use crate::wire::{
    InventoryPart, OfferedSegment, SegmentBytes, SegmentHeld, SegmentLost, SegmentRefused,
    UploadAnswer, UploadMessage,
};
use inventory::Inventory;
use pace::UploadPace;
pub use pace::{UploadConfig, UploadPolicy};

/// The next action of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadAction {
    /// Send this on the upload stream.
    Send(UploadMessage),
    /// Read so many bytes of a segment, and report with [`Uploader::handle_read`].
    Read {
        /// The number of the segment.
        segment: SegmentName,
        /// From where.
        at: u64,
        /// The number.
        length: usize,
    },
}

/// The state machine of a tunnel's uploads; it outlives tunnels.
#[derive(Debug)]
pub struct Uploader {
    pace: UploadPace,
    connected: bool,
    present: Option<CurrentSegment>,
    /// The report that was sent and not noted yet.
    reported: Option<UploadMessage>,
    /// The list of what the device holds, until a relay has taken it.
    inventory: Option<Inventory>,
    /// True if there may be such a list.
    lists: bool,
    /// True if a tunnel has begun.
    was_tunnelled: bool,
    /// The time when the present tunnel began, if its own list is still to be made.
    relist: Option<Duration>,
    /// The lists that may still begin on this tunnel: a further one would end its stream.
    lists_left: u32,
    /// True if the relay takes such a list.
    takes_inventory: bool,
    /// The progress of the relay with the segments that are still being written.
    has: BTreeMap<SegmentName, u64>,
    /// Sessions whose next segment was refused for now, and when to offer it again.
    later: BTreeMap<SessionId, Duration>,
}

/// The segment that is under way.
#[derive(Debug)]
struct CurrentSegment {
    offer: OfferedSegment,
    /// The progress of the relay with it; unknown until it answers.
    held: Option<u64>,
    sent: u64,
    reading: bool,
}

impl Uploader {
    /// Creates it with nothing under way and no tunnel.
    #[must_use]
    pub fn new(config: UploadConfig) -> Self {
        Self {
            pace: UploadPace::new(config),
            connected: false,
            present: None,
            reported: None,
            inventory: None,
            lists: false,
            was_tunnelled: false,
            relist: None,
            lists_left: MAX_INVENTORIES,
            takes_inventory: false,
            has: BTreeMap::new(),
            later: BTreeMap::new(),
        }
    }

    /// Notes that the spool was taken over at `now`, and what is not in it is not on the device, for this reason: a
    /// relay is sent a list of what is there, then and some time after each later tunnel began.
    pub fn handle_recovered(&mut self, now: Duration, why: SegmentLost) {
        self.lists = true;
        self.inventory = Some(Inventory::new(now, why));
    }

    /// Notes that a tunnel has begun, before its streams. A session that was opened just before an earlier one was lost
    /// may have no recording here, and its relay may not know: a list says so.
    pub fn handle_tunnel(&mut self, now: Duration) {
        // Before the first one there was no session.
        let is_later = core::mem::replace(&mut self.was_tunnelled, true);
        self.relist = (is_later && self.lists).then_some(now);
        self.lists_left = MAX_INVENTORIES;
    }

    /// Notes that an upload stream is open, to a relay that speaks this minor version.
    pub fn handle_connected(&mut self, minor: u16) {
        self.connected = true;
        self.takes_inventory = minor >= INVENTORY_MINOR;
        self.forget();
    }

    /// Notes that the upload stream is lost.
    pub fn handle_lost(&mut self) {
        self.connected = false;
        self.forget();
    }

    /// Notes that data of an interactive session has passed.
    pub fn handle_interactive(&mut self, now: Duration) {
        self.pace.handle_interactive(now);
    }

    /// Requests an upload, whatever the policy: `manual` waits for it.
    pub fn handle_request(&mut self) {
        self.pace.handle_request();
    }

    /// Notes that the relay has answered.
    pub fn handle_answer(&mut self, now: Duration, answer: &UploadAnswer, spool: &mut Spool) {
        match answer {
            UploadAnswer::Noted(session) => {
                let ours = |report: &mut UploadMessage| report_session(report) == Some(*session);
                if let Some(report) = self.reported.take_if(ours) {
                    spool.handle_noted(&report);
                }
            }
            UploadAnswer::Listed(part) => {
                let is_taken = |inventory: &mut Inventory| inventory.handle_listed(*part);
                self.inventory.take_if(is_taken);
            }
            UploadAnswer::Have(held) => self.handle_have(held),
            UploadAnswer::Stored(held) => self.handle_stored(held, spool),
            UploadAnswer::Refused(refusal) => {
                let name = SegmentName {
                    session: refusal.session,
                    index: refusal.segment,
                };
                if refusal.why == SegmentRefused::Unavailable {
                    self.later.insert(refusal.session, now + UPLOAD_RETRY);
                }
                spool.handle_refused(name, refusal.why);
                self.finish(name);
            }
        }
    }

    /// Notes that bytes were read, or could not be.
    pub fn handle_read(
        &mut self,
        now: Duration,
        outcome: Result<Vec<u8>, SegmentLost>,
        spool: &mut Spool,
    ) -> Option<UploadMessage> {
        let present = self.present.as_mut().filter(|present| present.reading)?;
        present.reading = false;
        let lost = match outcome {
            // A file that is shorter than it was is damaged.
            Ok(bytes) if bytes.is_empty() => SegmentLost::Corrupt,
            Ok(bytes) => {
                let offset = present.sent;
                present.sent += bytes.len() as u64;
                self.pace.handle_sent(now, bytes.len() as u64);
                return Some(UploadMessage::Bytes(SegmentBytes { offset, bytes }));
            }
            Err(lost) => lost,
        };
        let name = present.name();
        spool.handle_unreadable(name, lost);
        self.finish(name);
        None
    }

    /// Returns the next action. `minute` is that of the day by the device's clock, if it can be trusted.
    pub fn poll_action(
        &mut self,
        now: Duration,
        minute: Option<u16>,
        spool: &Spool,
    ) -> Option<UploadAction> {
        if !self.connected {
            return None;
        }
        if self.reported.is_none()
            && let Some(report) = spool.reports().next()
        {
            self.reported = Some(report.clone());
            return Some(UploadAction::Send(report));
        }
        // Behind the reports: they say more of a recording.
        if self.reported.is_none()
            && let Some(part) = self.next_part(now, spool)
        {
            return Some(UploadAction::Send(UploadMessage::Inventory(part)));
        }
        if !self.pace.allows(now, minute) {
            return None;
        }
        match &mut self.present {
            Some(present) => present.next_read(),
            None => {
                let offer = self.next_offer(now, spool);
                if offer.is_none() && self.later.is_empty() {
                    self.pace.handle_all_sent();
                }
                offer.map(UploadAction::Send)
            }
        }
    }

    /// Returns when [`Self::poll_action`] may have something although nothing happened.
    #[must_use]
    pub fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        let later = self.later.values().min().copied();
        let pace = self.pace.timeout(now);
        [later, pace, self.list_timeout(now)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Returns when a list will be due, unless something else comes first: an answer asks for the next action, too.
    fn list_timeout(&self, now: Duration) -> Option<Duration> {
        let awaits = self.connected && self.takes_inventory && self.inventory.is_none();
        let due = self.relist.filter(|_| awaits)? + RELIST_DELAY;
        Some(due).filter(|due| *due > now)
    }

    fn next_part(&mut self, now: Duration, spool: &Spool) -> Option<InventoryPart> {
        if !self.takes_inventory {
            return None;
        }
        if self.inventory.is_none() {
            let is_due = |began: &mut Duration| now.saturating_sub(*began) >= RELIST_DELAY;
            let began = self.relist.take_if(is_due)?;
            self.inventory = Some(Inventory::new(began, SegmentLost::Missing));
        }
        let inventory = self.inventory.as_mut()?;
        if inventory.is_new() {
            self.lists_left = self.lists_left.checked_sub(1)?;
        }
        inventory.next(now, spool)
    }

    fn next_offer(&mut self, now: Duration, spool: &Spool) -> Option<UploadMessage> {
        self.later.retain(|_, at| now < *at);
        self.has.retain(|name, _| spool.is_recording(&name.session));
        let new = |offer: &OfferedSegment| {
            let name = SegmentName {
                session: offer.session,
                index: offer.segment,
            };
            let more = offer.closed || self.has.get(&name).is_none_or(|has| *has < offer.length);
            more && !self.later.contains_key(&offer.session)
        };
        let offer = spool.offers().find(new)?;
        self.present = Some(CurrentSegment {
            offer: offer.clone(),
            held: None,
            sent: 0,
            reading: false,
        });
        Some(UploadMessage::Offer(offer))
    }

    fn handle_have(&mut self, held: &SegmentHeld) {
        let Some(present) = self.present_of(held) else {
            return;
        };
        let offset = held.offset.min(present.offer.length);
        if present.held.is_none_or(|before| offset < before) {
            // The answer to the offer, or the relay lost something: it goes on from there.
            present.sent = offset;
        }
        present.held = Some(offset);
        let whole = offset == present.offer.length && !present.offer.closed;
        let name = present.name();
        if whole {
            self.has.insert(name, offset);
            self.finish(name);
        }
    }

    fn handle_stored(&mut self, held: &SegmentHeld, spool: &mut Spool) {
        let name = SegmentName {
            session: held.session,
            index: held.segment,
        };
        if !spool.handle_stored(held) && self.present_of(held).is_some() {
            // The relay stores what is not what is here: offering it again would change nothing.
            spool.handle_refused(name, SegmentRefused::Tampered);
        }
        self.finish(name);
    }

    fn present_of(&mut self, held: &SegmentHeld) -> Option<&mut CurrentSegment> {
        let same = |present: &&mut CurrentSegment| {
            present.offer.session == held.session && present.offer.segment == held.segment
        };
        self.present.as_mut().filter(same)
    }

    fn finish(&mut self, name: SegmentName) {
        if self
            .present
            .as_ref()
            .is_some_and(|present| present.name() == name)
        {
            self.present = None;
        }
    }

    /// Forgets what was said on a stream that is gone.
    fn forget(&mut self) {
        self.present = None;
        self.reported = None;
        if let Some(inventory) = &mut self.inventory {
            inventory.restart();
        }
        self.has.clear();
        self.later.clear();
    }
}

impl CurrentSegment {
    fn name(&self) -> SegmentName {
        SegmentName {
            session: self.offer.session,
            index: self.offer.segment,
        }
    }

    fn next_read(&mut self) -> Option<UploadAction> {
        let held = self.held?;
        let room = UPLOAD_IN_FLIGHT.saturating_sub(self.sent - held.min(self.sent));
        let rest = self.offer.length - self.sent.min(self.offer.length);
        let length = rest.min(room).min(MAX_UPLOAD_CHUNK as u64);
        if self.reading || length == 0 {
            return None;
        }
        self.reading = true;
        Some(UploadAction::Read {
            segment: self.name(),
            at: self.sent,
            // At most `MAX_UPLOAD_CHUNK`.
            length: usize::try_from(length).unwrap_or(MAX_UPLOAD_CHUNK),
        })
    }
}

fn report_session(report: &UploadMessage) -> Option<SessionId> {
    match report {
        UploadMessage::Finished(finished) => Some(finished.session),
        UploadMessage::Gone(gone) => Some(gone.session),
        UploadMessage::Offer(_) | UploadMessage::Bytes(_) | UploadMessage::Inventory(_) => None,
    }
}
