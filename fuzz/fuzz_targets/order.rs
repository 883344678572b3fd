//! Each message in each state, of both ends: whatever an end says, and however often, the state machines take a message no
//! more often than docs/protocol.md says, and take nothing after the end.
#![no_main]

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use holdfast_protocol::codec::frame::{DataStream, SessionMessage};
use holdfast_protocol::identity::release::ReleaseKey;
use holdfast_protocol::identity::roster::SignedRoster;
use holdfast_protocol::identity::token::TokenSecret;
use holdfast_protocol::ids::{
    DeviceId, DeviceName, Generation, Login, PublicKey, SessionId, UserName,
};
use holdfast_protocol::limits::{MINOR_VERSION, UPLOAD_IN_FLIGHT};
use holdfast_protocol::recording::ingest::{Ingest, IngestAction, UploadStream};
use holdfast_protocol::recording::medium::{FileName, Medium, MediumEntry, SegmentName};
use holdfast_protocol::recording::record::{EndReason, Event, Record, RecordedBytes, Stream};
use holdfast_protocol::recording::seal::{RecordingSecret, SealSeed};
use holdfast_protocol::recording::segment::{SegmentLink, SegmentWriter};
use holdfast_protocol::recording::spool::{Spool, SpoolConfig};
use holdfast_protocol::recording::upload::{UploadAction, UploadConfig, UploadPolicy, Uploader};
use holdfast_protocol::session::{
    Departure, DeviceForward, DeviceProcess, ForwardAction, ForwardKind, ForwardReport,
    ProcessAction, ProcessReport, RelayForward, RelayProcess,
};
use holdfast_protocol::tunnel::control::{ControlOrder, RelayOrder};
use holdfast_protocol::wire::{
    AgentMessage, Beat, Enrol, EnrolRelay, Exit, Hello, Incoming, Instance, Intent,
    MembershipGrant, OfferedSegment, Open, ProcessRequest, Refusal, RelayGrant, RelayMessage,
    SegmentBytes, SegmentGone, SegmentHeld, SegmentLost, SegmentRefusal, SegmentRefused,
    SessionFinished, SessionRefusal, SessionTerms, Signal, UploadAnswer, UploadMessage, Welcome,
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
    joins: bool,
    relay: Vec<FromRelay>,
    answers: Vec<Answer>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Frame {
    Open,
    Names,
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
    CloseStdout,
}

#[derive(Arbitrary, Debug)]
enum Control {
    Instance,
    Join,
    Run,
    Enrol,
    Beat(bool),
    JoinRelay,
    EnrolRelay,
}

#[derive(Arbitrary, Debug)]
enum Upload {
    Finished(u8),
    Gone(u8, bool),
    Offer(u8, u8),
    Bytes(u8, Vec<u8>),
    Over,
}

#[derive(Arbitrary, Debug)]
enum FromRelay {
    Identity,
    ReleaseKey,
    Enrolled,
    Welcome,
    Refused,
    Roster,
    Drain(u32),
    Renamed,
    Echo,
    EnrolledRelay,
}

/// An answer of the relay to an upload, or what happens between.
#[derive(Arbitrary, Debug)]
enum Answer {
    Noted(bool),
    Listed(u8),
    Have(bool, u32),
    /// True: as it is here. False: another one.
    Stored(bool, bool),
    Refused(bool, u8),
    Poll,
    Read(Option<u8>),
    Lost,
    Later(u8),
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
    of_answers(input.joins, &input.relay);
    of_upload_answers(&input.answers);
});

fn message(frame: Frame) -> Result<SessionMessage, DataStream> {
    Ok(match frame {
        Frame::Open => SessionMessage::Open(open()),
        Frame::CloseStdout => SessionMessage::CloseStdout,
        Frame::Names => SessionMessage::Names(vec![Login::new("root").expect("a name")]),
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
    let (mut accepted, mut ends, mut last, mut names) = (0, 0, None, 0);
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
                    ProcessReport::Names(_) => {
                        names += 1;
                        assert_eq!(accepted, 0);
                    }
                    ProcessReport::Refused(_) => {}
                }
            }
        }
        assert!(accepted <= 1 && ends <= 1 && names <= 1);
    }
}

