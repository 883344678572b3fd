//! The part of a device's messages that processes and forwards share: one answer, an end of the output, one final
//! message.

use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::codec::frame::{DataStream, SessionMessage};
use crate::ids::Login;
use crate::session::SessionViolation;
use crate::wire::{Exit, Incoming, SessionRefusal};

/// A message of the device in its order. Those that not every kind of session has are still to be judged.
#[derive(Debug)]
pub(super) enum Reported {
    Accepted,
    Refused(SessionRefusal),
    OutputEnded,
    Exited(Exit),
    Names(Vec<Login>),
    Address(SocketAddr),
    Incoming(Incoming),
}

/// The order of the messages that every session has.
#[derive(Debug, Default)]
pub(super) struct Course {
    answered: bool,
    /// True if the other names of its account have come.
    named: bool,
    output_ended: bool,
    over: bool,
}

impl Course {
    /// Notes that a message came from the device.
    pub(super) fn handle_message(
        &mut self,
        message: SessionMessage,
    ) -> Result<Reported, SessionViolation> {
        if self.over {
            return Err(SessionViolation::AfterExit);
        }
        match message {
            // What a strict recording can't take any more ends a session that runs, in the same words.
            SessionMessage::Refused(why @ SessionRefusal::RecordingUnavailable(_)) => {
                self.answered = true;
                self.over = true;
                Ok(Reported::Refused(why))
            }
            SessionMessage::Accepted | SessionMessage::Refused(_) if self.answered => {
                Err(SessionViolation::Answer)
            }
            SessionMessage::Accepted => {
                self.answered = true;
                Ok(Reported::Accepted)
            }
            SessionMessage::Refused(why) => {
                self.answered = true;
                self.over = true;
                Ok(Reported::Refused(why))
            }
            SessionMessage::Eof
            | SessionMessage::Exit(_)
            | SessionMessage::Address(_)
            | SessionMessage::Incoming(_)
                if !self.answered =>
            {
                Err(SessionViolation::Answer)
            }
            SessionMessage::Names(names) => self.names(names),
            SessionMessage::Address(address) => Ok(Reported::Address(address)),
            SessionMessage::Incoming(incoming) => Ok(Reported::Incoming(incoming)),
            SessionMessage::Eof if self.output_ended => Err(SessionViolation::AfterEof),
            SessionMessage::Eof => {
                self.output_ended = true;
                Ok(Reported::OutputEnded)
            }
            SessionMessage::Exit(exit) => {
                self.over = true;
                Ok(Reported::Exited(exit))
            }
            SessionMessage::Open(_)
            | SessionMessage::Resize(_)
            | SessionMessage::Signal(_)
            | SessionMessage::CloseStdout => Err(SessionViolation::Direction),
        }
    }

    /// Notes that data came from the device.
    pub(super) fn handle_data(&self, stream: DataStream) -> Result<(), SessionViolation> {
        match stream {
            DataStream::Stdin => Err(SessionViolation::Direction),
            _ if !self.answered => Err(SessionViolation::Answer),
            _ if self.over => Err(SessionViolation::AfterExit),
            _ if self.output_ended => Err(SessionViolation::AfterEof),
            DataStream::Stdout | DataStream::Stderr => Ok(()),
        }
    }

    /// Takes the other names of the account: once, before the answer, so that all that follows is judged by them.
    fn names(&mut self, names: Vec<Login>) -> Result<Reported, SessionViolation> {
        if self.answered {
            return Err(SessionViolation::Answer);
        }
        if self.named {
            return Err(SessionViolation::Repeated);
        }
        self.named = true;
        Ok(Reported::Names(names))
    }

    /// Returns whether the output has ended.
    pub(super) fn output_ended(&self) -> bool {
        self.output_ended
    }

    /// Returns whether the final message has come.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }
}

/// The numbers of announced connections: each follows the one before, so that none comes twice.
#[derive(Debug, Default)]
pub(super) struct Numbers(Option<u32>);

impl Numbers {
    /// Takes the number of the next connection.
    pub(super) fn take(&mut self, number: u32) -> Result<(), SessionViolation> {
        let follows = |before: u32| before.wrapping_add(1) == number;
        if self.0.is_some_and(|before| !follows(before)) {
            return Err(SessionViolation::Number);
        }
        self.0 = Some(number);
        Ok(())
    }
}
