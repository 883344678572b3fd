//! A session with a process on the relay: the order of what the device sends.

use alloc::vec::Vec;

use super::course::{Course, Numbers, Reported};
use crate::codec::frame::{DataStream, SessionMessage};
use crate::ids::Login;
use crate::session::SessionViolation;
use crate::wire::{Exit, Incoming, SessionRefusal};

/// The meaning of a message of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessReport {
    /// The process runs.
    Accepted,
    /// There is no process; the session is over. That it can't be recorded any more may also end a session
    /// that was accepted.
    Refused(SessionRefusal),
    /// No more output comes.
    OutputEnded,
    /// The process has ended; the session is over.
    Exited(Exit),
    /// A connection waits at the socket of the operator's SSH agent.
    Incoming(Incoming),
    /// The other logins with the user id of the session's account.
    Names(Vec<Login>),
}

/// Checks the order of what the device sends of a process, and that nothing comes more often than it may.
#[derive(Debug, Default)]
pub struct RelayProcess {
    course: Course,
    /// True if it has a socket to the operator's SSH agent: then connections to it are announced.
    agent: bool,
    numbers: Numbers,
}

impl RelayProcess {
    /// Returns a session that has just been opened; `agent` says whether it has a socket to the operator's SSH agent.
    #[must_use]
    pub fn new(agent: bool) -> Self {
        Self {
            agent,
            ..Self::default()
        }
    }

    /// Notes that a message came from the device.
    ///
    /// # Errors
    /// [`SessionViolation`] if it has no place here; the session cannot go on.
    pub fn handle_message(
        &mut self,
        message: SessionMessage,
    ) -> Result<ProcessReport, SessionViolation> {
        Ok(match self.course.handle_message(message)? {
            Reported::Accepted => ProcessReport::Accepted,
            Reported::Refused(why) => ProcessReport::Refused(why),
            Reported::OutputEnded => ProcessReport::OutputEnded,
            Reported::Exited(exit) => ProcessReport::Exited(exit),
            Reported::Names(names) => ProcessReport::Names(names),
            Reported::Incoming(incoming) if self.agent => {
                self.numbers.take(incoming.number)?;
                ProcessReport::Incoming(incoming)
            }
            Reported::Incoming(_) | Reported::Address(_) => return Err(SessionViolation::Kind),
        })
    }

    /// Notes that data came from the device.
    ///
    /// # Errors
    /// [`SessionViolation`] if there may be no such data here.
    pub fn handle_data(&mut self, stream: DataStream) -> Result<(), SessionViolation> {
        self.course.handle_data(stream)
    }

    /// Returns whether the device has sent its final message: an exit or a refusal.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.course.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr, SocketAddr};

    const HOME: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

    fn accepted(agent: bool) -> RelayProcess {
        let mut session = RelayProcess::new(agent);
        session.handle_message(SessionMessage::Accepted).unwrap();
        session
    }

    #[test]
    fn session_that_becomes_unrecordable_ends_with_the_reason() {
        let why = SessionRefusal::RecordingUnavailable(alloc::string::String::from("spool full"));
        let mut session = RelayProcess::default();
        let accepted = session.handle_message(SessionMessage::Accepted);
        assert_eq!(accepted, Ok(ProcessReport::Accepted));
        let other = session.handle_message(SessionMessage::Refused(SessionRefusal::NoShell));
        assert_eq!(other, Err(SessionViolation::Answer));
        let refused = session.handle_message(SessionMessage::Refused(why.clone()));
        assert_eq!(refused, Ok(ProcessReport::Refused(why)));
        assert!(session.is_over());
    }

    #[test]
    fn a_device_that_keeps_the_order_is_understood() {
        let mut session = RelayProcess::default();
        assert_eq!(
            session.handle_message(SessionMessage::Accepted),
            Ok(ProcessReport::Accepted)
        );
        assert_eq!(session.handle_data(DataStream::Stdout), Ok(()));
        assert_eq!(
            session.handle_message(SessionMessage::Eof),
            Ok(ProcessReport::OutputEnded)
        );
        let exit = Exit::Status(0);
        assert_eq!(
            session.handle_message(SessionMessage::Exit(exit)),
            Ok(ProcessReport::Exited(exit))
        );
        assert!(session.is_over());
    }

    #[test]
    fn a_device_that_breaks_the_order_is_not() {
        let mut session = RelayProcess::default();
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

    #[test]
    fn names_of_the_account_come_once_and_before_the_answer() {
        let names = || SessionMessage::Names(alloc::vec![Login::new("root").unwrap()]);
        let mut session = RelayProcess::default();
        assert!(matches!(
            session.handle_message(names()),
            Ok(ProcessReport::Names(_))
        ));
        let again = session.handle_message(names());
        assert_eq!(again, Err(SessionViolation::Repeated));
        let late = accepted(false).handle_message(names());
        assert_eq!(late, Err(SessionViolation::Answer));
    }

    #[test]
    fn an_address_is_never_a_message_of_a_process() {
        let never = accepted(true).handle_message(SessionMessage::Address(HOME));
        assert_eq!(never, Err(SessionViolation::Kind));
    }

    #[test]
    fn connections_to_the_agent_socket_are_numbered() {
        let incoming = |number| SessionMessage::Incoming(Incoming { number, peer: HOME });
        let mut session = accepted(true);
        for number in [u32::MAX - 1, u32::MAX, 0, 1] {
            assert!(session.handle_message(incoming(number)).is_ok(), "{number}");
        }
        let again = session.handle_message(incoming(1));
        assert_eq!(again, Err(SessionViolation::Number));
        let never = accepted(false).handle_message(incoming(0));
        assert_eq!(never, Err(SessionViolation::Kind));
    }
}
