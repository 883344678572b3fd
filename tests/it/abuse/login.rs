//! Before and during a login.

use std::fs;
use std::time::{Duration, Instant};

use super::{Fixture, is_bearable, open, request};
use crate::harness::{KeyKind, Relay, SOON, User, memory, own_login, run, wait_for, wait_until};
use hostile::operator::raw::{
    CHANNEL_DATA, CHANNEL_OPEN_CONFIRMATION, CHANNEL_OPEN_FAILURE, DISCONNECT, GLOBAL_REQUEST,
    IGNORE, PacketFields, Raw, SERVICE_ACCEPT, SERVICE_REQUEST, SshMessage, UNIMPLEMENTED,
    USERAUTH_FAILURE, USERAUTH_PK_OK, USERAUTH_REQUEST, USERAUTH_SUCCESS,
};

/// The relay's bound (`relay/src/ssh/limits.rs`).
const MAX_KEY_OFFERS: usize = 32;

/// A request to log in by nothing.
fn nothing() -> SshMessage {
    let request = SshMessage::new(USERAUTH_REQUEST).string("alice");
    request.string("ssh-connection").string("none")
}

/// Returns what a console command on a raw connection answers.
#[track_caller]
fn ask(raw: &mut Raw, line: &str) -> String {
    raw.say(open(0, 1 << 20, 1 << 15));
    let opened = raw.wait(CHANNEL_OPEN_CONFIRMATION);
    let mut fields = PacketFields::of(&opened);
    assert_eq!(fields.number(), 0);
    let theirs = fields.number();
    raw.say(request(theirs, "exec", false).string(line));
    let data = raw.wait(CHANNEL_DATA);
    let mut fields = PacketFields::of(&data);
    fields.number();
    String::from_utf8(fields.string().to_vec()).unwrap()
}

/// russh hands nothing to the relay before the login but what is about it: what is held here is that nothing we accept
/// counts as one.
#[test]
fn nothing_is_had_before_the_login() {
    let fixture = Fixture::new();
    let (relay, alice) = (&fixture.site.relay, &fixture.site.alice);
    let early = [
        open(0, 1 << 20, 1 << 15),
        request(0, "exec", true).string("whoami"),
        SshMessage::new(CHANNEL_DATA).number(0).string("x"),
        SshMessage::new(GLOBAL_REQUEST)
            .string("tcpip-forward")
            .byte(1)
            .string("")
            .number(0),
        SshMessage::new(USERAUTH_SUCCESS),
    ];
    for begun in [false, true] {
        for message in &early {
            let mut raw = Raw::connect(relay.ssh());
            if begun {
                raw.begin_login();
                raw.say(raw.proof(&alice.key(), "alice", false));
                assert_eq!(raw.next().unwrap()[0], USERAUTH_PK_OK);
            }
            raw.say(message.clone());
            // Something that has an answer comes behind it. Until then there is none, or it is over.
            let (last, answer) = match begun {
                false => (
                    SshMessage::new(SERVICE_REQUEST).string("ssh-userauth"),
                    SERVICE_ACCEPT,
                ),
                true => (nothing(), USERAUTH_FAILURE),
            };
            let _ = raw.try_say(&last);
            while let Some(heard) = raw.next().filter(|heard| heard[0] != answer) {
                let refused = [DISCONNECT, UNIMPLEMENTED, CHANNEL_OPEN_FAILURE];
                assert!(refused.contains(&heard[0]), "{message:?}: {heard:?}");
            }
        }
    }
    fixture.is_undisturbed();
}

