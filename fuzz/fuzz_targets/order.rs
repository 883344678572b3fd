//! Each message in each state: whatever an end says, and however often, the state machines take a message no more often
//! than docs/protocol.md says, and take nothing after the end.
#![no_main]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use holdfast_protocol::codec::frame::{DataStream, SessionMessage};
use holdfast_protocol::identity::token::TokenSecret;
use holdfast_protocol::ids::{Login, SessionId, UserName};
use holdfast_protocol::recording::ingest::{Ingest, IngestAction, UploadStream};
use holdfast_protocol::recording::record::EndReason;
use holdfast_protocol::recording::segment::SegmentLink;
use holdfast_protocol::session::{
    Departure, DeviceForward, DeviceProcess, ForwardAction, ForwardKind, ForwardReport,
    ProcessAction, ProcessReport, RelayForward, RelayProcess,
};
use holdfast_protocol::tunnel::control::ControlOrder;
use holdfast_protocol::wire::{
    AgentMessage, Beat, Enrol, Exit, Hello, Incoming, Intent, OfferedSegment, Open, ProcessRequest,
    SegmentBytes, SegmentGone, SegmentLost, SessionFinished, SessionRefusal, SessionTerms, Signal,
    WindowSize,
};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    agent: bool,
    kind: u8,
    session: Vec<Frame>,
    control: Vec<Control>,
    upload: Vec<Upload>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Frame {
    Open,
    Accepted,
    Refused,
    Unavailable,
    Stdin,
    Stdout,
    Stderr,
    Eof,
    Resize,
    Signal,
    Exit,
    Address(u8),
    Incoming(u8),
}

#[derive(Arbitrary, Debug)]
enum Control {
    Join,
    Run,
    Enrol,
    Beat(bool),
}

#[derive(Arbitrary, Debug)]
enum Upload {
    Finished(u8),
    Gone(u8, bool),
    Offer(u8, u8),
    Bytes(u8, Vec<u8>),
    Over,
}

const HOME: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 22);
const SESSION: SessionId = SessionId([7; 16]);

fuzz_target!(|input: Input| {
    let kind = match input.kind % 5 {
        0 => ForwardKind::Connection { address: false },
        1 => ForwardKind::Connection { address: true },
        2 => ForwardKind::Listener { address: false },
        3 => ForwardKind::Listener { address: true },
        _ => ForwardKind::Log,
    };
    of_a_process(input.agent, &input.session);
    of_a_forward(kind, &input.session);
    to_a_process(&input.session);
    to_a_forward(kind, &input.session);
    of_the_agent(&input.control);
    of_uploads(&input.upload);
});

fn message(frame: Frame) -> Result<SessionMessage, DataStream> {
    Ok(match frame {
        Frame::Open => SessionMessage::Open(open()),
        Frame::Accepted => SessionMessage::Accepted,
        Frame::Refused => SessionMessage::Refused(SessionRefusal::NoShell),
        Frame::Unavailable => {
            SessionMessage::Refused(SessionRefusal::RecordingUnavailable(String::new()))
        }
        Frame::Stdin => return Err(DataStream::Stdin),
        Frame::Stdout => return Err(DataStream::Stdout),
        Frame::Stderr => return Err(DataStream::Stderr),
        Frame::Eof => SessionMessage::Eof,
        Frame::Resize => SessionMessage::Resize(WindowSize::default()),
        Frame::Signal => SessionMessage::Signal(Signal::Int),
        Frame::Exit => SessionMessage::Exit(Exit::Status(0)),
        Frame::Address(port) => SessionMessage::Address(SocketAddr::new(HOME.ip(), port.into())),
        Frame::Incoming(number) => SessionMessage::Incoming(Incoming {
            number: number.into(),
            peer: HOME,
        }),
    })
}

