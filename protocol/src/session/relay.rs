//! A session on the relay: what the device may say, and what it means for the operator's channel.

use core::net::SocketAddr;

use super::SessionViolation;
use crate::codec::frame::{DataStream, SessionMessage};
use crate::wire::{Exit, Incoming, SessionRefusal};

/// What a message of the device means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayEvent {
    /// The process runs.
    Accepted,
    /// There is no process; the session is over. That it can't be recorded any more may also end a session
    /// that was accepted.
    Refused(SessionRefusal),
    /// No more output comes.
    OutputEnded,
    /// The process has ended; the session is over.
    Exited(Exit),
    /// Where a forward has come to.
    Address(SocketAddr),
    /// A connection waits on a port.
    Incoming(Incoming),
}

/// Checks the order of what the device sends.
#[derive(Debug, Default)]
pub struct RelaySession {
    answered: bool,
    output_ended: bool,
    over: bool,
}

impl RelaySession {
    /// A message came from the device.
    ///
    /// # Errors
    /// [`SessionViolation`] if it has no place here; the session cannot go on.
    pub fn handle_message(
        &mut self,
        message: SessionMessage,
    ) -> Result<RelayEvent, SessionViolation> {
        if self.over {
            return Err(SessionViolation::AfterExit);
        }
        match message {
            // What a strict recording can't take any more ends a session that runs, in the same words.
            SessionMessage::Refused(why @ SessionRefusal::RecordingUnavailable(_)) => {
                self.answered = true;
                self.over = true;
                Ok(RelayEvent::Refused(why))
            }
            SessionMessage::Accepted | SessionMessage::Refused(_) if self.answered => {
                Err(SessionViolation::Answer)
            }
            SessionMessage::Accepted => {
                self.answered = true;
                Ok(RelayEvent::Accepted)
            }
            SessionMessage::Refused(why) => {
                self.answered = true;
                self.over = true;
                Ok(RelayEvent::Refused(why))
            }
            SessionMessage::Eof
            | SessionMessage::Exit(_)
            | SessionMessage::Address(_)
            | SessionMessage::Incoming(_)
                if !self.answered =>
            {
                Err(SessionViolation::Answer)
            }
            SessionMessage::Address(address) => Ok(RelayEvent::Address(address)),
            SessionMessage::Incoming(incoming) => Ok(RelayEvent::Incoming(incoming)),
            SessionMessage::Eof if self.output_ended => Err(SessionViolation::AfterEof),
            SessionMessage::Eof => {
                self.output_ended = true;
                Ok(RelayEvent::OutputEnded)
            }
            SessionMessage::Exit(exit) => {
                self.over = true;
                Ok(RelayEvent::Exited(exit))
            }
            SessionMessage::Open(_) | SessionMessage::Resize(_) | SessionMessage::Signal(_) => {
                Err(SessionViolation::Direction)
            }
        }
    }

    /// Data came from the device.
    ///
    /// # Errors
    /// [`SessionViolation`] if there may be no such data here.
    pub fn handle_data(&self, stream: DataStream) -> Result<(), SessionViolation> {
        match stream {
            DataStream::Stdin => Err(SessionViolation::Direction),
            _ if !self.answered => Err(SessionViolation::Answer),
            _ if self.over => Err(SessionViolation::AfterExit),
            _ if self.output_ended => Err(SessionViolation::AfterEof),
            _ => Ok(()),
        }
    }

    /// Whether the device has said its last word: an exit or a refusal.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_cannot_be_recorded_any_more_ends_with_the_reason() {
        let why = SessionRefusal::RecordingUnavailable(alloc::string::String::from("spool full"));
        let mut session = RelaySession::default();
        let accepted = session.handle_message(SessionMessage::Accepted);
        assert_eq!(accepted, Ok(RelayEvent::Accepted));
        let other = session.handle_message(SessionMessage::Refused(SessionRefusal::NoShell));
        assert_eq!(other, Err(SessionViolation::Answer));
        let refused = session.handle_message(SessionMessage::Refused(why.clone()));
        assert_eq!(refused, Ok(RelayEvent::Refused(why)));
        assert!(session.is_over());
    }

    #[test]
    fn a_device_that_keeps_the_order_is_understood() {
        let mut session = RelaySession::default();
        assert_eq!(
            session.handle_message(SessionMessage::Accepted),
            Ok(RelayEvent::Accepted)
        );
        assert_eq!(session.handle_data(DataStream::Stdout), Ok(()));
        assert_eq!(
            session.handle_message(SessionMessage::Eof),
            Ok(RelayEvent::OutputEnded)
        );
        let exit = Exit::Status(0);
        assert_eq!(
            session.handle_message(SessionMessage::Exit(exit)),
            Ok(RelayEvent::Exited(exit))
        );
        assert!(session.is_over());
    }

    #[test]
    fn a_device_that_breaks_the_order_is_not() {
        let mut session = RelaySession::default();
        assert_eq!(
            session.handle_data(DataStream::Stdout),
            Err(SessionViolation::Answer)
        );
        assert_eq!(
            session.handle_message(SessionMessage::Eof),
            Err(SessionViolation::Answer)
        );
        session.handle_message(SessionMessage::Accepted).unwrap();
        let twice = session.handle_message(SessionMessage::Accepted);
        assert_eq!(twice, Err(SessionViolation::Answer));
        assert_eq!(
            session.handle_data(DataStream::Stdin),
            Err(SessionViolation::Direction)
        );
        session.handle_message(SessionMessage::Eof).unwrap();
        assert_eq!(
            session.handle_data(DataStream::Stderr),
            Err(SessionViolation::AfterEof)
        );
        session
            .handle_message(SessionMessage::Exit(Exit::Status(1)))
            .unwrap();
        assert_eq!(
            session.handle_data(DataStream::Stdout),
            Err(SessionViolation::AfterExit)
        );
    }
}
