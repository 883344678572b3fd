//! A session on the relay: what the device may say, and what it means for the operator's channel.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::SessionViolation;
use crate::codec::frame::{DataStream, SessionMessage};
use crate::ids::Login;
use crate::wire::{Exit, Incoming, Open, SessionRefusal, Work};

/// The meaning of a message of the device.
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
    /// The address that a forward has reached.
    Address(SocketAddr),
    /// A connection waits on a port.
    Incoming(Incoming),
    /// The other logins with the user id of the session's account.
    Names(Vec<Login>),
}

/// The kind of a session's stream, by what its `Open` asked for. It says which messages may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// A process.
    Process {
        /// True if it has a socket to the operator's SSH agent: then connections to it are announced.
        agent: bool,
    },
    /// One connection.
    Connection {
        /// True if the device says where it leads: that of a Unix socket does not.
        address: bool,
    },
    /// A port or socket on which the device listens: no data, and an announcement of each connection.
    Listener {
        /// True if the device says where it listens.
        address: bool,
    },
    /// The recording of forwards: nothing but its beginning and end.
    Recording,
}

impl Carries {
    /// Returns what `open` asks for. A `Take` may be of a port or of a Unix socket, which its `Open` does not say:
    /// this takes it for one of a port.
    #[must_use]
    pub fn of(open: &Open) -> Self {
        match open.work {
            Work::Shell | Work::Exec(_) | Work::Subsystem(_) => Self::Process {
                agent: open.terms.agent,
            },
            Work::Connect(_) | Work::Take(_) => Self::Connection { address: true },
            Work::ConnectPath(_) => Self::Connection { address: false },
            Work::Listen(_) => Self::Listener { address: true },
            Work::ListenPath(_) => Self::Listener { address: false },
            Work::Forwards => Self::Recording,
        }
    }
}

/// Checks the order of what the device sends, and that nothing comes more often than it may.
#[derive(Debug)]
pub struct RelaySession {
    carries: Carries,
    answered: bool,
    /// True if the other names of its account have come.
    named: bool,
    /// True if its address has come.
    addressed: bool,
    /// True if data or an announcement has come: no address follows them.
    began: bool,
    /// The number of the last connection that was announced.
    number: Option<u32>,
    output_ended: bool,
    over: bool,
}

impl Default for RelaySession {
    /// Returns a session of a process without an agent socket.
    fn default() -> Self {
        Self::new(Carries::Process { agent: false })
    }
}

impl RelaySession {
    /// Returns a session that has just been opened.
    #[must_use]
    pub fn new(carries: Carries) -> Self {
        Self {
            carries,
            answered: false,
            named: false,
            addressed: false,
            began: false,
            number: None,
            output_ended: false,
            over: false,
        }
    }

    /// Notes that a message came from the device.
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
            SessionMessage::Names(names) => self.names(names),
            SessionMessage::Address(address) => self.address(address),
            SessionMessage::Incoming(incoming) => self.incoming(incoming),
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

    /// Notes that data came from the device.
    ///
    /// # Errors
    /// [`SessionViolation`] if there may be no such data here.
    pub fn handle_data(&mut self, stream: DataStream) -> Result<(), SessionViolation> {
        match (stream, self.carries) {
            (DataStream::Stdin, _) => Err(SessionViolation::Direction),
            _ if !self.answered => Err(SessionViolation::Answer),
            _ if self.over => Err(SessionViolation::AfterExit),
            _ if self.output_ended => Err(SessionViolation::AfterEof),
            (_, Carries::Listener { .. } | Carries::Recording)
            | (DataStream::Stderr, Carries::Connection { .. }) => Err(SessionViolation::Kind),
            _ => {
                self.began = true;
                Ok(())
            }
        }
    }

    /// Takes the other names of the account: once, before the answer, so that all that follows is judged by them.
    fn names(&mut self, names: Vec<Login>) -> Result<RelayEvent, SessionViolation> {
        if matches!(self.carries, Carries::Recording) {
            return Err(SessionViolation::Kind);
        }
        if self.answered {
            return Err(SessionViolation::Answer);
        }
        if self.named {
            return Err(SessionViolation::Repeated);
        }
        self.named = true;
        Ok(RelayEvent::Names(names))
    }

    /// Returns where a connection leads or a port listens: once, before anything else.
    fn address(&mut self, address: SocketAddr) -> Result<RelayEvent, SessionViolation> {
        match self.carries {
            Carries::Connection { address: true } | Carries::Listener { address: true } => {}
            _ => return Err(SessionViolation::Kind),
        }
        if self.addressed || self.began || self.output_ended {
            return Err(SessionViolation::Repeated);
        }
        self.addressed = true;
        Ok(RelayEvent::Address(address))
    }

