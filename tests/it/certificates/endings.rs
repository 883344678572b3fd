//! A session that rests on a certificate ends with it, and with nothing else.

use std::fs;

use super::{Fixture, fingerprint, principals};
use crate::harness::{Device, Running, SOON, Way, run, run_with_input, wait_until};

/// A command of carol's on the device that goes on until it is ended.
#[track_caller]
fn live(fixture: &Fixture, way: Way) -> Running {
    let running = Running::start(fixture.ssh(way).arg("echo up; cat"));
    running.wait_out("up\n");
    running
}

#[test]
fn what_is_revoked_is_out_and_its_live_sessions_end() {
    let fixture = Fixture::new();
    let key = fs::read_to_string(fixture.carol.key().with_extension("pub")).unwrap();
    let ca = fs::read_to_string(fixture.ca.public()).unwrap();
    let hash = fingerprint(&fixture.carol.key());
    let table = [
        "serial: 42\n".to_owned(),
        "serial: 40-50\n".to_owned(),
        "serial: 40\nserial: 42\nserial: 44\nserial: 46\n".to_owned(),
        "id: carol laptop\n".to_owned(),
        format!("key: {key}"),
        format!("sha1: {key}"),
        format!("hash: {hash}\n"),
        format!("key: {ca}"),
    ];
    fixture.sign(&["-z", "42"]);
    for (number, specification) in table.iter().enumerate() {
        assert!(fixture.is_let_in(), "before {specification}");
        let way = Way::BOTH[number % 2];
        let session = live(&fixture, way);
        fixture.revoke(specification);
        let ended = session.wait(SOON).exits(255);
        ended.says("your access to this relay was changed");
        assert!(!fixture.is_let_in(), "{specification}");
        let revoked = fixture.site.relay.json(&["ca", "revoked", "--json"]);
        let mut unrevoke = vec!["ca".to_owned(), "unrevoke".to_owned()];
        unrevoke.extend(
            revoked
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["id"].to_string()),
        );
        fixture.admin(&unrevoke.iter().map(String::as_str).collect::<Vec<_>>());
    }
    // Another number, another id: not concerned.
    fixture.revoke("serial: 41\nserial: 43-50\nid: carol\n");
    assert!(fixture.is_let_in());
}

#[test]
fn a_users_plain_key_can_be_revoked_too() {
    let fixture = Fixture::new();
    let (alice, relay) = (&fixture.site.alice, &fixture.site.relay);
    let session = fixture.site.start(Way::Jump, "echo up; cat");
    session.wait_out("up\n");
    let print = fingerprint(&alice.key());
    let mut revoke = relay.command(&["ca", "revoke", "-"]);
    run_with_input(&mut revoke, format!("{print}\n").as_bytes()).ok();
    session
        .wait(SOON)
        .exits(255)
        .says("your access to this relay was changed");
    run(alice.console().arg("whoami"))
        .exits(255)
        .says("Permission denied");
    fixture.admin(&["ca", "unrevoke", &print]);
    // The other way to take it back: a list that revokes nothing. From a pipe it may be a command that failed.
    run_with_input(&mut relay.command(&["ca", "revoke", "-"]), print.as_bytes()).ok();
    let nothing = ["ca", "revoke", "--replace", "-"];
    run_with_input(&mut relay.command(&nothing), b"").exits(1);
    let empty = relay.folder().join("empty");
    fs::write(&empty, "").unwrap();
    let output = fixture.admin(&["ca", "revoke", "--replace", empty.to_str().unwrap()]);
    assert_eq!(output.out(), "0 new revocations, 1 removed, 0 in all\n");
    run(alice.console().arg("whoami")).ok();
}

#[test]
fn removing_an_authority_ends_only_what_rests_on_it() {
    let fixture = Fixture::new();
    fixture.sign(&[]);
    let sessions = Way::BOTH.map(|way| live(&fixture, way));
    let mut other = fixture.site.start(Way::Direct, "echo up; cat");
    other.wait_out("up\n");
    fixture.admin(&["ca", "rm", "corp"]);
    for session in sessions {
        let ended = session.wait(SOON).exits(255);
        ended.says("your access to this relay was changed");
    }
    assert!(!fixture.is_let_in());
    other.write("still here\n");
    other.wait_out("still here\n");
}

#[test]
fn taking_the_principal_away_ends_the_session() {
    let fixture = Fixture::new();
    fixture.sign(&[]);
    let session = live(&fixture, Way::Direct);
    principals(&fixture.site.relay, "carol", &["someone@example.com"]);
    session
        .wait(SOON)
        .exits(255)
        .says("your access to this relay was changed");
    assert!(!fixture.is_let_in());
}

#[test]
fn a_session_outlives_its_certificate() {
    let fixture = Fixture::new();
    fixture.sign(&["-V", "-1m:+4s"]);
    let mut session = live(&fixture, Way::Direct);
    wait_until(SOON, "the certificate has expired", || !fixture.is_let_in());
    // What makes the relay look at all that live.
    fixture.admin(&[
        "user",
        "add",
        "frank",
        "--key",
        &format!("{}.pub", fixture.ca.key.display()),
    ]);
    let other = Device::joined(&fixture.site.relay, "attic-node");
    assert_eq!(other.name(), "attic-node");
    session.write("still here\n");
    session.wait_out("still here\n");
    session.end_input();
    session.wait(SOON).ok();
}
