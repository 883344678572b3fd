//! Golden bytes of every message and frame. Devices in the field speak these bytes for years: a test here
//! that fails means a change that they would not understand, never a test to be mended.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::net::{Ipv6Addr, SocketAddr};

use super::*;
use crate::codec::control::{self, ControlMessage, ControlReader};
use crate::codec::frame::{DataStream, FramePiece, FrameReader, SessionMessage, data_header};
use crate::forward::{AddressPolicy, PathPolicy};
use crate::identity::release::ReleaseKey;
use crate::identity::roster::{RelayEntry, Roster, SignedRoster};
use crate::identity::token::Token;
use crate::identity::token::TokenSecret;
use crate::ids::{ClusterFingerprint, PublicKey};
use crate::ids::{
    DeviceId, DeviceName, Generation, LabelKey, LabelValue, Login, SessionId, UserName,
};
use crate::recording::chain::ChainKey;
use crate::recording::record::EndReason;
use crate::recording::seal::RecordingKey;
use crate::recording::segment::SegmentLink;

/// Checks that each message encodes to its bytes and decodes from them, and that no variant is left out.
#[track_caller]
fn control<T: ControlMessage + PartialEq + Debug>(messages: Vec<(T, &str)>) {
    let mut variants = vec![];
    for (message, golden) in messages {
        let bytes = control::encode(&message).unwrap();
        assert_eq!(hex(&bytes), plain(golden), "{message:?}");
        variants.push(u32::from(bytes[2]));
        let read = ControlReader::default().read(&mut bytes.as_slice());
        assert_eq!(read, Ok(Some(message)));
    }
    variants.dedup();
    let known: Vec<u32> = (0..T::KNOWN).collect();
    assert_eq!(variants, known, "every variant, in its order");
}

/// Checks the same of a session's frame.
#[track_caller]
fn frame(message: SessionMessage, golden: &str) {
    let bytes = message.encode().unwrap();
    assert_eq!(hex(&bytes), plain(golden), "{message:?}");
    let read = FrameReader::default().read(&mut bytes.as_slice());
    assert_eq!(read, Ok(Some(FramePiece::Message(message))));
}

#[test]
fn what_an_agent_says() {
    let enrol = Enrol {
        secret: TokenSecret([0x5e; 20]),
        name: Some(device_name()),
        labels: vec![(
            LabelKey::new("role").unwrap(),
            LabelValue::new("camera").unwrap(),
        )],
    };
    let unnamed = Enrol {
        name: None,
        labels: vec![],
        ..enrol.clone()
    };
    control(vec![
        (
            AgentMessage::Hello(hello(Intent::Join, None)),
            "0012 00 00 00 05 302e312e30 05 61726d7637 19 01 00",
        ),
        (
            AgentMessage::Hello(hello(Intent::Run, Some(v4()))),
            "001a 00 00 01 05 302e312e30 05 61726d7637 19 01 01 00 c0000207 dec602",
        ),
        (
            AgentMessage::Hello(hello(Intent::Run, Some(v6()))),
            "0024 00 00 01 05 302e312e30 05 61726d7637 19 01 01 01 20010db8000000000000000000000001 16",
        ),
        (
            AgentMessage::Hello(hello(Intent::JoinRelay, None)),
            "0012 00 00 02 05 302e312e30 05 61726d7637 19 01 00",
        ),
        (
            AgentMessage::Enrol(enrol),
            "0027 01 5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e 01 03 63616d 01 04 726f6c65 06 63616d657261",
        ),
        (
            AgentMessage::Enrol(unnamed),
            "0017 01 5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e 00 00",
        ),
        (AgentMessage::Beat(Beat { echo: false }), "0002 02 00"),
        (AgentMessage::Beat(Beat { echo: true }), "0002 02 01"),
        (
            AgentMessage::Instance(Instance {
                id: [0xa1; 16],
                machine: None,
            }),
            "0012 03 a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1 00",
        ),
        (
            AgentMessage::Instance(Instance {
                id: [0xa1; 16],
                machine: Some([0xa2; 16]),
            }),
            "0022 03 a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1 01 a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2",
        ),
        (
            AgentMessage::EnrolRelay(EnrolRelay {
                secret: TokenSecret([0x5e; 20]),
                public: "b.org".to_string(),
            }),
            "001b 04 5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e 05 622e6f7267",
        ),
    ]);
}

