//! Seeing what is live, ending one session, and what a change of roles does to those that live.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{apply, started, started_on};
use crate::harness::{Device, Relay, SOON, Site, Way, own_login, run, wait_for, wait_until};

fn sessions(relay: &Relay) -> Vec<Value> {
    relay
        .json(&["sessions", "--json"])
        .as_array()
        .unwrap()
        .clone()
}

#[track_caller]
fn listed(relay: &Relay, user: &str) -> Value {
    wait_for(SOON, "the session in the list", || {
        sessions(relay).into_iter().find(|row| row["user"] == user)
    })
}

#[test]
fn a_live_session_is_listed_and_goes_with_its_end() {
    let site = Site::new();
    let bob = site.relay.user("bob", &["operator"]);
    let mut session = started(&bob, Way::Direct, "cat # \u{1b}[2J");
    let row = listed(&site.relay, "bob");
    assert_eq!(row["device"], "kitchen-cam");
    assert_eq!(row["login"], own_login());
    assert_eq!(row["kind"], "exec");
    assert_eq!(row["command"], "echo started; cat # \u{1b}[2J");
    assert_eq!(row["id"].as_str().unwrap().len(), 32);
    assert!(row["client"].as_str().unwrap().starts_with("127."), "{row}");
    session.write("0123456789\n");
    session.wait_out("0123456789\n");
    wait_until(SOON, "what moved in the list", || {
        let row = listed(&site.relay, "bob");
        row["bytes_in"] == 11 && row["bytes_out"] == 8 + 11
    });
    // In the table nothing drives the terminal.
    let table = site.relay.admin(&["sessions"]).ok().out();
    assert!(
        table.contains(&format!("{}@kitchen-cam", own_login())),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'));
    session.end_input();
    session.wait(SOON).ok();
    wait_until(SOON, "an empty list", || sessions(&site.relay).is_empty());
}

#[test]
fn one_session_is_ended_and_its_neighbour_is_not() {
    let site = Site::new();
    let bob = site.relay.user("bob", &["operator"]);
    let victim = started(&bob, Way::Jump, "yes >/dev/null");
    let id = listed(&site.relay, "bob")["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut neighbour = started(&bob, Way::Direct, "cat");
    let began = Instant::now();
    let line = format!("sessions kill {} --message 'maintenance begins'", &id[..12]);
    run(site.alice.console().arg(line)).ok();
    assert!(began.elapsed() < Duration::from_secs(3));
    let text = "[holdfast] closed: ended by alice: maintenance begins";
    victim.wait(SOON).exits(255).says(text);
    neighbour.write("still here\n");
    neighbour.wait_out("still here");
    site.relay
        .admin(&["sessions", "kill", &id])
        .exits(1)
        .says("no live session");
    site.relay
        .admin(&["sessions", "kill", ""])
        .exits(1)
        .says("no live session");
}

#[test]
fn everybody_sees_and_ends_their_own() {
    let site = Site::new();
    let (bob, carol) = (
        site.relay.user("bob", &["operator"]),
        site.relay.user("carol", &["operator"]),
    );
    let dora = site.relay.user("dora", &["auditor"]);
    let of_bob = started(&bob, Way::Direct, "cat");
    let _of_carol = started(&carol, Way::Direct, "cat");
    let id = |user| listed(&site.relay, user)["id"].as_str().unwrap().to_owned();
    let (bobs, carols) = (id("bob"), id("carol"));
    let seen = run(bob.console().arg("sessions --json")).ok().out();
    assert!(seen.contains(&bobs) && !seen.contains(&carols), "{seen}");
    let kill = |who: &crate::harness::User, id: &str| {
        run(who.console().arg(format!("sessions kill {id}")))
    };
    kill(&bob, &carols).exits(1).says("no live session");
    // An auditor sees all and changes nothing.
    let seen = run(dora.console().arg("sessions --json")).ok().out();
    assert!(seen.contains(&bobs) && seen.contains(&carols), "{seen}");
    let refused = kill(&dora, &bobs).exits(1);
    refused
        .says("user \"dora\" may not end the session of another user: it needs the ability admin");
    kill(&bob, &bobs).ok();
    of_bob
        .wait(SOON)
        .exits(255)
        .says("[holdfast] closed: ended by bob");
}

#[test]
fn a_role_change_ends_what_it_does_not_allow_any_more() {
    let site = Site::new();
    let mut attic = Device::new("attic-node");
    attic
        .join(&site.relay.token(&["--label", "site=attic"]), &[])
        .ok();
    attic.run_online(&site.relay);
    let role = |labels: &str, abilities: &str| {
        let policy = format!(
            "[roles.tech]\nallow = {{ labels = {labels}, logins = [\"*\"], abilities = [{abilities}] }}\n"
        );
        apply(&site.relay, &policy);
    };
    role("{ \"*\" = \"*\" }", "\"exec\"");
    let bob = site.relay.user("bob", &["tech"]);
    let kitchen = started(&bob, Way::Direct, "cat");
    let mut in_attic = started_on(&bob, Way::Jump, attic.name(), "cat");
    // More is no less: both live.
    role("{ \"*\" = \"*\" }", "\"exec\", \"sftp\"");
    in_attic.write("one\n");
    in_attic.wait_out("one");
    role("{ site = \"attic\" }", "\"exec\"");
    kitchen
        .wait(SOON)
        .exits(255)
        .says("[holdfast] closed: your access to this relay was changed");
    in_attic.write("two\n");
    in_attic.wait_out("two");
    bob.exec(Way::Direct, "kitchen-cam", "true").exits(255);
    bob.exec(Way::Direct, attic.name(), "true").ok();
}
