//! Counts how often a login and a session ask the relay's database.

use super::started;
use crate::harness::Device;
use crate::harness::{Relay, Running, SOON, Site, Way, run, wait_until};

/// The store's counter of SELECTs at each session that was admitted so far.
fn counted(relay: &Relay) -> Vec<u64> {
    let log = relay.log();
    let lines = log.lines().filter(|line| line.contains("session admitted"));
    let count = |line: &str| {
        let (_, count) = line.split_once("selects=").unwrap();
        count.split(' ').next().unwrap().parse().unwrap()
    };
    lines.map(count).collect()
}

#[test]
fn logins_and_sessions_need_few_selects() {
    let mut relay = Relay::new(&[]);
    relay.set_env("RUST_LOG", "info,relay=debug");
    relay.start_again();
    let site = Site::on(relay, Device::new("kitchen-cam"));
    for (way, at_most) in [(Way::Direct, 3), (Way::Jump, 3)] {
        site.exec(way, "true").ok();
        let before = counted(&site.relay);
        site.exec(way, "true").ok();
        let after = counted(&site.relay);
        assert_eq!(after.len(), before.len() + 1);
        let login = after.last().unwrap() - before.last().unwrap();
        assert!(login <= at_most, "{way:?}: {login}");
        assert!(login > 0, "{way:?}: nothing is counted");
    }
    // Further sessions on one connection.
    let folder = tempfile::Builder::new().prefix("cm").tempdir().unwrap();
    let socket = folder.path().join("s");
    let control = format!("ControlPath={}", socket.display());
    let mut master = site.ssh(Way::Direct);
    master.args(["-N", "-o", "ControlMaster=yes", "-o", &control]);
    let master = Running::start(&mut master);
    wait_until(SOON, "the master's socket", || socket.exists());
    let session = || {
        let mut ssh = site.ssh(Way::Direct);
        ssh.args(["-o", "ControlMaster=no", "-o", &control, "true"]);
        run(&mut ssh).ok();
        *counted(&site.relay).last().unwrap()
    };
    let mut before = session();
    for _ in 0..5 {
        let after = session();
        assert_eq!(after - before, 1);
        before = after;
    }
    let mut exit = site.ssh(Way::Direct);
    run(exit.args(["-o", &control, "-O", "exit"])).ok();
    master.wait(SOON);
    // A limit on sessions costs none more.
    super::role(
        &site.relay,
        "tech",
        "limits = { max_sessions = 2, max_connections = 2 }",
    );
    let bob = site.relay.user("bob", &["tech"]);
    drop(started(&bob, Way::Direct, "true"));
    let before = *counted(&site.relay).last().unwrap();
    bob.exec(Way::Direct, "kitchen-cam", "true").ok();
    let after = *counted(&site.relay).last().unwrap();
    assert!(after - before <= 3, "{}", after - before);
}