#[test]
fn what_a_relay_says() {
    let refused = |why: Refusal| RelayMessage::Refused(why);
    let welcome = Welcome {
        minor: 0,
        generation: Generation(300),
        membership: membership(),
        observed_address: v4(),
    };
    control(vec![
        (RelayMessage::Identity(roster()), "0006 00 02 b0b1 01 51"),
        (
            RelayMessage::Enrolled(membership()),
            "001a 01 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 03 63616d 02 b0b1 01 51",
        ),
        (
            RelayMessage::Welcome(welcome),
            "0025 02 00 ac02 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 03 63616d 02 b0b1 01 51 00 c0000207 dec602",
        ),
        (refused(Refusal::UnknownDevice), "0002 03 00"),
        (refused(Refusal::Revoked), "0002 03 01"),
        (refused(Refusal::TokenUnknown), "0002 03 02"),
        (
            refused(Refusal::TokenExpired { ago_secs: 720 }),
            "0004 03 03 d005",
        ),
        (refused(Refusal::TokenUsedUp), "0002 03 04"),
        (
            refused(Refusal::NameTaken {
                name: device_name(),
                holder: DeviceId([0xd1; 16]),
            }),
            "0016 03 05 03 63616d d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1",
        ),
        (refused(Refusal::Version { oldest: 2 }), "0003 03 06 02"),
        (refused(Refusal::Unavailable), "0002 03 07"),
        (
            refused(Refusal::Protocol("no".to_string())),
            "0005 03 08 02 6e6f",
        ),
        (
            refused(Refusal::Cloned { holder: v4() }),
            "000a 03 09 00 c0000207 dec602",
        ),
        (RelayMessage::Roster(roster()), "0006 04 02 b0b1 01 51"),
        (RelayMessage::Drain(500), "0003 05 f403"),
        (RelayMessage::Echo, "0001 06"),
        (
            RelayMessage::ReleaseKey(ReleaseKey {
                id: [0xe1; 8],
                key: PublicKey([0xe2; 32]),
            }),
            "0029 07 e1e1e1e1e1e1e1e1 e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2",
        ),
        (RelayMessage::Renamed(device_name()), "0005 08 03 63616d"),
        (
            RelayMessage::EnrolledRelay(RelayGrant {
                member: [0x6d; 16],
                name: "b.org".to_string(),
                keys: vec![("k".to_string(), vec![1, 2])],
            }),
            "001d 09 6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d 05 622e6f7267 01 01 6b 02 0102",
        ),
    ]);
}

#[test]
fn what_opens_a_session() {
    let shell = Open {
        session: SessionId([0x5a; 16]),
        user: UserName::new("alice").unwrap(),
        login: Login::new("pi").unwrap(),
        request: ProcessRequest::Shell.into(),
        pty: Some(Pty {
            term: "xterm".to_string(),
            size: WindowSize::clamped(80, 24, 640, 480),
            modes: vec![(1, 3), (128, 38_400)],
        }),
        env: vec![("LANG".to_string(), "C".to_string())],
        client: v4(),
        server: v6(),
        original_command: None,
        recording: None,
        terms: SessionTerms::default(),
        forward_log: None,
    };
    let exec = Open {
        request: ProcessRequest::Exec(vec![b'l', b's', 0xff]).into(),
        pty: None,
        env: vec![],
        ..shell.clone()
    };
    let sftp = Open {
        request: ProcessRequest::Subsystem("sftp".to_string()).into(),
        ..exec.clone()
    };
    let forced = Open {
        original_command: Some(vec![b'i', b'd']),
        ..exec.clone()
    };
    frame(
        SessionMessage::Open(shell),
        "00 000051 5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a 05 616c696365 02 7069 00 01 05 787465726d 50 18 8005 e003 02 01 03 80 80ac02 01 04 4c414e47 01 43 00 c0000207 dec602 01 20010db8000000000000000000000001 16 00",
    );
    frame(
        SessionMessage::Open(exec),
        "00 00003b 5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a 05 616c696365 02 7069 01 03 6c73ff 00 00 00 c0000207 dec602 01 20010db8000000000000000000000001 16 00",
    );
    frame(
        SessionMessage::Open(sftp),
        "00 00003c 5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a 05 616c696365 02 7069 02 04 73667470 00 00 00 c0000207 dec602 01 20010db8000000000000000000000001 16 00",
    );
    frame(
        SessionMessage::Open(forced),
        "00 00003e 5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a 05 616c696365 02 7069 01 03 6c73ff 00 00 00 c0000207 dec602 01 20010db8000000000000000000000001 16 01 02 6964",
    );
}

