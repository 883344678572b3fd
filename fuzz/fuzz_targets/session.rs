//! Operations on the device's sessions, with a process and without, in any order and at any time: what they ask of
//! their drivers must make sense whatever the relay sends and however the process or the connection ends.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use holdfast_protocol::codec::frame::{DataStream, FramePiece, FrameReader, SessionMessage};
use holdfast_protocol::ids::{Login, SessionId, UserName};
use holdfast_protocol::session::{
    Departure, DeviceForward, DeviceProcess, ForwardAction, ForwardKind, ProcessAction,
    RelayForward, RelayProcess, opening,
};
use holdfast_protocol::wire::{
    Exit, Incoming, OnDisconnect, Open, ProcessRequest, Pty, SessionRefusal, SessionTerms, Signal,
    WindowSize,
};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Operation<'a> {
    Bytes(&'a [u8]),
    Open { pty: bool, on_disconnect: u8 },
    Eof,
    Resize(u16),
    Interrupt,
    Started,
    Refused,
    Exited(u8),
    OutputEnded,
    PeerGone { ordered: bool },
    Wait(u16),
}

#[derive(Arbitrary, Debug)]
enum ForwardOperation {
    Frame(u8),
    Started { address: bool },
    Refused,
    Incoming,
    Full,
    OutputEnded,
    Ended(u8),
    PeerGone,
}

const HOME: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 22);

fuzz_target!(|input: (Vec<Operation<'_>>, u8, Vec<ForwardOperation>)| {
    let (operations, kind, forward) = input;
    let kind = match kind % 3 {
        0 => ForwardKind::Connection { address: true },
        1 => ForwardKind::Listener { address: false },
        _ => ForwardKind::Log,
    };
    ForwardWorld::new(kind).run(forward);
    let mut driver = Driver::default();
    for operation in operations {
        driver.apply(operation);
        driver.drain();
        if driver.finished {
            return;
        }
    }
});

#[derive(Default)]
struct Driver {
    now: Duration,
    session: Option<DeviceProcess>,
    reader: FrameReader,
    /// The other end: it must never find fault with what the device sends.
    relay: RelayProcess,
    process: Process,
    stream_broken: bool,
    finished: bool,
}

#[derive(Default, PartialEq)]
enum Process {
    #[default]
    None,
    Asked,
    Runs,
    Ended,
}

impl Driver {
    fn apply(&mut self, operation: Operation<'_>) {
        let now = self.now;
        match operation {
            Operation::Bytes(bytes) => self.read(bytes),
            Operation::Open { pty, on_disconnect } => {
                self.read_message(SessionMessage::Open(open(pty, on_disconnect)));
            }
            Operation::Eof => self.read_message(SessionMessage::Eof),
            Operation::Resize(columns) => self.read_message(SessionMessage::Resize(
                WindowSize::clamped(columns.into(), 24, 0, 0),
            )),
            Operation::Interrupt => self.read_message(SessionMessage::Signal(Signal::Int)),
            Operation::Started if self.process == Process::Asked => {
                self.process = Process::Runs;
                self.session().handle_started(now, vec![]);
            }
            Operation::Refused if self.process == Process::Asked => {
                self.process = Process::Ended;
                self.session().handle_refused(SessionRefusal::NoAccount);
            }
            Operation::Exited(status) if self.process == Process::Runs => {
                self.process = Process::Ended;
                let exit = Exit::Status(status.into());
                self.session().handle_exited(now, exit);
            }
            Operation::OutputEnded if matches!(self.process, Process::Runs | Process::Ended) => {
                self.session().handle_output_ended();
            }
            Operation::PeerGone { ordered } => {
                self.stream_broken = true;
                let departure = match ordered {
                    true => Departure::Ordered,
                    false => Departure::Lost,
                };
                self.peer_gone(departure);
            }
            Operation::Wait(millis) => {
                self.now += Duration::from_millis(millis.into());
                if let Some(session) = &mut self.session {
                    session.handle_timeout(self.now);
                }
            }
            _ => {}
        }
    }

    fn session(&mut self) -> &mut DeviceProcess {
        self.session
            .as_mut()
            .expect("a process is asked for by an Open")
    }

    /// The relay is gone: a stream that was not opened is forgotten at once.
    fn peer_gone(&mut self, departure: Departure) {
        match &mut self.session {
            Some(session) => session.handle_peer_gone(self.now, departure),
            None => self.finished = true,
        }
    }

    fn read_message(&mut self, message: SessionMessage) {
        let bytes = message.encode().expect("it is far below every bound");
        self.read(&bytes);
    }

