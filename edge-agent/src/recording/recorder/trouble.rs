//! The troubles of the spool: one that is contradicted by a later success is over, and a loss stays.

use std::mem::{Discriminant, discriminant};

use holdfast_protocol::recording::medium::SegmentName;
use holdfast_protocol::recording::spool::{Spool, SpoolWork};
use holdfast_protocol::wire::{
    SegmentHeld, SegmentLost, SegmentRefusal, SegmentRefused, UploadAnswer,
};

use crate::warn;

/// The troubles since the agent's start.
#[derive(Debug, Default)]
pub(in crate::recording) struct Troubles {
    /// A segment that the relay does not store now, until it does.
    waiting: Option<(SegmentName, String)>,
    /// A step that the medium refused, until it takes one of the same kind.
    medium: Option<(Discriminant<SpoolWork>, String)>,
    /// The last one that no success makes undone.
    lasting: Option<Trouble>,
}

/// A trouble in words.
#[derive(Clone, Debug)]
pub(in crate::recording) struct Trouble {
    pub(in crate::recording) text: String,
    /// True if nothing on the device mends it.
    pub(in crate::recording) is_relays: bool,
}

impl Troubles {
    /// Returns the one that matters most: one that goes on before one that was.
    pub(in crate::recording) fn last(&self) -> Option<Trouble> {
        let medium = self.medium.as_ref().map(|(_, text)| (text, false));
        let waiting = self.waiting.as_ref().map(|(_, text)| (text, true));
        let now = medium.or(waiting).map(|(text, is_relays)| Trouble {
            text: text.clone(),
            is_relays,
        });
        now.or_else(|| self.lasting.clone())
    }

    /// Notes one of the device that stays.
    pub(in crate::recording) fn note(&mut self, text: String) {
        self.lasting = Some(Trouble {
            text,
            is_relays: false,
        });
    }

    /// Notes that a segment can't be read any more.
    pub(super) fn handle_lost(&mut self, name: SegmentName, why: SegmentLost) {
        let text = format!("segment {name} is lost ({why:?})");
        warn!("{text}");
        self.note(text);
        self.waiting.take_if(|(waiting, _)| *waiting == name);
    }

    /// Notes that the medium refused or took a step.
    pub(super) fn handle_work(&mut self, work: &SpoolWork, refused: Option<String>) {
        let kind = discriminant(work);
        let Some(text) = refused else {
            self.medium.take_if(|(failed, _)| *failed == kind);
            return;
        };
        if self.medium.as_ref().is_none_or(|(_, last)| *last != text) {
            warn!("{text}");
        }
        self.medium = Some((kind, text));
    }

    /// Notes that the relay has answered, and the spool knows.
    pub(super) fn handle_answer(&mut self, answer: &UploadAnswer, spool: &Spool) {
        match answer {
            UploadAnswer::Refused(refusal) => self.handle_refused(refusal),
            UploadAnswer::Stored(held) => self.end_wait(held),
            // Of a segment that is still being written, the relay has all there is.
            UploadAnswer::Have(held) if has_all(held, spool) => self.end_wait(held),
            UploadAnswer::Have(_) | UploadAnswer::Noted(_) | UploadAnswer::Listed(_) => {}
        }
    }

    fn handle_refused(&mut self, refusal: &SegmentRefusal) {
        let why = match refusal.why {
            SegmentRefused::Unavailable => "cannot be stored by the relay now: it is offered again",
            SegmentRefused::Tampered => {
                "is not part of its recording, as the relay reports: set aside"
            }
            SegmentRefused::UnknownSession => {
                "is of a session that the relay does not know: it was set aside"
            }
        };
        let text = format!(
            "segment {} of session {} {why}",
            refusal.segment, refusal.session
        );
        let name = SegmentName {
            session: refusal.session,
            index: refusal.segment,
        };
        let is_new = self.last().is_none_or(|last| last.text != text);
        if is_new {
            warn!("{text}");
        }
        if refusal.why == SegmentRefused::Unavailable {
            self.waiting = Some((name, text));
        } else {
            self.waiting.take_if(|(waiting, _)| *waiting == name);
            self.lasting = Some(Trouble {
                text,
                is_relays: true,
            });
        }
    }

    /// Notes that a segment waits no longer.
    fn end_wait(&mut self, held: &SegmentHeld) {
        let name = SegmentName {
            session: held.session,
            index: held.segment,
        };
        self.waiting.take_if(|(waiting, _)| *waiting == name);
    }
}

fn has_all(held: &SegmentHeld, spool: &Spool) -> bool {
    let is_it = |name: (_, _)| name == (held.session, held.segment);
    let offer = spool
        .offers()
        .find(|offer| is_it((offer.session, offer.segment)));
    offer.is_some_and(|offer| held.offset >= offer.length)
}
