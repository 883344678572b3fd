//! Locks: nothing new passes, what lives ends, and no race is lost.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use super::{role, started, started_on};
use crate::harness::{
    Device, Running, SOON, Session, Site, SshClient, Way, block_on, own_login, run, wait_until,
};

const WHY: &str = "laptop reported stolen";
const CLOSED: &str =
    "[holdfast] closed: locked by the relay's administrator: laptop reported stolen";

#[test]
fn a_lock_ends_what_lives_and_admits_nothing_new() {
    let site = Site::new();
    let bob = site.relay.user("bob", &["operator"]);
    let login = own_login();
    let targets = [
        ("user", "bob"),
        ("role", "operator"),
        ("login", &login),
        ("device", "kitchen-cam"),
        ("address", "127.0.0.1"),
        ("address", "127.0.0.0/8"),
    ];
    for ((kind, value), way) in targets.into_iter().zip(Way::BOTH.into_iter().cycle()) {
        let session = started(&bob, way, "exec yes");
        let began = Instant::now();
        let locked = site
            .relay
            .admin(&["lock", kind, value, "--message", WHY])
            .ok();
        let took = began.elapsed();
        assert!(took < Duration::from_millis(1_500), "{kind}: {took:?}");
        session.wait(SOON).exits(255).says(CLOSED);
        let id = locked.out().split([' ', ':']).nth(1).unwrap().to_owned();
        let refusal = format!("locked: {WHY} (lock {id}, by the relay's administrator)");
        bob.exec(way, "kitchen-cam", "true")
            .exits(255)
            .says(&refusal);
        // The console is shut to whom the lock names, and to no other user.
        let console = run(bob.console().arg("whoami"));
        let shut_out = matches!(kind, "user" | "role" | "address");
        assert_eq!(console.code() == 255, shut_out, "{kind}: {console}");
        site.relay.admin(&["unlock", &id]).ok();
        bob.exec(way, "kitchen-cam", "true").ok();
    }
    assert_eq!(
        site.relay
            .json(&["lock", "ls", "--json"])
            .as_array()
            .unwrap()
            .len(),
        0
    );
}

#[test]
fn a_lock_hits_no_other() {
    let site = Site::new();
    let attic = Device::online(&site.relay, "attic-node");
    let (bob, carol) = (
        site.relay.user("bob", &["operator"]),
        site.relay.user("carol", &["operator"]),
    );
    let hit = started(&bob, Way::Direct, "cat");
    let mut other_user = started(&carol, Way::Direct, "cat");
    site.relay
        .admin(&["lock", "user", "bob", "--message", WHY])
        .ok();
    hit.wait(SOON).exits(255).says(CLOSED);
    let mut other_device = started_on(&carol, Way::Direct, attic.name(), "cat");
    site.relay
        .admin(&["lock", "device", "kitchen-cam", "--message", WHY])
        .ok();
    wait_until(SOON, "the session's end", || !other_user.is_alive());
    other_device.write("still here\n");
    other_device.wait_out("still here");
}

#[test]
fn a_lock_names_its_author_and_ends_with_its_time() {
    let site = Site::new();
    let bob = site.relay.user("bob", &["operator"]);
    let session = started(&bob, Way::Direct, "cat");
    let line = format!("lock user bob --ttl 3s --message '{WHY}'");
    run(site.alice.console().arg(line)).ok();
    let text = format!("[holdfast] closed: locked by alice: {WHY}");
    session.wait(SOON).exits(255).says(&text);
    let refused = bob.exec(Way::Direct, "kitchen-cam", "true").exits(255);
    refused
        .says(&format!("locked: {WHY} (lock 1, by alice, until "))
        .says(" UTC)");
    wait_until(SOON, "the lock's end", || {
        bob.exec(Way::Direct, "kitchen-cam", "true").code() == 0
    });
    // Only who administers may lock.
    let refused = run(bob.console().arg("lock user alice")).exits(1);
    refused.says("it needs the ability admin");
}

