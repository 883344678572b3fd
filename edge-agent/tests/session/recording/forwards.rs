//! Forwards that are recorded in one shared log: where each leads, what has passed, and what happens without room.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::forward::AddressPolicy;
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::record::EndReason;
use holdfast_protocol::wire::{
    Connect, Exit, ForwardLogRef, ForwardRequest, Listen, Open, RecordingMode, SessionRefusal, Take,
};

use super::{Played, recorded, with_least_spool};
use crate::forward::own_login;
use crate::harness::{Client, Heard, Pair, exec, open, run};

/// Reads to the end, and says how much it was, to everybody who comes.
fn counting() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut all = Vec::new();
                if stream.read_to_end(&mut all).is_ok() {
                    let _ = stream.write_all(format!("{} bytes", all.len()).as_bytes());
                }
            });
        }
    });
    port
}

/// The recording `number` of forwards, on its stream.
async fn standing(pair: &Pair, number: u8, mode: RecordingMode) -> Client {
    let open = recorded(number, mode, open(ForwardRequest::Log));
    let mut client = pair.open(open).await;
    assert_eq!(client.hear().await, Heard::Accepted);
    client
}

/// `work`, recorded in log `number` as its forward `id`.
fn logged(number: u8, id: u32, mode: RecordingMode, request: ForwardRequest) -> Open {
    Open {
        login: own_login(),
        forward_log: Some(ForwardLogRef {
            session: SessionId([number; 16]),
            number: id,
            mode,
        }),
        ..open(request)
    }
}

fn connect(port: u16) -> ForwardRequest {
    ForwardRequest::Connect(Connect {
        host: "localhost".to_owned(),
        port,
        policy: AddressPolicy::default(),
    })
}

async fn dialled(pair: &Pair, open: Open) -> Client {
    let mut client = pair.open(open).await;
    assert_eq!(client.hear().await, Heard::Accepted);
    assert!(matches!(client.hear().await, Heard::Address(_)));
    client
}

/// Resolves when so many forwards stand.
async fn forwards(pair: &Pair, count: u32) {
    loop {
        let changed = pair.sessions.changed();
        if pair.sessions.forwards() == count {
            return;
        }
        changed.await;
    }
}

/// Resolves when the device has ended this recording.
async fn ended(record: &mut Client) {
    let mut rest = [0; 64];
    while let Ok(Some(_)) = record.ear.recv.read(&mut rest).await {}
}

#[track_caller]
fn assert_logged(played: &Played, wanted: &[&str]) {
    let all = played.others.join("\n");
    let mut rest = all.as_str();
    for wanted in wanted {
        let at = rest.find(wanted);
        let at = at.unwrap_or_else(|| panic!("no {wanted:?}, in this order, in\n{all}"));
        rest = &rest[at + wanted.len()..];
    }
}

#[test]
fn forwards_of_one_connection_share_a_log() {
    run(async {
        let pair = Pair::new().await;
        let strict = RecordingMode::Strict;
        let mut record = standing(&pair, 1, strict).await;
        assert_eq!((pair.sessions.live(), pair.sessions.forwards()), (0, 0));
        let port = counting();
        // One that ends in good order, and one that the relay breaks off.
        let mut first = dialled(&pair, logged(1, 7, strict, connect(port))).await;
        let second = dialled(&pair, logged(1, 8, strict, connect(port))).await;
        first.write(&[b'x'; 100_000]).await;
        first.say(SessionMessage::Eof).await;
        let outcome = first.outcome().await;
        assert_eq!(outcome.stdout(), "100000 bytes");
        assert_eq!(outcome.exit, Some(Exit::Status(0)));
        second.vanish();
        forwards(&pair, 0).await;
        // What comes to a port of the device.
        let listen = ForwardRequest::Listen(Listen {
            host: "127.0.0.1".to_owned(),
            port: 0,
            policy: AddressPolicy {
                allow: Some(vec!["localhost:*".parse().unwrap()]),
                deny: vec![],
            },
        });
        let listener = logged(1, 9, strict, listen);
        let session = listener.session;
        let mut ear = pair.open(listener).await;
        assert_eq!(ear.hear().await, Heard::Accepted);
        let Heard::Address(at) = ear.hear().await else {
            panic!("no address")
        };
        let mut comes = TcpStream::connect(at).unwrap();
        comes.write_all(b"abc").unwrap();
        comes.shutdown(Shutdown::Write).unwrap();
        let peer = comes.local_addr().unwrap();
        assert!(matches!(ear.hear().await, Heard::Incoming(_)));
        let take = ForwardRequest::Take(Take {
            listener: session,
            number: 0,
        });
        let mut taken = dialled(&pair, logged(1, 10, strict, take)).await;
        taken.until("abc").await;
        taken.say(SessionMessage::Eof).await;
        taken.outcome().await;
        // The recording ends while the port is open: it waits for its end, as the relay does.
        record.voice.send.finish().unwrap();
        ear.vanish();
        forwards(&pair, 0).await;
        ended(&mut record).await;
        let played = Played::complete(&pair, 1, EndReason::ClientGone).await;
        let to =
            format!("id: 7, to: \"localhost:{port}\", from: \"\", direction: Out, address: Some(");
        let listens = format!(
            "id: 9, to: \"127.0.0.1:0\", from: \"\", direction: Listen, address: Some({at})"
        );
        let came =
            format!("id: 10, to: \"{at}\", from: \"{peer}\", direction: In, address: Some({at})");
        assert_logged(
            &played,
            &[
                "start kitchen-cam alice",
                &to,
                "id: 8,",
                "id: 7, sent: 100000, received: 12, why: Closed",
                "id: 8, sent: 0, received: 0, why: ClientGone",
                &listens,
                &came,
                "id: 10, sent: 0, received: 3, why: Closed",
                "id: 9, sent: 0, received: 0, why: ClientGone",
                "end ClientGone",
            ],
        );
        assert_eq!(played.others.len(), 10, "{:?}", played.others);
        assert!(played.data.iter().all(Vec::is_empty), "data of a forward");
    });
}