/// Checks what the relay accepts of a device's process.
fn of_a_process(agent: bool, frames: &[Frame]) {
    let mut session = RelayProcess::new(agent);
    let (mut accepted, mut ends, mut last) = (0, 0, None);
    for frame in frames {
        let was_over = session.is_over();
        match message(*frame) {
            Err(stream) => {
                if session.handle_data(stream).is_ok() {
                    assert!(accepted == 1 && ends == 0 && !was_over);
                    assert!(stream != DataStream::Stdin);
                }
            }
            Ok(message) => {
                let Ok(report) = session.handle_message(message) else {
                    continue;
                };
                assert!(!was_over, "{report:?} after the end");
                match report {
                    ProcessReport::Accepted => accepted += 1,
                    ProcessReport::OutputEnded => ends += 1,
                    ProcessReport::Incoming(incoming) => {
                        assert!(agent && last.is_none_or(|last: u32| last + 1 == incoming.number));
                        last = Some(incoming.number);
                    }
                    ProcessReport::Exited(_) => assert_eq!(accepted, 1),
                    ProcessReport::Refused(_) | ProcessReport::Names(_) => {}
                }
            }
        }
        assert!(accepted <= 1 && ends <= 1);
    }
}

/// Checks what the relay accepts of a device's forward.
fn of_a_forward(kind: ForwardKind, frames: &[Frame]) {
    let mut session = RelayForward::new(kind);
    let (mut accepted, mut addresses, mut ends, mut last) = (0, 0, 0, None);
    for frame in frames {
        let was_over = session.is_over();
        match message(*frame) {
            Err(stream) => {
                if session.handle_data(stream).is_ok() {
                    assert!(accepted == 1 && ends == 0 && !was_over);
                    assert!(stream == DataStream::Stdout);
                    assert!(matches!(kind, ForwardKind::Connection { .. }));
                }
            }
            Ok(message) => {
                let Ok(report) = session.handle_message(message) else {
                    continue;
                };
                assert!(!was_over, "{report:?} after the end");
                match report {
                    ForwardReport::Accepted => accepted += 1,
                    ForwardReport::Address(_) => {
                        addresses += 1;
                        assert!(matches!(
                            kind,
                            ForwardKind::Connection { address: true }
                                | ForwardKind::Listener { address: true }
                        ));
                    }
                    ForwardReport::OutputEnded => ends += 1,
                    ForwardReport::Incoming(incoming) => {
                        assert!(matches!(kind, ForwardKind::Listener { .. }));
                        assert!(last.is_none_or(|last: u32| last + 1 == incoming.number));
                        last = Some(incoming.number);
                    }
                    ForwardReport::Exited(_) => assert_eq!(accepted, 1),
                    ForwardReport::Refused(_) | ForwardReport::Names(_) => {}
                }
            }
        }
        assert!(accepted <= 1 && addresses <= 1 && ends <= 1);
    }
}

/// Checks what a device accepts of its relay on a process's stream, after the `Open`.
fn to_a_process(frames: &[Frame]) {
    let mut session = DeviceProcess::new(&open());
    let mut ends = 0;
    for frame in frames {
        match message(*frame) {
            Err(stream) => drop(session.handle_data(stream)),
            Ok(message @ SessionMessage::Open(_)) => {
                assert!(session.handle_message(message).is_err())
            }
            Ok(message) => drop(session.handle_message(message)),
        }
        while let Some(action) = session.poll_action() {
            ends += u32::from(action == ProcessAction::CloseStdin);
        }
        assert!(ends <= 1);
    }
    session.handle_peer_gone(Duration::ZERO, Departure::Lost);
}