#[test]
fn what_opens_a_session_that_is_recorded() {
    let session = |recording| Open {
        session: SessionId([0x5a; 16]),
        user: UserName::new("alice").unwrap(),
        login: Login::new("pi").unwrap(),
        request: ProcessRequest::Shell.into(),
        pty: None,
        env: vec![],
        client: v4(),
        server: v4(),
        original_command: None,
        recording,
        terms: SessionTerms::default(),
        forward_log: None,
    };
    let terms = |mode, stdin, recover| {
        Some(RecordingTerms {
            mode,
            stdin,
            key: ChainKey([0xcc; 32]),
            recover,
        })
    };
    let key = "cc".repeat(32);
    let base = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a 05 616c696365 02 7069 00 00 00 00 c0000207 dec602 00 c0000207 dec602 00";
    frame(
        SessionMessage::Open(session(None)),
        &format!("00 00002d {base}"),
    );
    for (recording, tail) in [
        (
            terms(RecordingMode::Strict, StdinMode::Redact, false),
            format!("00 00 {key} 00"),
        ),
        (
            terms(RecordingMode::BestEffort, StdinMode::Full, true),
            format!("01 01 {key} 01"),
        ),
        (
            terms(RecordingMode::Off, StdinMode::Off, false),
            format!("02 02 {key} 00"),
        ),
    ] {
        frame(
            SessionMessage::Open(session(recording)),
            &format!("00 000050 {base} {tail}"),
        );
    }
}

#[test]
fn what_opens_a_session_that_is_held_to_something() {
    let session = |recording, sftp| Open {
        session: SessionId([0x5a; 16]),
        user: UserName::new("alice").unwrap(),
        login: Login::new("pi").unwrap(),
        request: ProcessRequest::Shell.into(),
        pty: None,
        env: vec![],
        client: v4(),
        server: v4(),
        original_command: None,
        recording,
        terms: SessionTerms {
            sftp: Some(sftp),
            agent: true,
            ..SessionTerms::default()
        },
        forward_log: None,
    };
    let base = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a 05 616c696365 02 7069 00 00 00 00 c0000207 dec602 00 c0000207 dec602 00";
    let within = SftpTerms {
        read_only: false,
        root: Some("/srv".to_string()),
    };
    let recording = RecordingTerms {
        mode: RecordingMode::Strict,
        stdin: StdinMode::Redact,
        key: ChainKey([0xcc; 32]),
        recover: false,
    };
    let key = "cc".repeat(32);
    frame(
        SessionMessage::Open(session(Some(recording), within)),
        &format!("00 000059 {base} 00 00 {key} 00 01 00 01 04 2f737276 01"),
    );
    // Where nothing is recorded, a placeholder is sent.
    let read_only = SftpTerms {
        read_only: true,
        root: None,
    };
    let nothing = "00".repeat(32);
    frame(
        SessionMessage::Open(session(None, read_only)),
        &format!("00 000054 {base} 02 02 {nothing} 00 01 01 00 01"),
    );
    // What minor version 5 brought comes last, behind parts that say nothing.
    let denied = SessionTerms {
        denied_logins: vec![Login::new("root").unwrap()],
        ..SessionTerms::default()
    };
    let denied = Open {
        terms: denied,
        ..session(None, SftpTerms::default())
    };
    let no_log = format!("{} 00 02", "00".repeat(16));
    frame(
        SessionMessage::Open(denied),
        &format!("00 00006c {base} 02 02 {nothing} 00 00 00 {no_log} 01 04 726f6f74 00 00"),
    );
    for (on_disconnect, tail) in [
        (OnDisconnect::Hup, "00 01 00 00"),
        (OnDisconnect::Leave, "00 01 01 00"),
        (OnDisconnect::Kill, "00 01 02 00"),
    ] {
        let terms = SessionTerms {
            on_disconnect: Some(on_disconnect),
            ..SessionTerms::default()
        };
        let open = Open {
            terms,
            ..session(None, SftpTerms::default())
        };
        frame(
            SessionMessage::Open(open),
            &format!("00 000068 {base} 02 02 {nothing} 00 00 00 {no_log} {tail}"),
        );
    }
    let bounded = SessionTerms {
        content_max: Some(300),
        ..SessionTerms::default()
    };
    let bounded = Open {
        terms: bounded,
        ..session(None, SftpTerms::default())
    };
    frame(
        SessionMessage::Open(bounded),
        &format!("00 000069 {base} 02 02 {nothing} 00 00 00 {no_log} 00 00 01 ac02"),
    );
}