#[test]
fn without_room_strict_forwards_are_refused_and_ends_recorded() {
    run(async {
        let pair = with_least_spool().await;
        let strict = RecordingMode::Strict;
        let mut record = standing(&pair, 1, strict).await;
        let mut loose = standing(&pair, 2, RecordingMode::BestEffort).await;
        let port = counting();
        let mut first = dialled(&pair, logged(1, 1, strict, connect(port))).await;
        first.write(b"hello").await;
        // Sessions take what room there is.
        let mut number = 10;
        for size in [6_000_000, 20_000, 2_000] {
            let line = format!("head -c {size} /dev/urandom");
            let mut room = true;
            while room {
                number += 1;
                let outcome = pair.to_end(recorded(number, strict, exec(&line))).await;
                room = !outcome.stdout.is_empty();
            }
        }
        let (mut refused, mut id) = (None, 1);
        while refused.is_none() && id < 200 {
            id += 1;
            let outcome = pair.to_end(logged(1, id, strict, connect(port))).await;
            refused = outcome.refused;
        }
        let Some(SessionRefusal::RecordingUnavailable(why)) = refused else {
            panic!("{refused:?}")
        };
        assert!(why.starts_with("spool full ("), "{why}");
        // The relay is informed, and ends what is under way.
        assert_eq!(
            record.hear().await,
            Heard::Refused(SessionRefusal::RecordingUnavailable(why.clone()))
        );
        let later = pair.to_end(logged(1, 500, strict, connect(port))).await;
        assert_eq!(
            later.refused,
            Some(SessionRefusal::RecordingUnavailable(why))
        );
        // What need not be recorded goes on.
        let mut free = dialled(
            &pair,
            logged(2, 1, RecordingMode::BestEffort, connect(port)),
        )
        .await;
        free.write(b"goes on").await;
        free.say(SessionMessage::Eof).await;
        assert_eq!(free.outcome().await.stdout(), "7 bytes");
        first.vanish();
        record.voice.send.finish().unwrap();
        loose.voice.send.finish().unwrap();
        ended(&mut loose).await;
        ended(&mut record).await;
        let status = pair.sessions.recorder().status();
        assert!(status.used <= status.max, "{status:?}");
        let played = Played::complete(&pair, 1, EndReason::SpoolFull).await;
        assert_logged(
            &played,
            &[
                "id: 1, to:",
                "id: 1, sent: 5, received: 0, why: ClientGone",
                "end SpoolFull",
            ],
        );
        let count = |what: &str| {
            played
                .others
                .iter()
                .filter(|one| one.contains(what))
                .count()
        };
        assert_eq!(count("ForwardOpened"), count("ForwardClosed"));
        // Both its beginning and its end.
        let played = Played::of(&pair.device.path("spool"), 2);
        assert_eq!(
            (played.gaps.len(), played.gaps[0].records),
            (1, 2),
            "{played:?}"
        );
    });
}

#[test]
fn a_forward_needs_a_log_that_exists() {
    run(async {
        let pair = Pair::new().await;
        let port = counting();
        let strict = RecordingMode::Strict;
        let refused = |outcome: crate::harness::Outcome| match outcome.refused {
            Some(SessionRefusal::RecordingUnavailable(why)) => why,
            other => panic!("{other:?}"),
        };
        let why = refused(pair.to_end(logged(1, 1, strict, connect(port))).await);
        assert!(why.contains("is over: try again"), "{why}");
        let loose = logged(1, 1, RecordingMode::BestEffort, connect(port));
        assert_eq!(pair.to_end(loose).await.stdout(), "0 bytes");
        // A session's own recording tells none either, and a number is given once.
        let _session = pair.open(recorded(2, strict, exec("sleep 60"))).await;
        pair.live(1).await;
        refused(pair.to_end(logged(2, 1, strict, connect(port))).await);
        let _record = standing(&pair, 3, strict).await;
        let _first = dialled(&pair, logged(3, 1, strict, connect(port))).await;
        refused(pair.to_end(logged(3, 1, strict, connect(port))).await);
        // The agent stops: what is open is recorded as that.
        let played = Played::complete(&pair, 3, EndReason::AgentStopped).await;
        assert_logged(
            &played,
            &[
                "id: 1, sent: 0, received: 0, why: StillOpen",
                "end AgentStopped",
            ],
        );
    });
}
