//! A key that the relay does not know may enrol, and nothing else, whatever it says on the
//! wire. Our agent is too polite for this: here a QUIC client of our own breaks each rule.

use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use holdfast_protocol::identity::token::{Token, TokenSecret};
use holdfast_protocol::limits::{MAX_VERSION_TEXT, MINOR_VERSION};
use holdfast_protocol::wire::{
    AgentMessage, Beat, CloseCode, Enrol, Hello, Intent, Refusal, RelayMessage,
};
use serde_json::json;

use self::peer::{Ended, Peer};
use crate::harness::{Device, Relay, SOON, block_on, wait_until};

mod peer;

fn hello(intent: Intent) -> AgentMessage {
    AgentMessage::Hello(Hello {
        minor: MINOR_VERSION,
        intent,
        agent_version: "9.9.9".to_owned(),
        target: "test".to_owned(),
        keepalive_secs: 25,
        clock: 0,
        local_address: None,
    })
}

fn enrol(secret: TokenSecret) -> AgentMessage {
    AgentMessage::Enrol(Enrol {
        secret,
        name: Some("intruder".parse().unwrap()),
        labels: vec![],
    })
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut source = File::open("/dev/urandom").unwrap();
    source.read_exact(&mut bytes).unwrap();
    bytes
}

/// A relay, a token that is good for one device, and whether all is as if no device had called.
struct Door {
    relay: Relay,
    token: String,
}

impl Door {
    fn new() -> Self {
        let relay = Relay::start();
        let token = relay.token(&["--uses", "1"]);
        Self { relay, token }
    }

    fn secret(&self) -> TokenSecret {
        self.token.parse::<Token>().unwrap().secret
    }

    async fn knock(&self) -> Peer {
        Peer::dial(self.relay.tunnel(), Some(random()))
            .await
            .unwrap()
    }

    /// Nothing came of it, and a device that is wanted still gets in.
    #[track_caller]
    fn stays_untouched(self) {
        let devices = || self.relay.json(&["devices", "ls", "--all", "--json"]);
        assert_eq!(devices(), json!([]));
        assert_eq!(
            self.relay.json(&["token", "ls", "--json"])[0]["uses_left"],
            1
        );
        assert_eq!(self.relay.json(&["sessions", "--json"]), json!([]));
        let mut device = Device::new("kitchen-cam");
        device.join(&self.token, &[]).ok();
        device.run_online(&self.relay);
        assert_eq!(devices().as_array().unwrap().len(), 1);
    }
}

#[test]
fn a_stranger_that_would_serve_is_refused() {
    let door = Door::new();
    block_on(async {
        let mut peer = door.knock().await;
        peer.say(&hello(Intent::Run)).await;
        peer.is_refused(Refusal::UnknownDevice).await;
        // Not even with a good secret behind it, all in one breath.
        let mut peer = door.knock().await;
        peer.say(&hello(Intent::Run)).await;
        peer.say(&enrol(door.secret())).await;
        peer.is_refused(Refusal::UnknownDevice).await;
    });
    door.stays_untouched();
}

#[test]
fn stranger_that_speaks_as_a_relay_is_refused() {
    let door = Door::new();
    block_on(async {
        let dialled = Peer::dial_as_relay(door.relay.tunnel(), random()).await;
        // It may be closed before the handshake is done for both.
        let ended = match dialled {
            Ok(mut peer) => peer.ended().await,
            Err(ended) => ended,
        };
        assert_eq!(ended, Ended::Closed(CloseCode::NoMember as u32));
    });
    wait_until(SOON, "the relay says so", || {
        let log = door.relay.log();
        log.contains("a relay that is no member of the cluster is refused")
    });
    door.stays_untouched();
}

#[test]
fn a_wrong_secret_is_refused_and_the_connection_is_over() {
    let door = Door::new();
    block_on(async {
        let mut peer = door.knock().await;
        peer.say(&hello(Intent::Join)).await;
        assert!(matches!(peer.next().await, Some(RelayMessage::Identity(_))));
        // The second comes in the same breath: one connection is one guess.
        peer.say(&enrol(TokenSecret(random()))).await;
        peer.say(&enrol(door.secret())).await;
        peer.is_refused(Refusal::TokenUnknown).await;
    });
    door.stays_untouched();
}

#[test]
fn what_comes_out_of_turn_ends_the_connection() {
    let door = Door::new();
    let beat = AgentMessage::Beat(Beat { echo: true });
    let verbose = match hello(Intent::Join) {
        AgentMessage::Hello(hello) => AgentMessage::Hello(Hello {
            agent_version: "x".repeat(MAX_VERSION_TEXT + 1),
            ..hello
        }),
        other => other,
    };
    block_on(async {
        // Before the relay has said who it is, nothing is reported of it.
        for first in [beat.clone(), enrol(door.secret()), verbose] {
            let mut peer = door.knock().await;
            peer.say(&first).await;
            peer.say(&hello(Intent::Join)).await;
            assert_eq!(peer.next().await, None, "{first:?}");
            assert!(matches!(peer.ended().await, Ended::Closed(_)), "{first:?}");
        }
        for second in [beat, hello(Intent::Run), hello(Intent::Join)] {
            let mut peer = door.knock().await;
            peer.say(&hello(Intent::Join)).await;
            assert!(matches!(peer.next().await, Some(RelayMessage::Identity(_))));
            peer.say(&second).await;
            peer.say(&enrol(door.secret())).await;
            assert_eq!(peer.next().await, None, "{second:?}");
            let protocol = Ended::Closed(CloseCode::Protocol as u32);
            assert_eq!(peer.ended().await, protocol, "{second:?}");
        }
    });
    door.stays_untouched();
}