#[test]
fn what_an_agent_says_of_recordings() {
    let session = SessionId([0x5a; 16]);
    let finished = |why| SessionFinished {
        session,
        why,
        segments: 300,
        hash: SegmentLink([0x11; 32]),
    };
    let gone = |why| {
        UploadMessage::Gone(SegmentGone {
            session,
            segment: 2,
            why,
        })
    };
    let id = "5a".repeat(16);
    let hash = "11".repeat(32);
    let offer = OfferedSegment {
        session,
        segment: 2,
        length: 300,
        hash: SegmentLink([0x11; 32]),
        closed: true,
    };
    let bytes = SegmentBytes {
        offset: 300,
        bytes: vec![1, 2, 3],
    };
    control(vec![
        (
            UploadMessage::Finished(finished(Some(EndReason::PowerLoss))),
            &format!("0035 00 {id} 01 06 ac02 {hash}"),
        ),
        (
            UploadMessage::Finished(finished(None)),
            &format!("0034 00 {id} 00 ac02 {hash}"),
        ),
        (gone(SegmentLost::Missing), &format!("0013 01 {id} 02 00")),
        (gone(SegmentLost::Corrupt), &format!("0013 01 {id} 02 01")),
        (
            gone(SegmentLost::Unreadable),
            &format!("0013 01 {id} 02 02"),
        ),
        (gone(SegmentLost::NoRoom), &format!("0013 01 {id} 02 03")),
        (gone(SegmentLost::PowerLoss), &format!("0013 01 {id} 02 04")),
        (
            UploadMessage::Offer(offer),
            &format!("0035 02 {id} 02 ac02 {hash} 01"),
        ),
        (UploadMessage::Bytes(bytes), "0007 03 ac02 03 010203"),
        (
            UploadMessage::Inventory(InventoryPart {
                part: 1,
                age: 300,
                why: SegmentLost::PowerLoss,
                sessions: vec![session],
                last: true,
            }),
            &format!("0017 04 01 ac02 04 01 {id} 01"),
        ),
        (
            UploadMessage::Inventory(InventoryPart {
                part: 0,
                age: 0,
                why: SegmentLost::Missing,
                sessions: vec![],
                last: false,
            }),
            "0006 04 00 00 00 00 00",
        ),
    ]);
}

