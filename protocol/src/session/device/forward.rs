//! A forward on the device: between the stream to the relay and a connection, a listener or the shared log.

use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::codec::frame::{DataStream, SessionMessage};
use crate::ids::Login;
use crate::session::{ForwardKind, SessionViolation};
use crate::wire::{Exit, Incoming, SessionRefusal};

/// The next action of the driver.
#[expect(clippy::large_enum_variant, reason = "each is made, done and gone")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardAction {
    /// Send this to the relay, behind all data that was read before.
    Send(SessionMessage),
    /// Shut the connection's sending half, behind all data that came before.
    CloseInput,
    /// The relay is gone: end what the forward has, so that its other end sees that it did not end in good order, then
    /// report with `handle_ended`.
    BreakOff,
    /// The forward is over: close the stream and forget it.
    Finish,
}

/// The state machine of a forward. After each `handle_*`, call [`Self::poll_action`] until it gives nothing.
#[derive(Debug)]
pub struct DeviceForward {
    kind: ForwardKind,
    phase: ForwardPhase,
    /// True if the relay is gone.
    departed: bool,
    input_ended: bool,
    output_ended: bool,
    exit: Option<Exit>,
    actions: heapless::Deque<ForwardAction, 8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ForwardPhase {
    Starting,
    Open,
    Done,
}

impl DeviceForward {
    /// Returns a forward that was just opened: what it is for is to be made, which is reported with
    /// [`Self::handle_started`] or [`Self::handle_refused`].
    #[must_use]
    pub fn new(kind: ForwardKind) -> Self {
        Self {
            kind,
            phase: ForwardPhase::Starting,
            departed: false,
            input_ended: false,
            output_ended: false,
            exit: None,
            actions: heapless::Deque::new(),
        }
    }

    /// Notes that a message came from the relay.
    ///
    /// # Errors
    /// [`SessionViolation`] if it has no place here; treat it as [`Self::handle_peer_gone`].
    pub fn handle_message(&mut self, message: SessionMessage) -> Result<(), SessionViolation> {
        match message {
            SessionMessage::Open(_) => Err(SessionViolation::Open),
            SessionMessage::Eof if self.input_ended => Err(SessionViolation::AfterEof),
            SessionMessage::Eof => {
                self.input_ended = true;
                // A forward that is over has no input to close: its connection may end before the relay's does.
                if self.has_data() && self.phase != ForwardPhase::Done {
                    self.push(ForwardAction::CloseInput);
                }
                Ok(())
            }
            // It has no terminal and no process.
            SessionMessage::Resize(_) | SessionMessage::Signal(_) | SessionMessage::CloseStdout => {
                Err(SessionViolation::Kind)
            }
            SessionMessage::Accepted
            | SessionMessage::Refused(_)
            | SessionMessage::Exit(_)
            | SessionMessage::Address(_)
            | SessionMessage::Incoming(_)
            | SessionMessage::Names(_) => Err(SessionViolation::Direction),
        }
    }

    /// Notes that data came from the relay. The driver hands it to the connection if this is `Ok(true)`, and drops it
    /// if `Ok(false)`: the connection is gone.
    ///
    /// # Errors
    /// [`SessionViolation`] if there may be no such data here.
    pub fn handle_data(&self, stream: DataStream) -> Result<bool, SessionViolation> {
        if stream != DataStream::Stdin {
            return Err(SessionViolation::Direction);
        }
        if !self.has_data() {
            return Err(SessionViolation::Kind);
        }
        if self.input_ended {
            return Err(SessionViolation::AfterEof);
        }
        Ok(self.exit.is_none() && self.phase != ForwardPhase::Done)
    }

    /// Notes that the forward has begun. `names` are the other logins with the user id of its account; `address` is
    /// where its connection leads or its port listens, which a Unix socket has none of.
    pub fn handle_started(&mut self, names: Vec<Login>, address: Option<SocketAddr>) {
        if self.phase != ForwardPhase::Starting {
            return;
        }
        self.phase = ForwardPhase::Open;
        if self.departed {
            return self.push(ForwardAction::BreakOff);
        }
        if !names.is_empty() {
            self.send(SessionMessage::Names(names));
        }
        self.send(SessionMessage::Accepted);
        if let Some(address) = address {
            self.send(SessionMessage::Address(address));
        }
    }

