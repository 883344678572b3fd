//! The jump way, and what it is not.

use std::fs;
use std::net::TcpListener;

use crate::harness::{Device, Relay, SOON, Site, User, Way, command, own_login, run, wait_until};

/// Returns what `relay ssh-config` prints of its certificate authority: the type and the key.
#[track_caller]
fn authority(relay: &Relay) -> String {
    let lines = relay.admin(&["ssh-config", "--known-hosts"]).ok().out();
    let line = lines
        .lines()
        .find_map(|line| line.strip_prefix("@cert-authority *.fleet "));
    line.unwrap_or_else(|| panic!("no authority in {lines}"))
        .to_owned()
}

/// The relay's own line, as its operators have it.
#[track_caller]
fn own_line(relay: &Relay) -> String {
    let lines = relay.admin(&["ssh-config", "--known-hosts"]).ok().out();
    let own = format!("[{}]:{} ", relay.ssh().ip(), relay.ssh().port());
    lines
        .lines()
        .find(|line| line.starts_with(&own))
        .unwrap()
        .to_owned()
}

fn write_known_hosts(user: &User, lines: &[&str]) {
    fs::write(user.folder().join("known_hosts"), lines.join("\n") + "\n").unwrap();
}

#[test]
fn natural_names_work_with_the_authoritys_line_alone() {
    let site = Site::new();
    let (alice, relay) = (&site.alice, &site.relay);
    alice.configure(relay, &["kitchen-cam"]);
    let authority = format!("@cert-authority *.fleet,kitchen-cam {}", authority(relay));
    write_known_hosts(alice, &[&own_line(relay), &authority]);
    for name in ["kitchen-cam", "kitchen-cam.fleet", "Kitchen-Cam.fleet"] {
        let mut ssh = alice.tool("ssh");
        ssh.arg(format!("{}@{name}", own_login())).arg("echo hello");
        assert_eq!(run(&mut ssh).ok().out(), "hello\n", "{name}");
    }
    // By the flag, as a user types it who has no configuration for devices.
    let config = fs::read_to_string(alice.config()).unwrap();
    let bare = alice.folder().join("bare_config");
    fs::write(&bare, config.replace("ProxyJump relay", "")).unwrap();
    let mut ssh = command("ssh");
    ssh.arg("-F").arg(&bare).args(["-J", "relay"]);
    ssh.arg(format!("{}@kitchen-cam", own_login()))
        .arg("echo by flag");
    assert_eq!(run(&mut ssh).ok().out(), "by flag\n");
    let known = fs::read_to_string(alice.folder().join("known_hosts")).unwrap();
    assert_eq!(
        known.lines().count(),
        2,
        "no key of a device was written down: {known}"
    );
}

/// Two kinds of clients: one has the authority's line for the relay, one has keys alone.
#[test]
fn host_key_is_replaced_before_the_eyes_of_its_clients() {
    let mut relay = Relay::start();
    let alice = relay.admin_user();
    let bob = relay.user("bob", &["admin"]);
    let (own, ca) = (own_line(&relay), authority(&relay));
    let trusts_ca = format!("@cert-authority * {ca}");
    write_known_hosts(&alice, &[&trusts_ca]);
    write_known_hosts(&bob, &[&own]);
    let come_in = |are: [bool; 2]| {
        for (user, is_in) in [&alice, &bob].into_iter().zip(are) {
            let output = run(user.console().arg("whoami"));
            assert_eq!(output.code() == 0, is_in, "{}: {output}", user.name());
        }
    };
    come_in([true, true]);
    let rotate = ["ca", "host-key", "rotate"];
    let finish = [&rotate[..], &["--finish"]].concat();
    relay
        .admin(&finish)
        .exits(1)
        .says("there is no next host key");
    run(alice.console().args(rotate))
        .exits(1)
        .says("on the relay's machine");
    relay.admin(&rotate).ok();
    let lines = relay.admin(&["ssh-config", "--known-hosts"]).ok().out();
    let both: Vec<&str> = lines
        .lines()
        .filter(|line| !line.starts_with('@'))
        .collect();
    assert!(both.len() == 2 && both[0] == own, "{lines}");
    let keys = relay.json(&["ca", "host-key", "--json"]);
    assert!(both[1].ends_with(keys["next_public_key"].as_str().unwrap()));
    // Asked for again, it is the same one, which clients may have by now.
    relay.admin(&rotate).ok();
    assert_eq!(relay.json(&["ca", "host-key", "--json"]), keys);
    relay.restart();
    come_in([true, true]);
    relay.admin(&finish).ok();
    come_in([true, true]);
    // Until the relay starts again it shows the old key, which `relay exec` still takes.
    let (login, key) = (own_login(), alice.key());
    let by_key = ["exec", "--login", &login, "-i", key.to_str().unwrap()];
    let by_key = [
        &by_key[..],
        &["-o", "BatchMode=yes", "--on", "*", "--", "true"],
    ]
    .concat();
    let before = relay.admin(&by_key);
    assert!(!before.err().contains("Host key"), "{before}");
    relay.restart();
    let after = relay.admin(&by_key);
    assert_eq!((after.code(), after.err()), (before.code(), before.err()));
    come_in([true, false]);
    write_known_hosts(&bob, &[both[1]]);
    come_in([true, true]);
    let now = relay.json(&["ca", "host-key", "--json"]);
    assert_eq!(now["fingerprint"], keys["next_fingerprint"]);
    assert!(now["next_fingerprint"].is_null(), "{now}");
}