#[test]
fn what_a_relay_says_of_recordings() {
    let session = SessionId([0x5a; 16]);
    let held = SegmentHeld {
        session,
        segment: 2,
        offset: 300,
        hash: SegmentLink([0x11; 32]),
    };
    let refused = |why| {
        UploadAnswer::Refused(SegmentRefusal {
            session,
            segment: 2,
            why,
        })
    };
    let id = "5a".repeat(16);
    let hash = "11".repeat(32);
    control(vec![
        (UploadAnswer::Noted(session), &format!("0011 00 {id}")),
        (
            UploadAnswer::Have(held.clone()),
            &format!("0034 01 {id} 02 ac02 {hash}"),
        ),
        (
            UploadAnswer::Stored(held),
            &format!("0034 02 {id} 02 ac02 {hash}"),
        ),
        (
            refused(SegmentRefused::Unavailable),
            &format!("0013 03 {id} 02 00"),
        ),
        (
            refused(SegmentRefused::Tampered),
            &format!("0013 03 {id} 02 01"),
        ),
        (
            refused(SegmentRefused::UnknownSession),
            &format!("0013 03 {id} 02 02"),
        ),
        (UploadAnswer::Listed(300), "0003 04 ac02"),
    ]);
}

#[test]
fn what_a_session_says_beside_its_data() {
    let refused = |why: SessionRefusal| SessionMessage::Refused(why);
    let size = WindowSize::clamped(300, 100, 0, 0);
    frame(SessionMessage::Accepted, "01 000000");
    frame(refused(SessionRefusal::NoAccount), "02 000001 00");
    frame(refused(SessionRefusal::AccountLocked), "02 000001 01");
    frame(refused(SessionRefusal::NoShell), "02 000001 02");
    frame(
        refused(SessionRefusal::NoLogin("hi".to_string())),
        "02 000004 03 02 6869",
    );
    let only = SessionRefusal::OnlyServes(Login::new("pi").unwrap());
    frame(refused(only), "02 000004 04 02 7069");
    frame(
        refused(SessionRefusal::NoSubsystem("x".to_string())),
        "02 000003 05 01 78",
    );
    frame(
        refused(SessionRefusal::TooManySessions(64)),
        "02 000002 06 40",
    );
    frame(
        refused(SessionRefusal::Failed("no".to_string())),
        "02 000004 07 02 6e6f",
    );
    frame(
        refused(SessionRefusal::RecordingUnavailable("no".to_string())),
        "02 000004 08 02 6e6f",
    );
    frame(
        refused(SessionRefusal::NotPermitted(v4())),
        "02 000009 09 00 c0000207 dec602",
    );
    frame(
        refused(SessionRefusal::Unreachable("no".to_string())),
        "02 000004 0a 02 6e6f",
    );
    frame(
        refused(SessionRefusal::TooManyForwards(512)),
        "02 000003 0b 8004",
    );
    frame(
        refused(SessionRefusal::NotPermittedPath("/a".to_string())),
        "02 000004 0c 02 2f61",
    );
    frame(
        refused(SessionRefusal::DeniedAs(Login::new("root").unwrap())),
        "02 000006 0d 04 726f6f74",
    );
    frame(SessionMessage::Eof, "06 000000");
    frame(SessionMessage::Resize(size), "07 000005 ac02 64 00 00");
    frame(SessionMessage::Exit(Exit::Status(0)), "09 000002 00 00");
    frame(SessionMessage::Exit(Exit::Status(255)), "09 000003 00 ff01");
    let killed = Exit::Signal {
        signal: Signal::Kill,
        core_dumped: false,
    };
    frame(SessionMessage::Exit(killed), "09 000003 01 06 00");
}

