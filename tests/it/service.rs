//! The agent as a service: what it tells the manager that started it.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;

use crate::harness::{Device, Relay, SOON, run};

#[test]
fn systemd_hears_that_the_agent_is_up_and_alive_and_stops() {
    let relay = Relay::start();
    let mut device = Device::joined(&relay, "kitchen-cam");
    let path = device.folder().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let heard = || {
        let mut bytes = [0; 1024];
        let length = manager.recv(&mut bytes).expect("a message of the agent");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };

    device = device
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000");
    device.run();
    assert_eq!(heard(), "READY=1");
    // A sign of life each time, whether the tunnel is there yet or not.
    let online = std::iter::repeat_with(&heard)
        .inspect(|message| assert!(message.starts_with("WATCHDOG=1\nSTATUS="), "{message}"))
        .any(|message| message.contains("STATUS=online, relay "));
    assert!(online);

    // What the manager has in its environment must not reach the people who log in.
    let alice = relay.admin_user();
    let env = alice
        .exec(crate::harness::Way::Direct, device.name(), "env")
        .ok();
    assert!(!env.out().contains("NOTIFY_SOCKET"), "{env}");

    device.stop();
    let last = std::iter::repeat_with(&heard).find(|message| !message.starts_with("WATCHDOG=1"));
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
}

#[test]
fn a_mistyped_agent_command_is_answered_with_those_there_are() {
    let device = Device::new("kitchen-cam");
    let said = run(&mut device.command(&["jion"])).exits(2);
    assert_eq!(said.out(), "");
    said.says("edge-agent: unrecognized subcommand 'jion'")
        .says("Did you mean `join`? The commands are join, run, ");
}

#[test]
fn an_agent_command_that_only_looks_makes_no_folder() {
    let device = Device::new("kitchen-cam");
    let said = run(&mut device.command(&["status"])).exits(1);
    said.says("this device has not joined a fleet yet")
        .says(&format!("there is no {}", device.state().display()));
    let found = run(&mut device.command(&["doctor"])).exits(1).out();
    assert!(
        found.contains("this device has not joined a fleet yet"),
        "{found}"
    );
    run(&mut device.command(&["upload"]))
        .exits(1)
        .says("no agent runs on this state folder");
    assert!(!device.state().exists());
}

#[test]
fn doctor_of_another_account_cannot_see_whether_an_agent_runs() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let relay = Relay::start();
    let mut device = Device::joined(&relay, "kitchen-cam");
    device.run();
    device.wait_online(&relay);
    // As systemd makes the folder; the files in it are root's alone.
    for folder in [device.folder(), &device.state()] {
        set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    let look = |command: &str| run(device.command(&[command]).uid(47_110).gid(47_110)).exits(1);
    let found = look("doctor").out();
    assert!(!found.contains("no agent runs"), "{found}");
    let service = found.lines().next().unwrap();
    assert!(
        service.starts_with(
            "problem service   whether an agent runs on this state folder cannot be seen: cannot "
        ) && service.contains("Permission denied")
            && service.contains("run it as root (sudo)"),
        "{found}"
    );
    assert!(
        found.contains("run `edge-agent doctor` as the agent's account"),
        "{found}"
    );
    let uploaded = look("upload");
    assert!(!uploaded.err().contains("no agent runs"), "{uploaded}");
    uploaded.says("Permission denied");
}