#[test]
fn nothing_that_is_sent_after_the_lock_reaches_the_device() {
    let site = Site::new();
    let bob = site.relay.user("bob", &["operator"]);
    for way in Way::BOTH {
        let file = site.device.folder().join(format!("file-{way:?}"));
        let mut session = started(&bob, way, &format!("trap '' HUP; cat > {}", file.display()));
        session.write("before\n");
        wait_until(SOON, "the first line", || {
            fs::read_to_string(&file).is_ok_and(|text| text == "before\n")
        });
        let locked = site
            .relay
            .admin(&["lock", "login", &own_login(), "--message", WHY])
            .ok();
        session.write_if_open("after\n");
        session.wait(SOON).exits(255).says(CLOSED);
        assert_eq!(fs::read_to_string(&file).unwrap(), "before\n", "{way:?}");
        let id = locked.out().split([' ', ':']).nth(1).unwrap().to_owned();
        site.relay.admin(&["unlock", &id]).ok();
    }
}

#[test]
fn no_login_gets_past_a_lock() {
    let site = Site::new();
    let bob = site.relay.user("bob", &["operator"]);
    for round in 0..4 {
        let file = site.device.folder().join(format!("starts-{round}"));
        // Clients in every stage of a login, when the lock comes.
        let start = |number: u32| {
            let way = Way::BOTH[number as usize % 2];
            let mut ssh = bob.ssh(way, &own_login(), "kitchen-cam");
            Running::start(ssh.arg(format!("date +%s%N >> {}; cat", file.display())))
        };
        let mut clients = Vec::new();
        for number in 0..12 {
            clients.push(start(number));
            if number == 4 {
                wait_until(SOON, "a first one that is in", || file.exists());
            }
        }
        let locked = site
            .relay
            .admin(&["lock", "user", "bob", "--message", WHY])
            .ok();
        let acknowledged = SystemTime::now();
        for client in clients {
            client.wait(SOON).exits(255);
        }
        let acknowledged = acknowledged.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        for line in fs::read_to_string(&file).unwrap().lines() {
            let began = Duration::from_nanos(line.parse().unwrap());
            assert!(
                began <= acknowledged,
                "began {:?} after the lock",
                began - acknowledged
            );
        }
        let id = locked.out().split([' ', ':']).nth(1).unwrap().to_owned();
        site.relay.admin(&["unlock", &id]).ok();
    }
}

#[test]
fn a_channel_that_was_opened_before_the_lock_starts_nothing() {
    let site = Site::new();
    let bob = site.relay.user("bob", &["operator"]);
    for way in Way::BOTH {
        block_on(async {
            let client = SshClient::connect(&site.relay, &bob, way, "kitchen-cam").await;
            let early = client.try_open().await.unwrap();
            let late = client.try_open().await.unwrap();
            let lock = ["lock", "login", &own_login(), "--message", WHY];
            let locked = site.relay.admin(&lock).ok();
            let ended = Session::exec_on(early, "echo inside").await.wait().await;
            assert_eq!(
                (ended.stdout.as_str(), ended.status),
                ("", Some(255)),
                "{ended:?}"
            );
            let refused = format!("[holdfast] account {} is locked: {WHY} (lock ", own_login());
            assert!(ended.stderr.starts_with(&refused), "{ended:?}");
            let id = locked.out().split([' ', ':']).nth(1).unwrap().to_owned();
            site.relay.admin(&["unlock", &id]).ok();
            let ended = Session::exec_on(late, "echo inside").await.wait().await;
            assert_eq!(ended.stdout, "inside\n");
        });
    }
}

#[test]
fn a_lock_ends_a_transfer() {
    let site = Site::new();
    role(&site.relay, "tech", "");
    let bob = site.relay.user("bob", &["tech"]);
    let (big, copy) = (
        site.relay.folder().join("big"),
        site.device.folder().join("copy"),
    );
    fs::write(&big, vec![7; 20_000_000]).unwrap();
    let mut scp = bob.tool("scp");
    scp.args(["-q", "-l", "20000"]).arg(&big);
    let target = Way::Direct.destination(&own_login(), "kitchen-cam");
    let scp = Running::start(scp.arg(format!("{target}:{}", copy.display())));
    let size = || fs::metadata(&copy).map_or(0, |file| file.len());
    wait_until(SOON, "a part of the copy", || size() > 100_000);
    site.relay
        .admin(&["lock", "role", "tech", "--message", WHY])
        .ok();
    let at_lock = size();
    let ended = scp.wait(SOON).says(CLOSED);
    assert_ne!(ended.code(), 0, "{ended}");
    // What the device had already, it may still write down.
    let more = size() - at_lock;
    assert!(
        size() < 15_000_000 && more < 1_000_000,
        "{more} bytes more: {ended}"
    );
}