#[test]
fn who_one_is_follows_what_was_signed_and_not_what_was_asked() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let bob = relay.user("bob", &[]);
    let mallory = User::stranger(&relay, "mallory", KeyKind::Ed25519);
    let before = memory(relay.id());
    // One key is asked for, another signs.
    for (signer, expected) in [
        (&mallory, None),
        (&bob, Some("bob")),
        (&alice, Some("alice")),
    ] {
        let mut raw = Raw::connect(relay.ssh());
        raw.begin_login();
        raw.say(raw.proof(&alice.key(), "alice", false));
        assert_eq!(raw.next().unwrap()[0], USERAUTH_PK_OK);
        raw.say(raw.proof(&signer.key(), "alice", true));
        let answer = raw.next().unwrap()[0];
        match expected {
            None => assert_eq!(answer, USERAUTH_FAILURE),
            Some(name) => {
                assert_eq!(answer, USERAUTH_SUCCESS);
                let said = ask(&mut raw, "whoami");
                assert!(said.contains(name), "{said}");
            }
        }
    }
    // A signature for another session proves nothing.
    let mut other = Raw::connect(relay.ssh());
    other.begin_login();
    let stolen = other.proof(&alice.key(), "alice", true);
    let mut raw = Raw::connect(relay.ssh());
    raw.begin_login();
    raw.say(stolen);
    assert_eq!(raw.next().unwrap()[0], USERAUTH_FAILURE);
    // The name of the proof is what counts: asked for on a device, proved for the console.
    let mut raw = Raw::connect(relay.ssh());
    raw.begin_login();
    raw.say(raw.proof(&alice.key(), &format!("{}+kitchen-cam", own_login()), false));
    assert_eq!(raw.next().unwrap()[0], USERAUTH_PK_OK);
    raw.say(raw.proof(&alice.key(), "alice", true));
    if raw
        .next()
        .is_some_and(|answer| answer[0] == USERAUTH_SUCCESS)
    {
        assert!(ask(&mut raw, "whoami").contains("alice"));
    }
    is_bearable(&relay, before);
}

/// OpenSSH asks by nothing first, and russh counts that: who does without it gets no try more.
#[test]
fn right_key_after_too_many_others_is_refused() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let mallory = User::stranger(&relay, "mallory", KeyKind::Ed25519);
    for signs in [false, true] {
        for offers in [MAX_KEY_OFFERS - 1, MAX_KEY_OFFERS] {
            let mut raw = Raw::connect(relay.ssh());
            raw.begin_login();
            for _ in 0..offers {
                raw.say(raw.proof(&mallory.key(), "alice", false));
                assert_eq!(raw.next().unwrap()[0], USERAUTH_FAILURE);
            }
            // The relay is about to hang up by then.
            let _ = raw.try_say(&raw.proof(&alice.key(), "alice", signs));
            let answer = raw.next().map(|answer| answer[0]);
            let is_taken = matches!(answer, Some(USERAUTH_PK_OK | USERAUTH_SUCCESS));
            assert_eq!(
                is_taken,
                offers < MAX_KEY_OFFERS,
                "{offers} offers: {answer:?}"
            );
        }
    }
}

#[test]
fn right_signature_after_six_wrong_ones_is_refused() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    for wrong in [5, 6] {
        let mut raw = Raw::connect(relay.ssh());
        raw.begin_login();
        for _ in 0..wrong {
            raw.say(raw.forgery(&alice.key(), "alice"));
            assert_eq!(raw.next().unwrap()[0], USERAUTH_FAILURE);
        }
        raw.say(raw.proof(&alice.key(), "alice", true));
        let answer = raw.next().map(|answer| answer[0]);
        assert_eq!(answer == Some(USERAUTH_SUCCESS), wrong < 6, "{wrong}");
    }
}

#[test]
fn wrong_signatures_keep_a_source_out_and_openssh_shows_why() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    // Twelve make a minute. They count when they end, all of them at once: time goes by.
    let connections: Vec<Raw> = (0..13).map(|_| sign_wrongly(&relay, &alice)).collect();
    drop(connections);
    let refused = wait_for(SOON, "a penalty", || {
        let mut peer = crate::front::Peer::connect(relay.ssh(), None);
        let first = peer.first_line();
        (!first.starts_with("SSH-")).then_some(first)
    });
    let why = "too many failed logins from your address";
    assert!(refused.contains(why), "{refused}");
    run(alice.console().arg("whoami")).exits(255).says(why);
    let mut elsewhere = alice.tool("ssh");
    run(elsewhere.args(["-b", "127.0.0.2", "relay", "whoami"])).ok();
}

