//! A forward on the relay: the order of what the device sends.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::course::{Course, Numbers, Reported};
use crate::codec::frame::{DataStream, SessionMessage};
use crate::ids::Login;
use crate::session::{ForwardKind, SessionViolation};
use crate::wire::{Exit, Incoming, SessionRefusal};

/// The meaning of a message of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardReport {
    /// The forward has begun.
    Accepted,
    /// There is no forward; it is over. That the log can't take any more may also end one that was accepted.
    Refused(SessionRefusal),
    /// The connection brings no more.
    OutputEnded,
    /// The connection has ended; the forward is over.
    Exited(Exit),
    /// The address that a forward has reached.
    Address(SocketAddr),
    /// A connection waits on a port.
    Incoming(Incoming),
    /// The other logins with the user id of the forward's account.
    Names(Vec<Login>),
}

/// Checks the order of what the device sends of a forward, and that nothing comes more often than it may.
#[derive(Debug)]
pub struct RelayForward {
    course: Course,
    kind: ForwardKind,
    /// True if its address has come.
    addressed: bool,
    /// True if data or an announcement has come: no address follows them.
    began: bool,
    numbers: Numbers,
}

impl RelayForward {
    /// Returns a forward that has just been opened.
    #[must_use]
    pub fn new(kind: ForwardKind) -> Self {
        Self {
            course: Course::default(),
            kind,
            addressed: false,
            began: false,
            numbers: Numbers::default(),
        }
    }

    /// Notes that a message came from the device.
    ///
    /// # Errors
    /// [`SessionViolation`] if it has no place here; the forward cannot go on.
    pub fn handle_message(
        &mut self,
        message: SessionMessage,
    ) -> Result<ForwardReport, SessionViolation> {
        if self.kind == ForwardKind::Log && matches!(message, SessionMessage::Names(_)) {
            return Err(SessionViolation::Kind);
        }
        Ok(match self.course.handle_message(message)? {
            Reported::Accepted => ForwardReport::Accepted,
            Reported::Refused(why) => ForwardReport::Refused(why),
            Reported::OutputEnded => ForwardReport::OutputEnded,
            Reported::Exited(exit) => ForwardReport::Exited(exit),
            Reported::Names(names) => ForwardReport::Names(names),
            Reported::Address(address) => self.address(address)?,
            Reported::Incoming(incoming) => self.incoming(incoming)?,
        })
    }

    /// Notes that data came from the device.
    ///
    /// # Errors
    /// [`SessionViolation`] if there may be no such data here.
    pub fn handle_data(&mut self, stream: DataStream) -> Result<(), SessionViolation> {
        self.course.handle_data(stream)?;
        match (stream, self.kind) {
            (DataStream::Stdout, ForwardKind::Connection { .. }) => {
                self.began = true;
                Ok(())
            }
            _ => Err(SessionViolation::Kind),
        }
    }

    /// Takes where a connection leads or a port listens: once, before anything else.
    fn address(&mut self, address: SocketAddr) -> Result<ForwardReport, SessionViolation> {
        match self.kind {
            ForwardKind::Connection { address: true } | ForwardKind::Listener { address: true } => {
            }
            _ => return Err(SessionViolation::Kind),
        }
        if self.addressed || self.began || self.course.output_ended() {
            return Err(SessionViolation::Repeated);
        }
        self.addressed = true;
        Ok(ForwardReport::Address(address))
    }

    /// Takes a connection that waits on the device.
    fn incoming(&mut self, incoming: Incoming) -> Result<ForwardReport, SessionViolation> {
        match self.kind {
            ForwardKind::Listener { address: false } => {}
            ForwardKind::Listener { address: true } if self.addressed => {}
            ForwardKind::Listener { address: true } => return Err(SessionViolation::Answer),
            _ => return Err(SessionViolation::Kind),
        }
        self.numbers.take(incoming.number)?;
        self.began = true;
        Ok(ForwardReport::Incoming(incoming))
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
    use core::net::{IpAddr, Ipv4Addr};

    const HOME: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

    #[test]
    fn a_log_has_no_names() {
        let names = SessionMessage::Names(alloc::vec![Login::new("root").unwrap()]);
        let nowhere = RelayForward::new(ForwardKind::Log).handle_message(names.clone());
        assert_eq!(nowhere, Err(SessionViolation::Kind));
        let port = RelayForward::new(ForwardKind::Listener { address: true }).handle_message(names);
        assert!(matches!(port, Ok(ForwardReport::Names(_))));
    }

    fn accepted(kind: ForwardKind) -> RelayForward {
        let mut session = RelayForward::new(kind);
        session.handle_message(SessionMessage::Accepted).unwrap();
        session
    }

    fn incoming(number: u32) -> SessionMessage {
        SessionMessage::Incoming(Incoming { number, peer: HOME })
    }

    #[test]
    fn address_comes_once_and_only_where_there_is_one() {
        let address = || SessionMessage::Address(HOME);
        for kind in [
            ForwardKind::Connection { address: true },
            ForwardKind::Listener { address: true },
        ] {
            let mut session = accepted(kind);
            assert_eq!(
                session.handle_message(address()),
                Ok(ForwardReport::Address(HOME))
            );
            let again = session.handle_message(address());
            assert_eq!(again, Err(SessionViolation::Repeated), "{kind:?}");
        }
        for kind in [
            ForwardKind::Connection { address: false },
            ForwardKind::Listener { address: false },
            ForwardKind::Log,
        ] {
            let never = accepted(kind).handle_message(address());
            assert_eq!(never, Err(SessionViolation::Kind), "{kind:?}");
        }
        let mut session = accepted(ForwardKind::Connection { address: true });
        session.handle_data(DataStream::Stdout).unwrap();
        let late = session.handle_message(address());
        assert_eq!(late, Err(SessionViolation::Repeated));
    }

    #[test]
    fn incoming_connections_are_numbered_and_need_a_listener() {
        for kind in [ForwardKind::Listener { address: false }] {
            let mut session = accepted(kind);
            for number in [u32::MAX - 1, u32::MAX, 0, 1] {
                assert!(session.handle_message(incoming(number)).is_ok(), "{number}");
            }
            let again = session.handle_message(incoming(1));
            assert_eq!(again, Err(SessionViolation::Number), "{kind:?}");
        }
        for kind in [ForwardKind::Connection { address: true }, ForwardKind::Log] {
            let never = accepted(kind).handle_message(incoming(0));
            assert_eq!(never, Err(SessionViolation::Kind), "{kind:?}");
        }
        let early = accepted(ForwardKind::Listener { address: true }).handle_message(incoming(0));
        assert_eq!(early, Err(SessionViolation::Answer));
    }

    #[test]
    fn data_comes_only_where_there_is_some() {
        for kind in [ForwardKind::Listener { address: true }, ForwardKind::Log] {
            let data = accepted(kind).handle_data(DataStream::Stdout);
            assert_eq!(data, Err(SessionViolation::Kind), "{kind:?}");
        }
        let mut connection = accepted(ForwardKind::Connection { address: false });
        let stderr = connection.handle_data(DataStream::Stderr);
        assert_eq!(stderr, Err(SessionViolation::Kind));
        assert_eq!(connection.handle_data(DataStream::Stdout), Ok(()));
    }
}