    /// Notes that there is no forward.
    pub fn handle_refused(&mut self, why: SessionRefusal) {
        if self.phase == ForwardPhase::Starting {
            self.send(SessionMessage::Refused(why));
            self.finish();
        }
    }

    /// Notes that a connection has come to the listener, and waits under its number.
    pub fn handle_incoming(&mut self, incoming: Incoming) {
        if self.phase == ForwardPhase::Open && self.exit.is_none() {
            self.send(SessionMessage::Incoming(incoming));
        }
    }

    /// Notes that the log takes no more, and why. The relay ends the forwards that are recorded there, and then the
    /// log.
    pub fn handle_full(&mut self, why: SessionRefusal) {
        if self.phase == ForwardPhase::Open && self.exit.is_none() {
            self.send(SessionMessage::Refused(why));
        }
    }

    /// Notes that all that the connection brought was handed to the relay's stream.
    pub fn handle_output_ended(&mut self) {
        if self.output_ended || self.phase == ForwardPhase::Done {
            return;
        }
        self.output_ended = true;
        self.send(SessionMessage::Eof);
        self.conclude();
    }

    /// Notes that a connection has ended both ways, or that what was broken off is gone.
    pub fn handle_ended(&mut self, exit: Exit) {
        if self.exit.is_some() || self.phase != ForwardPhase::Open {
            return;
        }
        self.exit = Some(exit);
        self.conclude();
    }

    /// Notes that the relay reset the stream, closed it before the end, broke the protocol, or the tunnel is lost.
    pub fn handle_peer_gone(&mut self) {
        if self.departed {
            return;
        }
        self.departed = true;
        if self.phase != ForwardPhase::Open {
            return;
        }
        match self.exit {
            Some(_) => self.finish(),
            None => self.push(ForwardAction::BreakOff),
        }
    }

    /// Returns the next thing to do, if any.
    pub fn poll_action(&mut self) -> Option<ForwardAction> {
        self.actions.pop_front()
    }

    /// Returns whether the forward is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase == ForwardPhase::Done
    }

    /// Returns whether data passes on its stream.
    fn has_data(&self) -> bool {
        matches!(self.kind, ForwardKind::Connection { .. })
    }

    /// Ends it when the connection has ended: all that it brought is sent first, if the relay is still there.
    fn conclude(&mut self) {
        if let Some(exit) = self.exit
            && (self.output_ended || self.departed)
        {
            self.send(SessionMessage::Exit(exit));
            self.finish();
        }
    }

    fn finish(&mut self) {
        self.phase = ForwardPhase::Done;
        self.push(ForwardAction::Finish);
    }

    /// Sends a message, if the relay is still there.
    fn send(&mut self, message: SessionMessage) {
        if !self.departed {
            self.push(ForwardAction::Send(message));
        }
    }

    fn push(&mut self, action: ForwardAction) {
        // One input yields at most three actions and the driver polls after each: nothing is dropped.
        let _ = self.actions.push_back(action);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Signal, WindowSize};
    use alloc::string::String;
    use alloc::vec;
    use core::net::{IpAddr, Ipv4Addr};

    const HOME: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
    const KINDS: [ForwardKind; 3] = [
        ForwardKind::Connection { address: true },
        ForwardKind::Listener { address: true },
        ForwardKind::Log,
    ];

    fn open(kind: ForwardKind) -> DeviceForward {
        let mut forward = DeviceForward::new(kind);
        forward.handle_started(vec![], None);
        assert_eq!(drain(&mut forward), [sent(SessionMessage::Accepted)]);
        forward
    }

    fn drain(forward: &mut DeviceForward) -> Vec<ForwardAction> {
        core::iter::from_fn(|| forward.poll_action()).collect()
    }

    fn sent(message: SessionMessage) -> ForwardAction {
        ForwardAction::Send(message)
    }

    #[test]
    fn end_of_input_behind_the_end_asks_for_nothing() {
        let mut forward = DeviceForward::new(ForwardKind::Connection { address: true });
        forward.handle_refused(SessionRefusal::NoShell);
        drain(&mut forward);
        assert!(forward.is_done());
        assert_eq!(forward.handle_message(SessionMessage::Eof), Ok(()));
        assert_eq!(drain(&mut forward), []);
    }

