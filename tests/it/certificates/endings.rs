//! What ends a session that rests on a certificate, and what does not.

use std::fs;

use super::{Bed, fingerprint, principals};
use crate::harness::{Device, Running, SOON, Way, run, run_with_input, wait_until};

/// A command of carol's on the device that goes on until it is ended.
#[track_caller]
fn live(bed: &Bed, way: Way) -> Running {
    let running = Running::start(bed.ssh(way).arg("echo up; cat"));
    running.wait_out("up\n");
    running
}

#[test]
fn what_is_revoked_is_out_and_its_live_sessions_end() {
    let bed = Bed::new();
    let key = fs::read_to_string(bed.carol.key().with_extension("pub")).unwrap();
    let ca = fs::read_to_string(bed.ca.public()).unwrap();
    let hash = fingerprint(&bed.carol.key());
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
    bed.sign(&["-z", "42"]);
    for (number, specification) in table.iter().enumerate() {
        assert!(bed.is_let_in(), "before {specification}");
        let way = Way::BOTH[number % 2];
        let session = live(&bed, way);
        bed.revoke(specification);
        let ended = session.wait(SOON).exits(255);
        ended.says("your access to this relay was changed");
        assert!(!bed.is_let_in(), "{specification}");
        let revoked = bed.site.relay.json(&["ca", "revoked", "--json"]);
        let mut unrevoke = vec!["ca".to_owned(), "unrevoke".to_owned()];
        unrevoke.extend(
            revoked
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["id"].to_string()),
        );
        bed.admin(&unrevoke.iter().map(String::as_str).collect::<Vec<_>>());
    }
    // Another number, another id: not concerned.
    bed.revoke("serial: 41\nserial: 43-50\nid: carol\n");
    assert!(bed.is_let_in());
}

#[test]
fn a_users_plain_key_can_be_revoked_too() {
    let bed = Bed::new();
    let (alice, relay) = (&bed.site.alice, &bed.site.relay);
    let session = bed.site.start(Way::Jump, "echo up; cat");
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
    bed.admin(&["ca", "unrevoke", &print]);
    // The other way to take it back: a list that revokes nothing. From a pipe it may be a command that failed.
    run_with_input(&mut relay.command(&["ca", "revoke", "-"]), print.as_bytes()).ok();
    let nothing = ["ca", "revoke", "--replace", "-"];
    run_with_input(&mut relay.command(&nothing), b"").exits(1);
    let empty = relay.folder().join("empty");
    fs::write(&empty, "").unwrap();
    let output = bed.admin(&["ca", "revoke", "--replace", empty.to_str().unwrap()]);
    assert_eq!(output.out(), "0 new revocations, 1 taken back, 0 in all\n");
    run(alice.console().arg("whoami")).ok();
}

#[test]
fn removing_an_authority_ends_only_what_rests_on_it() {
    let bed = Bed::new();
    bed.sign(&[]);
    let sessions = Way::BOTH.map(|way| live(&bed, way));
    let mut other = bed.site.start(Way::Direct, "echo up; cat");
    other.wait_out("up\n");
    bed.admin(&["ca", "rm", "corp"]);
    for session in sessions {
        let ended = session.wait(SOON).exits(255);
        ended.says("your access to this relay was changed");
    }
    assert!(!bed.is_let_in());
    other.write("still here\n");
    other.wait_out("still here\n");
}

#[test]
fn taking_the_principal_away_ends_the_session() {
    let bed = Bed::new();
    bed.sign(&[]);
    let session = live(&bed, Way::Direct);
    principals(&bed.site.relay, "carol", &["someone@example.com"]);
    session
        .wait(SOON)
        .exits(255)
        .says("your access to this relay was changed");
    assert!(!bed.is_let_in());
}

#[test]
fn a_session_outlives_its_certificate() {
    let bed = Bed::new();
    bed.sign(&["-V", "-1m:+4s"]);
    let mut session = live(&bed, Way::Direct);
    wait_until(SOON, "the certificate has expired", || !bed.is_let_in());
    // What makes the relay look at all that live.
    bed.admin(&[
        "user",
        "add",
        "frank",
        "--key",
        &format!("{}.pub", bed.ca.key.display()),
    ]);
    let other = Device::joined(&bed.site.relay, "attic-node");
    assert_eq!(other.name(), "attic-node");
    session.write("still here\n");
    session.wait_out("still here\n");
    session.end_input();
    session.wait(SOON).ok();
}
