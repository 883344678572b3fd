//! Commands that are given at once with the first start.

use crate::harness::{Relay, Running, SOON};

#[test]
fn a_command_waits_for_the_first_start() {
    let mut relay = Relay::new(&[]);
    // As when all of it is pasted at once: the commands are there before the relay is.
    let early = [&["get", "users"][..], &["token", "create"]]
        .map(|args| Running::start(&mut relay.command(args)));
    for command in &early {
        command.wait_err("waiting up to 5 s for `relay serve` to start on ");
    }
    relay.start_again();
    let [listed, token] = early.map(|command| command.wait(SOON).ok().out());
    assert!(listed.starts_with("NAME"), "{listed}");
    assert!(token.starts_with("hf1."), "{token}");
}