/// Checks what the relay accepts of a device's forward.
fn of_a_forward(kind: ForwardKind, frames: &[Frame]) {
    let mut session = RelayForward::new(kind);
    let (mut accepted, mut addresses, mut ends, mut last, mut names) = (0, 0, 0, None, 0);
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
                    ForwardReport::Names(_) => {
                        names += 1;
                        assert!(accepted == 0 && kind != ForwardKind::Log);
                    }
                    ForwardReport::Refused(_) => {}
                }
            }
        }
        assert!(accepted <= 1 && addresses <= 1 && ends <= 1 && names <= 1);
    }
}

/// Gives the frames of a relay to a device's machine, which says no more than once that its input has ended.
macro_rules! hand_to {
    ($machine:expr, $frames:expr, $input_ends:expr) => {{
        let mut ends = 0;
        for frame in $frames {
            match message(*frame) {
                Err(stream) => drop($machine.handle_data(stream)),
                Ok(message @ SessionMessage::Open(_)) => {
                    assert!($machine.handle_message(message).is_err())
                }
                Ok(message) => drop($machine.handle_message(message)),
            }
            while let Some(action) = $machine.poll_action() {
                ends += u32::from(action == $input_ends);
            }
            assert!(ends <= 1);
        }
    }};
}

/// Checks what a device accepts of its relay on a process's stream, after the `Open`.
fn to_a_process(frames: &[Frame]) {
    let mut session = DeviceProcess::new(&open());
    hand_to!(session, frames, ProcessAction::CloseStdin);
    session.handle_peer_gone(Duration::ZERO, Departure::Lost);
}

/// Checks what a device accepts of its relay on a forward's stream, after the `Open`.
fn to_a_forward(kind: ForwardKind, frames: &[Frame]) {
    let mut forward = DeviceForward::new(kind);
    hand_to!(forward, frames, ForwardAction::CloseInput);
    forward.handle_peer_gone();
}