#[test]
fn exempt_network_is_never_kept_out() {
    let mut relay = Relay::new(&[]);
    let file = relay.folder().join("relay.toml");
    fs::write(&file, "penalty_exempt = [\"127.0.0.0/8\"]\n").unwrap();
    relay.add_flags(&["--config", file.to_str().unwrap()]);
    relay.set_env("RUST_LOG", "relay=debug");
    relay.start_again();
    let alice = relay.admin_user();
    let connections: Vec<Raw> = (0..13).map(|_| sign_wrongly(&relay, &alice)).collect();
    drop(connections);
    wait_until(SOON, "the end of all these connections", || {
        relay.log().matches("SSH connection closed").count() >= 13
    });
    run(alice.console().arg("whoami")).ok();
}

/// A connection whose client signs wrongly, once.
fn sign_wrongly(relay: &Relay, user: &User) -> Raw {
    let mut raw = Raw::connect(relay.ssh());
    raw.begin_login();
    raw.say(raw.forgery(&user.key(), user.name()));
    assert_eq!(raw.next().unwrap()[0], USERAUTH_FAILURE);
    raw
}

/// Programs with an agent ask about a key before they use it, and some more than once.
#[test]
fn key_that_is_offered_again_counts_as_no_wrong_one() {
    let mut relay = Relay::new(&[]);
    relay.set_env("RUST_LOG", "relay=debug");
    relay.start_again();
    let alice = relay.admin_user();
    for _ in 0..13 {
        let mut raw = Raw::connect(relay.ssh());
        raw.begin_login();
        for _ in 0..7 {
            raw.say(raw.proof(&alice.key(), "alice", false));
            assert_eq!(raw.next().unwrap()[0], USERAUTH_PK_OK);
        }
    }
    wait_until(SOON, "the end of all these connections", || {
        relay.log().matches("SSH connection closed").count() >= 13
    });
    run(alice.console().arg("whoami")).ok();
}

/// Lengths that are none, and lines that are no version, are russh's to see. How much it may read before a login is
/// ours to bound: `front::a_flood_before_the_login_is_cut`.
#[test]
fn what_is_no_ssh_ends_soon() {
    let fixture = Fixture::new();
    let (relay, alice) = (&fixture.site.relay, &fixture.site.alice);
    // Packets of no length, and of the greatest, in the clear and when keys are agreed on.
    for length in [0, 1, 4, u32::MAX, u32::MAX - 3, 1 << 20] {
        let packet = [&length.to_be_bytes()[..], &[0; 64]].concat();
        let mut clear = Raw::greet(relay.ssh());
        let mut sealed = Raw::connect(relay.ssh());
        let mut logged_in = Raw::login(relay.ssh(), &alice.key(), "alice");
        for raw in [&mut clear, &mut sealed, &mut logged_in] {
            let _ = raw.write(&packet);
            assert!(raw.ends(Duration::from_secs(5)), "{length}");
        }
    }
    // Lines before the version are for servers alone (RFC 4253 section 4.2): they are not read for ever.
    let mut peer = crate::front::Peer::connect(relay.ssh(), None);
    let (began, mut sent) = (Instant::now(), 0);
    while peer.try_send(&b"this is no version\r\n".repeat(1_000)) && sent < 64 << 20 {
        sent += 20_000;
    }
    assert!(
        sent < 32 << 20 && began.elapsed() < SOON,
        "{sent} bytes went in"
    );
    fixture.is_undisturbed();
}

#[test]
fn small_talk_is_no_way_to_stay() {
    let mut relay = Relay::new(&[]);
    let file = relay.folder().join("relay.toml");
    fs::write(&file, "login_grace = \"2s\"\n").unwrap();
    relay.add_flags(&["--config", file.to_str().unwrap()]);
    relay.start_again();
    let alice = relay.admin_user();
    let before = memory(relay.id());
    let mut raw = Raw::connect(relay.ssh());
    let began = Instant::now();
    // A message that means nothing now and then, and the wish to log in.
    raw.begin_login();
    while raw
        .try_say(&SshMessage::new(IGNORE).string("still here"))
        .is_ok()
        && began.elapsed() < SOON
    {
        if raw.ends(Duration::from_millis(50)) {
            break;
        }
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "it stayed for {took:?}");
    run(alice.console().arg("whoami")).ok();
    is_bearable(&relay, before);
}

