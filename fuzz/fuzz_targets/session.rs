//! Operations on the device's session, in any order and at any time: what it asks of its driver must
//! make sense whatever the relay sends and however the process ends.
#![no_main]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use holdfast_protocol::codec::frame::{DataStream, FramePiece, FrameReader, SessionMessage};
use holdfast_protocol::ids::{Login, SessionId, UserName};
use holdfast_protocol::session::{Departure, DeviceAction, DeviceSession, RelaySession};
use holdfast_protocol::wire::{
    Exit, OnDisconnect, Open, Pty, SessionRefusal, SessionTerms, Signal, WindowSize, Work,
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

fuzz_target!(|operations: Vec<Operation<'_>>| {
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
    session: DeviceSession,
    reader: FrameReader,
    /// The other end: it must never find fault with what the device sends.
    relay: RelaySession,
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
                self.session.handle_started(self.now);
            }
            Operation::Refused if self.process == Process::Asked => {
                self.process = Process::Ended;
                self.session.handle_refused(SessionRefusal::NoAccount);
            }
            Operation::Exited(status) if self.process == Process::Runs => {
                self.process = Process::Ended;
                self.session
                    .handle_exited(self.now, Exit::Status(status.into()));
            }
            Operation::OutputEnded if matches!(self.process, Process::Runs | Process::Ended) => {
                self.session.handle_output_ended();
            }
            Operation::PeerGone { ordered } => {
                self.stream_broken = true;
                let departure = match ordered {
                    true => Departure::Ordered,
                    false => Departure::Lost,
                };
                self.session.handle_peer_gone(self.now, departure);
            }
            Operation::Wait(millis) => {
                self.now += Duration::from_millis(millis.into());
                self.session.handle_timeout(self.now);
            }
            _ => {}
        }
    }

    fn read_message(&mut self, message: SessionMessage) {
        let bytes = message.encode().expect("it is far below every bound");
        self.read(&bytes);
    }

    fn read(&mut self, mut bytes: &[u8]) {
        while !self.stream_broken && !self.finished {
            let taken = match self.reader.read(&mut bytes) {
                Ok(None) => return,
                Ok(Some(FramePiece::Data(stream, _))) => {
                    self.session.handle_data(stream).map(|to_process| {
                        assert!(!to_process || self.process != Process::None);
                    })
                }
                Ok(Some(FramePiece::Message(message))) => self.session.handle_message(message),
                Err(_) => {
                    self.stream_broken = true;
                    self.session.handle_peer_gone(self.now, Departure::Lost);
                    return;
                }
            };
            self.drain();
            if taken.is_err() {
                self.stream_broken = true;
                self.session.handle_peer_gone(self.now, Departure::Lost);
                self.drain();
            }
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.session.poll_action() {
            assert!(!self.finished, "{action:?} after Finish");
            match action {
                DeviceAction::Start(_) => {
                    assert!(self.process == Process::None, "a second process");
                    self.process = Process::Asked;
                }
                DeviceAction::Send(message) => self.send(message),
                DeviceAction::Finish => {
                    self.finished = true;
                    assert!(
                        self.process != Process::Runs,
                        "finished beside a live process"
                    );
                }
                DeviceAction::Hangup | DeviceAction::Leave => {
                    assert!(self.process == Process::Runs);
                }
                DeviceAction::Detach => {
                    assert!(self.process == Process::Runs);
                    // It goes on without the session.
                    self.process = Process::Ended;
                }
                _ => {}
            }
        }
        assert_eq!(self.finished, self.session.is_done());
        assert!(!self.finished || self.session.poll_timeout().is_none());
    }

    fn send(&mut self, message: SessionMessage) {
        let taken = self.relay.handle_message(message.clone());
        assert!(taken.is_ok(), "{message:?}: {taken:?}");
        if !self.relay.is_over() && self.process == Process::Runs {
            let _ = self.relay.handle_data(DataStream::Stdout);
        }
    }
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
        work: Work::Shell,
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