/// Checks what the relay accepts on a control stream.
fn of_the_agent(messages: &[Control]) {
    let mut order = ControlOrder::default();
    let (mut hellos, mut enrols, mut instances) = (0, 0, 0);
    for message in messages {
        let message = match message {
            Control::Instance => AgentMessage::Instance(Instance {
                id: [1; 16],
                machine: None,
            }),
            Control::Join => hello(Intent::Join),
            Control::Run => hello(Intent::Run),
            Control::Enrol => AgentMessage::Enrol(Enrol {
                secret: TokenSecret([0; 20]),
                name: None,
                labels: vec![],
            }),
            Control::Beat(echo) => AgentMessage::Beat(Beat { echo: *echo }),
            Control::JoinRelay => hello(Intent::JoinRelay),
            Control::EnrolRelay => AgentMessage::EnrolRelay(EnrolRelay {
                secret: TokenSecret([0; 20]),
                public: String::new(),
            }),
        };
        if order.handle(&message).is_ok() {
            match message {
                AgentMessage::Hello(_) => hellos += 1,
                AgentMessage::Enrol(_) | AgentMessage::EnrolRelay(_) => enrols += 1,
                AgentMessage::Beat(_) => assert!(hellos == 1 && enrols == 0),
                AgentMessage::Instance(_) => {
                    instances += 1;
                    assert!(hellos == 0);
                }
            }
        }
        assert!(hellos <= 1 && enrols <= hellos && instances <= 1);
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

/// Checks what an agent takes on a control stream.
fn of_answers(joins: bool, messages: &[FromRelay]) {
    let mut order = RelayOrder::new(match joins {
        true => Intent::Join,
        false => Intent::Run,
    });
    let roster = || SignedRoster {
        body: vec![],
        signature: vec![],
    };
    let membership = || MembershipGrant {
        id: DeviceId([1; 16]),
        name: DeviceName::new("kitchen-cam").expect("a name"),
        roster: roster(),
    };
    // Identity, release key, grant, welcome, refusal.
    let mut taken = [0_u32; 5];
    for message in messages {
        let message = match message {
            FromRelay::Identity => RelayMessage::Identity(roster()),
            FromRelay::ReleaseKey => RelayMessage::ReleaseKey(ReleaseKey {
                id: [1; 8],
                key: PublicKey([2; 32]),
            }),
            FromRelay::Enrolled => RelayMessage::Enrolled(membership()),
            FromRelay::Welcome => RelayMessage::Welcome(Welcome {
                minor: 0,
                generation: Generation(1),
                membership: membership(),
                observed_address: HOME,
            }),
            FromRelay::Refused => RelayMessage::Refused(Refusal::UnknownDevice),
            FromRelay::Roster => RelayMessage::Roster(roster()),
            FromRelay::Drain(millis) => RelayMessage::Drain(*millis),
            FromRelay::Renamed => {
                RelayMessage::Renamed(DeviceName::new("porch-cam").expect("a name"))
            }
            FromRelay::Echo => RelayMessage::Echo,
            FromRelay::EnrolledRelay => RelayMessage::EnrolledRelay(RelayGrant {
                member: [1; 16],
                name: String::new(),
                keys: vec![],
            }),
        };
        let before = (order, taken);
        if order.handle(&message).is_err() {
            assert_eq!(before.0, order);
            continue;
        }
        let [identities, keys, grants, welcomes, refusals] = &mut taken;
        match message {
            RelayMessage::Identity(_) => *identities += 1,
            RelayMessage::ReleaseKey(_) => *keys += 1,
            RelayMessage::Enrolled(_) => *grants += 1,
            RelayMessage::Welcome(_) => *welcomes += 1,
            RelayMessage::Refused(_) => *refusals += 1,
            RelayMessage::EnrolledRelay(_) => panic!("a device got the keys of relays"),
            RelayMessage::Roster(_)
            | RelayMessage::Drain(_)
            | RelayMessage::Renamed(_)
            | RelayMessage::Echo => {
                assert_eq!(*welcomes, 1);
            }
        }
        assert!(*keys <= *identities && *grants <= *identities && *identities <= u32::from(joins));
        assert!(*welcomes <= u32::from(!joins));
        // Nothing comes behind the last.
        let [_, _, grants, _, refusals] = before.1;
        assert!(grants + refusals == 0, "{message:?} after the end");
        assert!(taken.iter().all(|count| *count <= 1));
    }
}

/// The one segment of a spool.
struct OneFile(Vec<u8>);

const SEGMENT: SegmentName = SegmentName {
    session: SESSION,
    index: 0,
};

impl Medium for OneFile {
    type Error = Infallible;

    fn create(&mut self, _: FileName) -> Result<(), Infallible> {
        Ok(())
    }

    fn append(&mut self, _: FileName, _: u64, _: &[u8]) -> Result<(), Infallible> {
        Ok(())
    }

    fn sync(&mut self, _: FileName) -> Result<(), Infallible> {
        Ok(())
    }

    fn rename(&mut self, _: FileName, _: FileName) -> Result<(), Infallible> {
        Ok(())
    }

    fn read(&mut self, _: FileName, at: u64, to: &mut [u8]) -> Result<usize, Infallible> {
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(self.0.len());
        let length = to.len().min(self.0.len() - from);
        to[..length].copy_from_slice(&self.0[from..from + length]);
        Ok(length)
    }

    fn remove(&mut self, _: FileName) -> Result<(), Infallible> {
        Ok(())
    }

    fn list(&mut self) -> Result<Vec<MediumEntry>, Infallible> {
        Ok(vec![MediumEntry {
            name: FileName::Segment(SEGMENT),
            length: self.0.len() as u64,
            modified: 0,
        }])
    }

    fn free(&mut self) -> Result<u64, Infallible> {
        Ok(1 << 40)
    }
}

/// A closed segment of some blocks, and the chain over it.
fn segment() -> (Vec<u8>, SegmentLink) {
    let (key, mut seed) = (
        RecordingSecret::from_seed(&[1; 32]).public(),
        SealSeed::new([2; 32]),
    );
    let mut bytes = Vec::new();
    let first = SegmentLink::first(&SESSION);
    let begun = SegmentWriter::begin(SESSION, 0, first, &key, &mut seed, &mut bytes);
    let mut writer = begun.expect("a segment");
    for _ in 0..4 {
        let event = Event::Data(Stream::Stdout, RecordedBytes(b"text"));
        let record = Record { delta: 1, event };
        writer.push(&record, 0, &mut bytes).expect("a record");
        writer.flush(&mut bytes).expect("a block");
    }
    let link = writer.close(true, &mut bytes).expect("an end");
    (bytes, link)
}

/// Checks what an agent takes of the answers to its uploads: it forgets nothing that the relay has not stored as it is here, and
/// sends no more than the relay has room for.
fn of_upload_answers(answers: &[Answer]) {
    let (bytes, link) = segment();
    let length = bytes.len() as u64;
    let config = SpoolConfig::default();
    let Ok((mut spool, _)) = Spool::recover(config, &mut OneFile(bytes)) else {
        return;
    };
    let mut uploader = Uploader::new(UploadConfig {
        policy: UploadPolicy::Always,
        rate: None,
        daily: None,
    });
    let mut now = Duration::ZERO;
    uploader.handle_tunnel(now);
    uploader.handle_connected(MINOR_VERSION);
    uploader.handle_recovered(now, SegmentLost::Missing);
    let (mut offered, mut reading, mut held, mut given_up) = (false, false, 0, false);
    let (mut listing, mut listed, mut is_later) = (false, false, false);
    for answer in answers {
        let session = |ours: bool| match ours {
            true => SESSION,
            false => SessionId([9; 16]),
        };
        let of = |ours, offset, hash| SegmentHeld {
            session: session(ours),
            segment: 0,
            offset,
            hash,
        };
        let answer = match answer {
            Answer::Noted(ours) => UploadAnswer::Noted(session(*ours)),
            Answer::Listed(part) => {
                listed |= listing && *part == 0;
                UploadAnswer::Listed((*part).into())
            }
            Answer::Have(ours, offset) => {
                if *ours && offered {
                    held = u64::from(*offset).min(length);
                }
                UploadAnswer::Have(of(*ours, (*offset).into(), SegmentLink([0; 32])))
            }
            Answer::Stored(ours, same) => {
                given_up |= *ours && (*same || offered);
                let hash = if *same { link } else { SegmentLink([3; 32]) };
                UploadAnswer::Stored(of(*ours, length, hash))
            }
            Answer::Refused(ours, why) => {
                let why = match why % 3 {
                    0 => SegmentRefused::Unavailable,
                    1 => SegmentRefused::Tampered,
                    _ => SegmentRefused::UnknownSession,
                };
                given_up |= *ours && why != SegmentRefused::Unavailable;
                UploadAnswer::Refused(SegmentRefusal {
                    session: session(*ours),
                    segment: 0,
                    why,
                })
            }
            Answer::Poll => {
                match uploader.poll_action(now, None, &spool) {
                    Some(UploadAction::Send(UploadMessage::Offer(offer))) => {
                        assert!(!given_up && !offered, "offered again");
                        assert_eq!((offer.length, offer.hash), (length, link));
                        (offered, held) = (true, 0);
                    }
                    Some(UploadAction::Read {
                        segment,
                        at,
                        length: most,
                    }) => {
                        assert!(offered && !reading && segment == SEGMENT);
                        let end = at + most as u64;
                        assert!(end <= length && end <= held + UPLOAD_IN_FLIGHT);
                        reading = true;
                    }
                    Some(UploadAction::Send(UploadMessage::Inventory(part))) => {
                        // One part, of one segment, until it was taken; and again on a later tunnel.
                        assert!(!listing && part.part == 0 && part.last);
                        assert!(!listed || is_later, "listed again");
                        listing = true;
                    }
                    Some(UploadAction::Send(_)) | None => {}
                }
                continue;
            }
            Answer::Read(read) => {
                let read = match read {
                    Some(count) => Ok(vec![0; usize::from(*count)]),
                    None => Err(SegmentLost::Missing),
                };
                let lost = reading && !matches!(&read, Ok(bytes) if !bytes.is_empty());
                let sent = uploader.handle_read(now, read, &mut spool);
                assert!(sent.is_none() || reading, "bytes of no read");
                given_up |= lost;
                offered &= !lost;
                reading = false;
                continue;
            }
            Answer::Lost => {
                uploader.handle_lost();
                uploader.handle_tunnel(now);
                uploader.handle_connected(MINOR_VERSION);
                (offered, reading, listing, is_later) = (false, false, false, true);
                continue;
            }
            Answer::Later(seconds) => {
                now += Duration::from_secs((*seconds).into());
                continue;
            }
        };
        uploader.handle_answer(now, &answer, &mut spool);
        let ends = match &answer {
            UploadAnswer::Stored(held) => held.session == SESSION,
            UploadAnswer::Refused(refusal) => refusal.session == SESSION,
            UploadAnswer::Noted(_) | UploadAnswer::Listed(_) | UploadAnswer::Have(_) => false,
        };
        if ends {
            (offered, reading) = (false, false);
        }
        assert_eq!(spool.offers().next().is_none(), given_up, "{answer:?}");
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