/// A signature that is bound to a host key is good on a connection with that key only.
#[test]
fn proof_bound_to_another_host_key_is_refused() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let other = Raw::connect(Relay::start().ssh());
    let own = Raw::connect(relay.ssh());
    let short = &own.host_key()[1..];
    for (host_key, answer) in [
        (other.host_key(), USERAUTH_FAILURE),
        (short, USERAUTH_FAILURE),
        (b"", USERAUTH_FAILURE),
        (own.host_key(), USERAUTH_SUCCESS),
    ] {
        let mut raw = Raw::connect(relay.ssh());
        raw.begin_login();
        raw.say(raw.bound_proof(&alice.key(), "alice", host_key));
        assert_eq!(raw.next().unwrap()[0], answer, "{host_key:?}");
    }
    // Nor does the signature do for another key than the one that was sent.
    let mut raw = Raw::connect(relay.ssh());
    raw.begin_login();
    let bound = raw.bound_proof(&alice.key(), "alice", own.host_key());
    let plain = raw.proof(&alice.key(), "alice", true);
    let signature =
        |message: &SshMessage| message.payload()[message.payload().len() - 87..].to_vec();
    let mut forged = SshMessage::new(USERAUTH_REQUEST);
    let head = plain.payload().len() - 87;
    for byte in plain.payload()[1..head].iter().chain(&signature(&bound)) {
        forged = forged.byte(*byte);
    }
    raw.say(forged);
    assert_eq!(raw.next().unwrap()[0], USERAUTH_FAILURE);
    // A key exchange in between changes nothing: the first one counts.
    let mut raw = Raw::connect(relay.ssh());
    raw.begin_login();
    raw.exchange_keys();
    raw.say(raw.bound_proof(&alice.key(), "alice", own.host_key()));
    assert_eq!(raw.next().unwrap()[0], USERAUTH_SUCCESS);
}

/// A signature that is good elsewhere counts as a wrong one, and an offer counts as one however it is made.
#[test]
fn wrong_host_keys_count_as_wrong_signatures() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let mallory = User::stranger(&relay, "mallory", KeyKind::Ed25519);
    let bound = |user: &User| {
        let mut raw = Raw::connect(relay.ssh());
        raw.begin_login();
        raw.say(raw.bound_proof(&user.key(), user.name(), b"another host key"));
        assert_eq!(raw.next().unwrap()[0], USERAUTH_FAILURE);
        raw
    };
    drop(bound(&mallory));
    is_counted_as_offer(&relay, &mallory);
    let connections: Vec<Raw> = (0..13).map(|_| bound(&alice)).collect();
    drop(connections);
    let why = "too many failed logins from your address";
    let refused = wait_for(SOON, "a penalty", || {
        let mut peer = crate::front::Peer::connect(relay.ssh(), None);
        let first = peer.first_line();
        (!first.starts_with("SSH-")).then_some(first)
    });
    assert!(refused.contains(why), "{refused}");
}

#[test]
fn certificate_that_has_expired_counts_as_an_offer() {
    let relay = Relay::start();
    let carol = User::stranger(&relay, "carol", KeyKind::Ed25519);
    let mut raw = Raw::connect(relay.ssh());
    raw.begin_login();
    raw.say(raw.expired_proof(&carol.key(), carol.name()));
    assert_eq!(raw.next().unwrap()[0], USERAUTH_FAILURE);
    drop(raw);
    is_counted_as_offer(&relay, &carol);
}

/// Waits for the event of the login that came to nothing.
#[track_caller]
fn is_counted_as_offer(relay: &Relay, user: &User) {
    let row = wait_for(SOON, "the event of a login", || {
        let rows = relay.admin(&["audit", "--json", "--event", "user.login.failed"]);
        let rows = rows.ok().out();
        let mut rows = rows.lines().map(|row| serde_json::from_str(row).unwrap());
        rows.find(|row: &serde_json::Value| row["names"] == serde_json::json!([user.name()]))
    });
    let counts = (&row["attempts"], &row["wrong_signatures"]);
    assert_eq!(counts, (&1.into(), &0.into()), "{row}");
}
