//! The shortest way through everything: both ways in, and the console.

use crate::harness::SOON;
use crate::harness::{Device, Relay, Terminal, Way, own_login, run};

#[test]
fn a_command_runs_on_a_device_on_both_ways() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let device = Device::online(&relay, "kitchen-cam");
    for way in Way::BOTH {
        let output = alice.exec(way, device.name(), "echo hello; echo oops >&2; exit 7");
        let output = output.exits(7).says("oops");
        assert_eq!(output.out(), "hello\n", "{way:?}");
    }
    let listing = run(alice.console().arg("devices")).ok();
    assert!(listing.out().contains("kitchen-cam  online"), "{listing}");
}

#[test]
fn a_shell_opens_on_a_terminal() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let device = Device::online(&relay, "kitchen-cam");
    for way in Way::BOTH {
        let ssh = alice.ssh(way, &own_login(), device.name());
        let mut terminal = Terminal::start(&ssh, 91, 27);
        terminal.send("stty size; exit 3\r");
        terminal.expect("27 91");
        assert_eq!(terminal.wait(SOON).code(), Some(3));
    }
}