#[test]
fn garbage_ends_the_connection() {
    let door = Door::new();
    let noise: [u8; 4096] = random();
    let garbage: [&[u8]; 5] = [
        &[0xff; 64],
        &[0; 64],
        b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        &noise,
    ];
    block_on(async {
        for garbage in garbage {
            let mut peer = door.knock().await;
            peer.write(garbage).await;
            peer.finish();
            assert_eq!(peer.next().await, None, "{garbage:?}");
            assert!(
                matches!(peer.ended().await, Ended::Closed(_)),
                "{garbage:?}"
            );

            let mut peer = door.knock().await;
            peer.say(&hello(Intent::Join)).await;
            assert!(matches!(peer.next().await, Some(RelayMessage::Identity(_))));
            peer.write(garbage).await;
            peer.finish();
            assert_eq!(peer.next().await, None, "{garbage:?}");
            assert!(
                matches!(peer.ended().await, Ended::Closed(_)),
                "{garbage:?}"
            );
        }
    });
    door.stays_untouched();
}

#[test]
fn a_close_reason_forges_no_line_of_the_log() {
    let reason =
        b"x\n2026-11-22T05:06:07Z  INFO forged: login user=root\r\x1b[2J\xc2\x9b31m\xe2\x80\xae";
    let mut relay = Relay::new(&[]);
    relay.set_env("RUST_LOG", "relay=debug");
    relay.start_again();
    let door = Door {
        token: relay.token(&["--uses", "1"]),
        relay,
    };
    block_on(async {
        door.knock().await.close(reason).await;
    });
    let shown =
        "x\\n2026-11-22T05:06:07Z  INFO forged: login user=root\\r\\u{1b}[2J\\u{9b}31m\\u{202e}";
    wait_until(SOON, "the reason in the log", || {
        door.relay.log().contains(shown)
    });
    let log = door.relay.log();
    let harmless = |line: &str| !line.contains(|c: char| c.is_control());
    assert!(log.lines().all(harmless), "{log:?}");
    assert!(
        !log.lines()
            .any(|line| line.starts_with("2026-11-22T05:06:07Z"))
    );
}

#[test]
fn further_streams_before_enrolment_are_refused() {
    let door = Door::new();
    block_on(async {
        let mut peer = door.knock().await;
        peer.say(&hello(Intent::Join)).await;
        assert!(matches!(peer.next().await, Some(RelayMessage::Identity(_))));
        // As many as the relay lets it open, each with what would be welcome on the first one.
        let mut opened = vec![];
        while let Some(mut stream) = peer.open_another(Duration::from_millis(300)).await {
            stream.say(&hello(Intent::Run)).await;
            stream.say(&enrol(door.secret())).await;
            opened.push(stream);
            assert!(opened.len() <= 16, "the relay sets no bound");
        }
        assert!(!peer.may_open_one_way(Duration::from_millis(300)).await);
        peer.say(&enrol(TokenSecret(random()))).await;
        let refused = RelayMessage::Refused(Refusal::TokenUnknown);
        assert_eq!(peer.next().await, Some(refused));
        for mut stream in opened {
            assert_eq!(stream.next().await, None, "it was answered");
        }
        assert_eq!(peer.ended().await, Ended::Closed(CloseCode::Done as u32));
    });
    door.stays_untouched();
}

#[test]
fn who_proves_no_key_gets_no_connection() {
    let door = Door::new();
    block_on(async {
        // The client is done with the handshake one flight before the relay is: it may believe in it briefly.
        let ended = match Peer::dial(door.relay.tunnel(), None).await {
            Err(ended) => ended,
            Ok(mut peer) => {
                let heard = peer.next_if_open().await;
                assert_eq!(heard, None);
                peer.ended().await
            }
        };
        assert_eq!(ended, Ended::Handshake);
    });
    door.stays_untouched();
}

#[test]
fn a_stranger_that_says_nothing_is_not_waited_for_for_ever() {
    let door = Door::new();
    block_on(async {
        let mut silent = door.knock().await;
        let mut half = door.knock().await;
        half.say(&hello(Intent::Join)).await;
        assert!(matches!(half.next().await, Some(RelayMessage::Identity(_))));
        for peer in [&mut silent, &mut half] {
            let ended = tokio::time::timeout(SOON * 2, peer.ended()).await;
            assert!(matches!(ended, Ok(Ended::Closed(_))), "{ended:?}");
        }
    });
    door.stays_untouched();
}
