//! Forwards that are recorded in a shared log: room for the end of each is set aside when it begins.

use core::time::Duration;

use super::accept::OnSlowMedium;
use super::live::LiveRecording;
use super::{Accept, Spool};
use crate::ids::SessionId;
use crate::limits::MAX_CLOSED_RECORD;
use crate::recording::record::{Event, ForwardClosed, ForwardOpened};

impl Spool {
    /// Records that a forward begins, before anything passes on it. Room for its end is set aside.
    pub fn accept_opened(
        &mut self,
        now: Duration,
        session: SessionId,
        opened: ForwardOpened<'_>,
    ) -> Accept {
        let end = LiveRecording::cost(MAX_CLOSED_RECORD);
        let accept = self.accept_beside(
            now,
            session,
            Event::ForwardOpened(opened),
            end,
            OnSlowMedium::Wait,
        );
        if accept == Accept::Accepted
            && let Some(live) = self.live.get_mut(&session)
        {
            live.promise(end);
        }
        accept
    }

    /// Records the end of a forward. If its beginning was accepted, there is room, whatever else has come since.
    pub fn accept_closed(
        &mut self,
        now: Duration,
        session: SessionId,
        closed: ForwardClosed,
    ) -> Accept {
        let end = LiveRecording::cost(MAX_CLOSED_RECORD);
        let event = Event::ForwardClosed(closed);
        let promised = self
            .live
            .get_mut(&session)
            .is_some_and(|live| live.redeem(end));
        match promised {
            true => self.record(session, |live| live.record(now, event)),
            false => self.accept(now, session, event),
        }
    }
}