    fn read(&mut self, mut bytes: &[u8]) {
        while !self.stream_broken && !self.finished {
            let piece = match self.reader.read(&mut bytes) {
                Ok(None) => return,
                Ok(Some(piece)) => piece,
                Err(_) => {
                    self.stream_broken = true;
                    return self.peer_gone(Departure::Lost);
                }
            };
            let taken = match (&mut self.session, piece) {
                (None, first) => opening(first).map(|open| {
                    self.session = Some(DeviceProcess::new(&open));
                    self.process = Process::Asked;
                }),
                (Some(session), FramePiece::Data(stream, _)) => {
                    session.handle_data(stream).map(drop)
                }
                (Some(session), FramePiece::Message(message)) => session.handle_message(message),
            };
            self.drain();
            if taken.is_err() {
                self.stream_broken = true;
                self.peer_gone(Departure::Lost);
                self.drain();
            }
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.session.as_mut().and_then(DeviceProcess::poll_action) {
            assert!(!self.finished, "{action:?} after Finish");
            match action {
                ProcessAction::Send(message) => self.send(message),
                ProcessAction::Finish => {
                    self.finished = true;
                    assert!(
                        self.process != Process::Runs,
                        "finished beside a live process"
                    );
                }
                ProcessAction::Hangup | ProcessAction::Leave => {
                    assert!(self.process == Process::Runs);
                }
                ProcessAction::Detach => {
                    assert!(self.process == Process::Runs);
                    // It goes on without the session.
                    self.process = Process::Ended;
                }
                _ => {}
            }
        }
        if let Some(session) = &self.session {
            assert_eq!(self.finished, session.is_done());
            assert!(!self.finished || session.poll_timeout().is_none());
        }
    }

    fn send(&mut self, message: SessionMessage) {
        let taken = self.relay.handle_message(message.clone());
        assert!(taken.is_ok(), "{message:?}: {taken:?}");
        if !self.relay.is_over() && self.process == Process::Runs {
            let _ = self.relay.handle_data(DataStream::Stdout);
        }
    }
}

/// A forward and its relay, which must never find fault with what the device sends.
struct ForwardWorld {
    device: DeviceForward,
    relay: RelayForward,
    kind: ForwardKind,
    started: bool,
    gone: bool,
    broken_off: bool,
    finished: bool,
}

impl ForwardWorld {
    fn new(kind: ForwardKind) -> Self {
        Self {
            device: DeviceForward::new(kind),
            relay: RelayForward::new(kind),
            kind,
            started: false,
            gone: false,
            broken_off: false,
            finished: false,
        }
    }

    fn run(&mut self, operations: Vec<ForwardOperation>) {
        let mut number = 0;
        for operation in operations {
            match operation {
                ForwardOperation::Frame(frame) => {
                    let taken = match frame % 5 {
                        0 => self.device.handle_data(DataStream::Stdin).map(drop),
                        1 => self.device.handle_message(SessionMessage::Eof),
                        2 => self
                            .device
                            .handle_message(SessionMessage::Signal(Signal::Int)),
                        3 => self
                            .device
                            .handle_message(SessionMessage::Open(open(false, 3))),
                        _ => self.device.handle_message(SessionMessage::Accepted),
                    };
                    if taken.is_err() {
                        self.peer_gone();
                    }
                }
                ForwardOperation::Started { address } => {
                    self.started = true;
                    let address = match self.kind {
                        ForwardKind::Connection { .. } => address.then_some(HOME),
                        ForwardKind::Listener { .. } | ForwardKind::Log => None,
                    };
                    self.device.handle_started(vec![], address);
                }
                ForwardOperation::Refused => self.device.handle_refused(SessionRefusal::NoShell),
                ForwardOperation::Incoming if matches!(self.kind, ForwardKind::Listener { .. }) => {
                    let peer = HOME;
                    self.device.handle_incoming(Incoming { number, peer });
                    number += u32::from(self.started && !self.gone);
                }
                ForwardOperation::Full if self.kind == ForwardKind::Log => {
                    let why = SessionRefusal::RecordingUnavailable(String::new());
                    self.device.handle_full(why);
                }
                ForwardOperation::OutputEnded if self.started => self.device.handle_output_ended(),
                ForwardOperation::Ended(status) if self.started => {
                    self.device.handle_ended(Exit::Status(status.into()));
                }
                ForwardOperation::PeerGone => self.peer_gone(),
                _ => {}
            }
            self.drain();
        }
    }

    fn peer_gone(&mut self) {
        self.gone = true;
        self.device.handle_peer_gone();
    }

    fn drain(&mut self) {
        while let Some(action) = self.device.poll_action() {
            assert!(!self.finished, "{action:?} after Finish");
            match action {
                ForwardAction::Send(message) => {
                    assert!(!self.gone, "{message:?} to a relay that is gone");
                    let full = message_is_full(&message);
                    let taken = self.relay.handle_message(message);
                    assert!(taken.is_ok(), "{taken:?}");
                    // The relay ends the log after that.
                    if full {
                        self.peer_gone();
                    }
                }
                ForwardAction::BreakOff => {
                    assert!(self.gone && !self.broken_off);
                    self.broken_off = true;
                }
                ForwardAction::CloseInput => {
                    assert!(matches!(self.kind, ForwardKind::Connection { .. }));
                }
                ForwardAction::Finish => self.finished = true,
            }
        }
        assert_eq!(self.finished, self.device.is_done());
    }
}

fn message_is_full(message: &SessionMessage) -> bool {
    matches!(
        message,
        SessionMessage::Refused(SessionRefusal::RecordingUnavailable(_))
    )
}

fn open(pty: bool, on_disconnect: u8) -> Open {
    let on_disconnect = match on_disconnect % 4 {
        0 => Some(OnDisconnect::Hup),
        1 => Some(OnDisconnect::Leave),
        2 => Some(OnDisconnect::Kill),
        _ => None,
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 22));
    Open {
        session: SessionId([7; 16]),
        user: UserName::new("alice").expect("a name"),
        login: Login::new("pi").expect("a name"),
        request: ProcessRequest::Shell.into(),
        pty: pty.then(|| Pty {
            term: "xterm".into(),
            size: WindowSize::default(),
            modes: vec![],
        }),
        env: vec![],
        client: address,
        server: address,
        original_command: None,
        recording: None,
        terms: SessionTerms {
            on_disconnect,
            ..SessionTerms::default()
        },
        forward_log: None,
    }
}