/// Checks what a device accepts of its relay on a forward's stream, after the `Open`.
fn to_a_forward(kind: ForwardKind, frames: &[Frame]) {
    let mut forward = DeviceForward::new(kind);
    let mut ends = 0;
    for frame in frames {
        match message(*frame) {
            Err(stream) => drop(forward.handle_data(stream)),
            Ok(message @ SessionMessage::Open(_)) => {
                assert!(forward.handle_message(message).is_err())
            }
            Ok(message) => drop(forward.handle_message(message)),
        }
        while let Some(action) = forward.poll_action() {
            ends += u32::from(action == ForwardAction::CloseInput);
        }
        assert!(ends <= 1);
    }
    forward.handle_peer_gone();
}

/// Checks what the relay accepts on a control stream.
fn of_the_agent(messages: &[Control]) {
    let mut order = ControlOrder::default();
    let (mut hellos, mut enrols) = (0, 0);
    for message in messages {
        let message = match message {
            Control::Join => hello(Intent::Join),
            Control::Run => hello(Intent::Run),
            Control::Enrol => AgentMessage::Enrol(Enrol {
                secret: TokenSecret([0; 20]),
                name: None,
                labels: vec![],
            }),
            Control::Beat(echo) => AgentMessage::Beat(Beat { echo: *echo }),
        };
        if order.handle(&message).is_ok() {
            match message {
                AgentMessage::Hello(_) => hellos += 1,
                AgentMessage::Enrol(_) => enrols += 1,
                AgentMessage::Beat(_) => assert!(hellos == 1 && enrols == 0),
                AgentMessage::Instance(_) => assert!(hellos == 0),
            }
        }
        assert!(hellos <= 1 && enrols <= hellos);
    }
}

/// Checks what the relay accepts of a recording.
fn of_uploads(messages: &[Upload]) {
    let mut ingest = Ingest::new(SESSION);
    let (mut settled, mut kept) = (0, 0);
    let mut offered = 0;
    for message in messages {
        match message {
            Upload::Finished(segments) => ingest.handle_finished(&SessionFinished {
                session: SESSION,
                why: Some(EndReason::Exited),
                segments: (*segments).into(),
                hash: SegmentLink([1; 32]),
            }),
            Upload::Gone(segment, corrupt) => ingest.handle_gone(&SegmentGone {
                session: SESSION,
                segment: (*segment).into(),
                why: match corrupt {
                    true => SegmentLost::Corrupt,
                    false => SegmentLost::Missing,
                },
            }),
            Upload::Offer(segment, length) => {
                offered = (*segment).into();
                ingest.handle_offer(
                    UploadStream::default(),
                    &OfferedSegment {
                        session: SESSION,
                        segment: offered,
                        length: (*length).into(),
                        hash: SegmentLink([1; 32]),
                        closed: true,
                    },
                );
            }
            Upload::Bytes(offset, bytes) => ingest.handle_bytes(
                offered,
                &SegmentBytes {
                    offset: (*offset).into(),
                    bytes: bytes.clone(),
                },
            ),
            Upload::Over => ingest.handle_session_over(Duration::from_secs(1)),
        }
        while let Some(action) = ingest.poll_action() {
            match action {
                IngestAction::Settled(state) => settled += usize::from(state.is_terminal()),
                IngestAction::Keep(finished) => {
                    kept += 1;
                    ingest.handle_kept(finished);
                }
                IngestAction::Store(held) => ingest.handle_stored(&held),
                _ => {}
            }
        }
        assert!(settled <= 1 && kept <= 1);
    }
}

fn hello(intent: Intent) -> AgentMessage {
    AgentMessage::Hello(Hello {
        minor: 0,
        intent,
        agent_version: String::new(),
        target: String::new(),
        keepalive_secs: 25,
        clock: 0,
        local_address: None,
    })
}

fn open() -> Open {
    Open {
        session: SESSION,
        user: UserName::new("alice").expect("a name"),
        login: Login::new("pi").expect("a name"),
        request: ProcessRequest::Shell.into(),
        pty: None,
        env: vec![],
        client: HOME,
        server: HOME,
        original_command: None,
        recording: None,
        terms: SessionTerms::default(),
        forward_log: None,
    }
}