#[test]
fn a_host_key_proves_nothing_without_the_authority() {
    let site = Site::new();
    let other = Relay::start();
    let foreign = format!("@cert-authority *.fleet {}", authority(&other));
    for lines in [
        vec![own_line(&site.relay)],
        vec![own_line(&site.relay), foreign],
    ] {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        write_known_hosts(&site.alice, &lines);
        let refused = site.exec(Way::Jump, "echo inside").exits(255);
        assert_eq!(refused.says("Host key verification failed").out(), "");
    }
}

#[test]
fn a_certificate_is_for_one_device() {
    let site = Site::new();
    let attic = Device::online(&site.relay, "attic-node");
    let (alice, relay) = (&site.alice, &site.relay);
    site.alice.exec(Way::Jump, attic.name(), "true").ok();
    let mut ssh = alice.ssh(Way::Jump, &own_login(), "attic-node");
    ssh.args(["-o", "HostKeyAlias=kitchen-cam.fleet", "echo inside"]);
    let refused = run(&mut ssh).exits(255);
    assert_eq!(refused.out(), "");
    refused.says("name is not a listed principal");
    // Nor is the relay's own, which the same authority made, good for a device.
    let authority = format!("@cert-authority * {}", authority(relay));
    write_known_hosts(alice, &[&authority]);
    run(alice.console().arg("devices")).ok();
    let mut console = alice.tool("ssh");
    console.args(["-o", "HostKeyAlias=kitchen-cam.fleet", "relay", "devices"]);
    run(&mut console)
        .exits(255)
        .says("name is not a listed principal");
}

#[test]
fn the_printed_configuration_is_enough() {
    let site = Site::new();
    let alice = &site.alice;
    let printed = site.relay.admin(&["ssh-config"]).ok().out();
    // What is the operator's own: which key, and that no file of this machine's user is read.
    let own = format!(
        "Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile none\n  \
         GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n  BatchMode yes\n",
        alice.key().display()
    );
    let config = alice.folder().join("printed_config");
    fs::write(&config, format!("{printed}\n{own}")).unwrap();
    let ssh = |args: &[&str]| {
        let mut ssh = command("ssh");
        run(ssh.arg("-F").arg(&config).args(args)).ok().out()
    };
    let login = own_login();
    let jump = format!("{login}@kitchen-cam.fleet");
    assert_eq!(ssh(&[&jump, "echo jumped"]), "jumped\n");
    let (host, port) = (
        site.relay.ssh().ip().to_string(),
        site.relay.ssh().port().to_string(),
    );
    let direct = format!("{login}+kitchen-cam@{host}");
    assert_eq!(ssh(&["-p", &port, &direct, "echo direct"]), "direct\n");
    assert!(ssh(&["-p", &port, &host, "whoami"]).contains("alice"));
}

#[test]
fn the_relay_dials_no_address_for_a_client() {
    let site = Site::new();
    // There is a listener, which must not be dialled.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let own = site.relay.ssh();
    let targets = [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        format!("kitchen-cam:{port}"),
        format!("{own}"),
        "127.0.0.1:22".to_owned(),
        "example.com:22".to_owned(),
        "kitchen-cam.fleet:80".to_owned(),
        "kitchen-cam.example.com:22".to_owned(),
        "kitchen-cqm:22".to_owned(),
    ];
    for target in targets {
        let mut ssh = site.alice.tool("ssh");
        let refused = run(ssh.args(["-W", &target, "relay"])).exits(255);
        assert_eq!(refused.out(), "", "{target}");
        refused.says("administratively prohibited: ");
    }
    assert!(listener.accept().is_err(), "the listener was dialled");
}

#[test]
fn an_agent_and_a_display_are_refused_on_both_ways() {
    let site = Site::new();
    for way in Way::BOTH {
        // Neither is a reason to fail.
        let mut ssh = site.ssh(way);
        let output = run(ssh.args(["-A", "-X", "echo still; env"])).ok();
        assert!(output.out().starts_with("still\n"), "{output}");
        assert!(!output.out().contains("SSH_AUTH_SOCK="), "{output}");
        assert!(!output.out().contains("DISPLAY="), "{output}");
    }
}

#[test]
fn the_relay_listens_for_no_user() {
    let site = Site::new();
    let mut ssh = site.alice.tool("ssh");
    ssh.args([
        "-v",
        "-o",
        "ExitOnForwardFailure=yes",
        "-R",
        "0:127.0.0.1:1",
    ]);
    let refused = run(ssh.args(["relay", "devices"])).exits(255);
    refused
        .says("remote port forwarding failed")
        .says("the relay accepts no reverse forwards: name a device");
    wait_until(SOON, "the refusal in the audit log", || {
        let filter = ["audit", "--event", "port.forward", "--json"];
        let rows = site.relay.admin(&filter).ok().out();
        rows.matches("\"outcome\":\"refused\"").count() == 1
    });
}