    /// Returns a connection that waits on the device: each has the number behind the one before, so that none comes
    /// twice.
    fn incoming(&mut self, incoming: Incoming) -> Result<RelayEvent, SessionViolation> {
        match self.carries {
            Carries::Process { agent: true } | Carries::Listener { address: false } => {}
            Carries::Listener { address: true } if self.addressed => {}
            Carries::Listener { address: true } => return Err(SessionViolation::Answer),
            _ => return Err(SessionViolation::Kind),
        }
        let follows = |before: u32| before.wrapping_add(1) == incoming.number;
        if self.number.is_some_and(|before| !follows(before)) {
            return Err(SessionViolation::Number);
        }
        self.number = Some(incoming.number);
        self.began = true;
        Ok(RelayEvent::Incoming(incoming))
    }

    /// Returns whether the device has sent its final message: an exit or a refusal.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_that_becomes_unrecordable_ends_with_the_reason() {
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

    const HOME: SocketAddr =
        SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::LOCALHOST), 1);

    #[test]
    fn names_of_the_account_come_once_and_before_the_answer() {
        let names = || SessionMessage::Names(alloc::vec![Login::new("root").unwrap()]);
        let mut session = RelaySession::default();
        assert!(matches!(
            session.handle_message(names()),
            Ok(RelayEvent::Names(_))
        ));
        let again = session.handle_message(names());
        assert_eq!(again, Err(SessionViolation::Repeated));
        let late = accepted(Carries::Process { agent: false }).handle_message(names());
        assert_eq!(late, Err(SessionViolation::Answer));
        let nowhere = RelaySession::new(Carries::Recording).handle_message(names());
        assert_eq!(nowhere, Err(SessionViolation::Kind));
    }

    fn accepted(carries: Carries) -> RelaySession {
        let mut session = RelaySession::new(carries);
        session.handle_message(SessionMessage::Accepted).unwrap();
        session
    }

    fn incoming(number: u32) -> SessionMessage {
        SessionMessage::Incoming(Incoming { number, peer: HOME })
    }

    #[test]
    fn address_comes_once_and_only_where_there_is_one() {
        let address = || SessionMessage::Address(HOME);
        for carries in [
            Carries::Connection { address: true },
            Carries::Listener { address: true },
        ] {
            let mut session = accepted(carries);
            assert_eq!(
                session.handle_message(address()),
                Ok(RelayEvent::Address(HOME))
            );
            let again = session.handle_message(address());
            assert_eq!(again, Err(SessionViolation::Repeated), "{carries:?}");
        }
        for carries in [
            Carries::Process { agent: true },
            Carries::Connection { address: false },
            Carries::Listener { address: false },
            Carries::Recording,
        ] {
            let never = accepted(carries).handle_message(address());
            assert_eq!(never, Err(SessionViolation::Kind), "{carries:?}");
        }
        let mut session = accepted(Carries::Connection { address: true });
        session.handle_data(DataStream::Stdout).unwrap();
        let late = session.handle_message(address());
        assert_eq!(late, Err(SessionViolation::Repeated));
    }

    #[test]
    fn incoming_connections_are_numbered_and_need_a_listener() {
        for carries in [
            Carries::Process { agent: true },
            Carries::Listener { address: false },
        ] {
            let mut session = accepted(carries);
            for number in [u32::MAX - 1, u32::MAX, 0, 1] {
                assert!(session.handle_message(incoming(number)).is_ok(), "{number}");
            }
            let again = session.handle_message(incoming(1));
            assert_eq!(again, Err(SessionViolation::Number), "{carries:?}");
        }
        for carries in [
            Carries::Process { agent: false },
            Carries::Connection { address: true },
            Carries::Recording,
        ] {
            let never = accepted(carries).handle_message(incoming(0));
            assert_eq!(never, Err(SessionViolation::Kind), "{carries:?}");
        }
        let early = accepted(Carries::Listener { address: true }).handle_message(incoming(0));
        assert_eq!(early, Err(SessionViolation::Answer));
    }

    #[test]
    fn data_comes_only_where_there_is_some() {
        for carries in [Carries::Listener { address: true }, Carries::Recording] {
            let data = accepted(carries).handle_data(DataStream::Stdout);
            assert_eq!(data, Err(SessionViolation::Kind), "{carries:?}");
        }
        let mut connection = accepted(Carries::Connection { address: false });
        let stderr = connection.handle_data(DataStream::Stderr);
        assert_eq!(stderr, Err(SessionViolation::Kind));
        assert_eq!(connection.handle_data(DataStream::Stdout), Ok(()));
    }
}
