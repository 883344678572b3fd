//! The hostile device against a real relay: each lie ends where it was said, and no other session notices.

mod bounds;
mod fixture;
mod inventories;
mod outcomes;
mod uploads;

use hostile::Outcome;
use hostile::device::GREETING;

use crate::harness::{Hostile, Relay, SOON, Way, own_login, run};

/// A relay, its administrator, and a device that plays a case.
struct Siege {
    alice: crate::harness::User,
    hostile: Hostile,
    relay: Relay,
}

impl Siege {
    #[track_caller]
    fn new(case: &str, count: u32) -> Self {
        let relay = Relay::start();
        let alice = relay.admin_user();
        let hostile = Hostile::online(&relay, "mallory", case, count);
        Self {
            alice,
            hostile,
            relay,
        }
    }

    fn ssh(&self) -> std::process::Command {
        self.alice
            .ssh(Way::Direct, &own_login(), self.hostile.name())
    }
}

#[test]
fn honest_case_keeps_every_rule() {
    let siege = Siege::new("honest", 1);
    let output = run(siege.ssh().arg("anything")).ok();
    assert_eq!(output.stdout, GREETING);
    crate::harness::wait_until(SOON, "a verdict", || {
        let complete = siege
            .relay
            .json(&["recordings", "--state", "complete", "--json"]);
        complete.as_array().is_some_and(|rows| rows.len() == 1)
    });
}

#[test]
fn second_hello_ends_the_tunnel() {
    let relay = Relay::start();
    let hostile = Hostile::start(&relay, "mallory", "hello-twice", 1);
    let outcome = hostile.outcome(SOON * 2);
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}

/// An account that is locked by its other name passes nothing, whether or not the device looks for it.
#[test]
fn account_locked_by_another_name_sends_nothing() {
    let siege = Siege::new("root-by-another-name", 3);
    siege.relay.admin(&["lock", "login", "root"]).ok();
    let mut ssh = siege.alice.ssh(Way::Direct, "pi", siege.hostile.name());
    let ended = run(ssh.arg("true")).exits(255);
    let ended = ended.says("[holdfast] closed: locked by the relay's administrator");
    assert_eq!(ended.out(), "");
    let outcome = siege.hostile.outcome(SOON * 2);
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}

#[test]
fn session_that_is_accepted_twice_is_ended() {
    let siege = Siege::new("accepted-twice", 3);
    let output = run(siege.ssh().arg("true"));
    assert_eq!(output.status.code(), Some(255), "{output}");
    let outcome = siege.hostile.outcome(SOON * 2);
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}