#[test]
fn what_opens_a_forward() {
    let forward = |request: ForwardRequest| Open {
        session: SessionId([0x5a; 16]),
        user: UserName::new("alice").unwrap(),
        login: Login::new("pi").unwrap(),
        request: request.into(),
        pty: None,
        env: vec![],
        client: v4(),
        server: v4(),
        original_command: None,
        recording: None,
        terms: SessionTerms::default(),
        forward_log: None,
    };
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let to = |policy| {
        ForwardRequest::Connect(Connect {
            host: "db".to_string(),
            port: 5432,
            policy,
        })
    };
    let (head, tail) = (
        "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a 05 616c696365 02 7069",
        "00 00 00 c0000207 dec602 00 c0000207 dec602 00",
    );
    frame(
        SessionMessage::Open(forward(to(AddressPolicy::default()))),
        &format!("00 000034 {head} 03 02 6462 b82a 00 00 {tail}"),
    );
    let policy = AddressPolicy {
        allow: Some(rules(&[
            "*:*",
            "localhost:80",
            "10.0.0.0/8:1-2",
            "[fd00::/8]:3",
        ])),
        deny: rules(&["db:4", "*.x:5"]),
    };
    let allow = "04 00 00ffff03 01 5050 02 00 0a000000 08 0102 02 01 fd000000000000000000000000000000 08 0303";
    let deny = "02 03 02 6462 0404 04 01 78 0505";
    frame(
        SessionMessage::Open(forward(to(policy))),
        &format!("00 000066 {head} 03 02 6462 b82a 01 {allow} {deny} {tail}"),
    );
    let at = ForwardRequest::Listen(Listen {
        host: String::new(),
        port: 0,
        policy: AddressPolicy::default(),
    });
    frame(
        SessionMessage::Open(forward(at)),
        &format!("00 000031 {head} 04 00 00 00 00 {tail}"),
    );
    let take = ForwardRequest::Take(Take {
        listener: SessionId([0x1a; 16]),
        number: 300,
    });
    let listener = "1a".repeat(16);
    frame(
        SessionMessage::Open(forward(take)),
        &format!("00 00003f {head} 05 {listener} ac02 {tail}"),
    );
    let socket = |allow| SocketPath {
        path: "/run/a".to_string(),
        policy: PathPolicy { allow },
    };
    frame(
        SessionMessage::Open(forward(ForwardRequest::ConnectPath(socket(None)))),
        &format!("00 000035 {head} 06 06 2f72756e2f61 00 {tail}"),
    );
    let rules = ["*", "/b", "/c/*"].map(|rule| rule.parse().unwrap());
    frame(
        SessionMessage::Open(forward(ForwardRequest::ListenPath(socket(Some(
            rules.into(),
        ))))),
        &format!("00 00003f {head} 07 06 2f72756e2f61 01 03 00 01 02 2f62 02 02 2f63 {tail}"),
    );
    frame(
        SessionMessage::Open(forward(ForwardRequest::Log)),
        &format!("00 00002d {head} 08 {tail}"),
    );
    // The log follows two parts that say nothing.
    let logged = |mode| Open {
        forward_log: Some(ForwardLogRef {
            session: SessionId([0x1a; 16]),
            number: 300,
            mode,
        }),
        ..forward(ForwardRequest::ConnectPath(socket(None)))
    };
    let nothing = "00".repeat(32);
    for (mode, byte) in [
        (RecordingMode::Strict, "00"),
        (RecordingMode::BestEffort, "01"),
    ] {
        frame(
            SessionMessage::Open(logged(mode)),
            &format!(
                "00 00006d {head} 06 06 2f72756e2f61 00 {tail} 02 02 {nothing} 00 00 00 {listener} ac02 {byte}"
            ),
        );
    }
    let incoming = Incoming {
        number: 300,
        peer: v4(),
    };
    frame(
        SessionMessage::Incoming(incoming),
        "0b 00000a ac02 00 c0000207 dec602",
    );
    frame(
        SessionMessage::Address(v4()),
        "0a 000008 00 c0000207 dec602",
    );
    let names = ["root", "pi"].map(|name| Login::new(name).unwrap());
    frame(
        SessionMessage::Names(names.into()),
        "0c 000009 02 04 726f6f74 02 7069",
    );
    frame(SessionMessage::CloseStdout, "0d 000000");
}

#[test]
fn every_signal() {
    let signals = [
        Signal::Abrt,
        Signal::Alrm,
        Signal::Fpe,
        Signal::Hup,
        Signal::Ill,
        Signal::Int,
        Signal::Kill,
        Signal::Pipe,
        Signal::Quit,
        Signal::Segv,
        Signal::Term,
        Signal::Usr1,
        Signal::Usr2,
        Signal::Winch,
        Signal::Bus,
        Signal::Sys,
        Signal::Trap,
        Signal::Xcpu,
        Signal::Xfsz,
    ];
    for (number, signal) in signals.into_iter().enumerate() {
        let golden = format!("08 000001 {number:02x}");
        frame(SessionMessage::Signal(signal), &golden);
    }
    frame(SessionMessage::Signal(Signal::Other(64)), "08 000002 13 40");
}