    #[test]
    fn names_come_before_the_answer_and_the_address_behind_it() {
        let mut forward = DeviceForward::new(KINDS[0]);
        let names = vec![Login::new("root").unwrap()];
        forward.handle_started(names.clone(), Some(HOME));
        let expected = [
            SessionMessage::Names(names),
            SessionMessage::Accepted,
            SessionMessage::Address(HOME),
        ];
        assert_eq!(drain(&mut forward), expected.map(sent));
    }

    #[test]
    fn a_connection_ends_behind_all_that_it_brought() {
        let mut forward = open(KINDS[0]);
        forward.handle_message(SessionMessage::Eof).unwrap();
        assert_eq!(drain(&mut forward), [ForwardAction::CloseInput]);
        forward.handle_ended(Exit::Status(0));
        assert_eq!(drain(&mut forward), [], "the output is still read");
        forward.handle_output_ended();
        let expected = [
            sent(SessionMessage::Eof),
            sent(SessionMessage::Exit(Exit::Status(0))),
            ForwardAction::Finish,
        ];
        assert_eq!(drain(&mut forward), expected);
        assert!(forward.is_done());
    }

    #[test]
    fn a_forward_without_its_relay_is_broken_off_and_silent() {
        for kind in KINDS {
            let mut forward = open(kind);
            forward.handle_peer_gone();
            assert_eq!(drain(&mut forward), [ForwardAction::BreakOff], "{kind:?}");
            forward.handle_peer_gone();
            forward.handle_incoming(Incoming {
                number: 0,
                peer: HOME,
            });
            assert_eq!(drain(&mut forward), [], "{kind:?}");
            forward.handle_ended(Exit::Status(1));
            assert_eq!(drain(&mut forward), [ForwardAction::Finish], "{kind:?}");
            forward.handle_output_ended();
            assert_eq!(drain(&mut forward), [], "{kind:?}");
        }
    }

    #[test]
    fn a_relay_that_leaves_during_the_start_is_not_forgotten() {
        let mut forward = DeviceForward::new(KINDS[1]);
        forward.handle_peer_gone();
        assert_eq!(drain(&mut forward), []);
        forward.handle_started(vec![], Some(HOME));
        assert_eq!(drain(&mut forward), [ForwardAction::BreakOff]);
        let mut refused = DeviceForward::new(KINDS[1]);
        refused.handle_peer_gone();
        refused.handle_refused(SessionRefusal::NoShell);
        assert_eq!(drain(&mut refused), [ForwardAction::Finish]);
    }

    #[test]
    fn frames_of_a_process_are_a_violation_on_a_forward() {
        for kind in KINDS {
            let mut forward = open(kind);
            for message in [
                SessionMessage::Resize(WindowSize::default()),
                SessionMessage::Signal(Signal::Hup),
            ] {
                let taken = forward.handle_message(message);
                assert_eq!(taken, Err(SessionViolation::Kind), "{kind:?}");
            }
            let data = forward.handle_data(DataStream::Stdin);
            match kind {
                ForwardKind::Connection { .. } => assert_eq!(data, Ok(true)),
                ForwardKind::Listener { .. } | ForwardKind::Log => {
                    assert_eq!(data, Err(SessionViolation::Kind));
                }
            }
            let data = forward.handle_data(DataStream::Stdout);
            assert_eq!(data, Err(SessionViolation::Direction));
            assert_eq!(forward.handle_message(SessionMessage::Eof), Ok(()));
            let again = forward.handle_message(SessionMessage::Eof);
            assert_eq!(again, Err(SessionViolation::AfterEof));
            let exit = forward.handle_message(SessionMessage::Exit(Exit::Status(0)));
            assert_eq!(exit, Err(SessionViolation::Direction));
        }
    }

    #[test]
    fn a_full_log_says_why_and_is_ended_by_its_relay() {
        let why = SessionRefusal::RecordingUnavailable(String::from("full"));
        let mut log = open(ForwardKind::Log);
        log.handle_full(why.clone());
        assert_eq!(drain(&mut log), [sent(SessionMessage::Refused(why))]);
        assert!(!log.is_done());
        log.handle_peer_gone();
        assert_eq!(drain(&mut log), [ForwardAction::BreakOff]);
    }
}