#[test]
fn data_frames() {
    let header = |stream, length| hex(&data_header(stream, length));
    assert_eq!(header(DataStream::Stdin, 1), plain("03 000001"));
    assert_eq!(header(DataStream::Stdout, 0x1234), plain("04 001234"));
    assert_eq!(header(DataStream::Stderr, 0x4_0000), plain("05 040000"));
    let mut input: &[u8] = &[4, 0, 0, 2, b'h', b'i'];
    let piece = FrameReader::default().read(&mut input);
    assert_eq!(piece, Ok(Some(FramePiece::Data(DataStream::Stdout, b"hi"))));
}

#[test]
fn a_roster() {
    let roster = Roster {
        cluster: PublicKey([0xc1; 32]),
        epoch: 300,
        relays: vec![RelayEntry {
            address: "relay:4433".to_string(),
            key: PublicKey([0x4e; 32]),
        }],
        recording: None,
    };
    let sealed = roster.seal(|bytes| {
        let context = "686f6c6466617374 20 726f73746572 20 7631 00";
        assert!(hex(bytes).starts_with(&plain(context)));
        [0x51; 64]
    });
    assert_eq!(
        hex(&sealed.body),
        plain(
            "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1 ac02 01 0a 72656c61793a34343333 4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e"
        )
    );
    assert_eq!(sealed.open(|_, _, _| true), Ok(roster.clone()));

    let recording = Roster {
        recording: Some(RecordingKey([0xec; 32])),
        ..roster
    };
    let with_key = recording.seal(|_| [0x51; 64]);
    assert_eq!(hex(&with_key.body), hex(&sealed.body) + &"ec".repeat(32));
    assert_eq!(with_key.open(|_, _, _| true), Ok(recording));
}

#[test]
fn a_token() {
    let token = Token {
        address: "relay:4433".to_string(),
        fingerprint: ClusterFingerprint([0xf1; 32]),
        secret: TokenSecret([0x5e; 20]),
    };
    assert_eq!(
        token.expose(),
        "hf1.relay:4433.8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fFeXl5eXl5eXl5eXl5eXl5eXl5eXg"
    );
}

#[test]
fn why_a_connection_is_closed() {
    let codes = [
        CloseCode::Done,
        CloseCode::Replaced,
        CloseCode::Revoked,
        CloseCode::Protocol,
        CloseCode::Stopping,
        CloseCode::Busy,
        CloseCode::Upgrading,
        CloseCode::NoMember,
    ];
    let numbers = codes.map(|code| code as u32);
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7]);
}

fn hello(intent: Intent, local_address: Option<SocketAddr>) -> Hello {
    Hello {
        minor: 0,
        intent,
        agent_version: "0.1.0".to_string(),
        target: "armv7".to_string(),
        keepalive_secs: 25,
        // A Raspberry Pi that has not heard of the time yet is behind 1970 as soon as it is set back.
        clock: -1,
        local_address,
    }
}

/// Returns a placeholder for a roster, whose own golden bytes are in [`a_roster`].
fn roster() -> SignedRoster {
    SignedRoster {
        body: vec![0xb0, 0xb1],
        signature: vec![0x51],
    }
}

fn membership() -> MembershipGrant {
    MembershipGrant {
        id: DeviceId([0xd1; 16]),
        name: device_name(),
        roster: roster(),
    }
}

fn device_name() -> DeviceName {
    DeviceName::new("cam").unwrap()
}

fn v4() -> SocketAddr {
    "192.0.2.7:41822".parse().unwrap()
}

fn v6() -> SocketAddr {
    SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 22))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns golden bytes without the spaces that make them readable.
fn plain(golden: &str) -> String {
    golden.split_whitespace().collect()
}
