//! One name for operators, which leads to any relay of the cluster.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::harness::{Cluster, Relay, SOON, User, command, run};

/// A TCP balancer that passes connections to one relay at a time.
struct Switch {
    port: u16,
    to: Arc<Mutex<SocketAddr>>,
}

impl Switch {
    fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let switch = Self {
            port: listener.local_addr().unwrap().port(),
            to: Arc::new(Mutex::new(to)),
        };
        let to = switch.to.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let to = *to.lock().unwrap();
                if let (Ok(client), Ok(relay)) = (client, TcpStream::connect(to)) {
                    pass(client.try_clone().unwrap(), relay.try_clone().unwrap());
                    pass(relay, client);
                }
            }
        });
        switch
    }
}

/// Passes on what comes on one connection, in one direction.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// Runs `ssh` by the name alone, with what a relay's `ssh-config` prints and nothing else. `lines` are those of
/// known_hosts that are left.
#[track_caller]
fn dial(user: &User, port: u16, lines: &[String], words: &[&str]) -> String {
    let known = user.folder().join("known_hosts");
    fs::write(&known, lines.join("\n") + "\n").unwrap();
    let mut ssh = command("ssh");
    ssh.arg("-F").arg("none").arg("-i").arg(user.key());
    for option in [
        &format!("UserKnownHostsFile={}", known.display()),
        "GlobalKnownHostsFile=none",
        "StrictHostKeyChecking=yes",
        "BatchMode=yes",
        "IdentitiesOnly=yes",
    ] {
        ssh.args(["-o", option]);
    }
    ssh.args(["-p", &port.to_string(), "localhost"]).args(words);
    run(&mut ssh).ok().out()
}

#[test]
fn all_relays_are_known_under_the_one_name_of_operators() {
    let Some(mut cluster) = Cluster::start(2) else {
        return;
    };
    let switch = Switch::start(cluster.relays[0].ssh());
    let port = switch.port;
    let configuration = fs::read_to_string(cluster.bucket.configuration()).unwrap();
    let named = format!("public_ssh = \"localhost:{port}\"\n{configuration}");
    let file = cluster.relays[0].folder().join("named.toml");
    fs::write(&file, named).unwrap();
    for relay in &mut cluster.relays {
        relay.terminate(SOON);
        relay.clear_flags();
        relay.add_flags(&["--config", file.to_str().unwrap()]);
        relay.start_again();
    }
    let alice = cluster.relays[0].admin_user();
    let lines = |relay: &Relay| {
        let printed = relay.admin(&["ssh-config", "--known-hosts"]).ok().out();
        printed.lines().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let known = lines(&cluster.relays[0]);
    assert_eq!(known, lines(&cluster.relays[1]));
    let authority = format!("@cert-authority [localhost]:{port} ");
    let plain = format!("[localhost]:{port} ");
    for relay in &cluster.relays {
        *switch.to.lock().unwrap() = relay.ssh();
        for begins in [&authority, &plain] {
            let mut one = known.clone();
            one.retain(|line| line.starts_with(begins.as_str()));
            assert_eq!(one.len(), 1, "{known:?}");
            let said = dial(&alice, port, &one, &["whoami"]);
            assert!(said.contains("alice"), "{said}");
        }
        // Who wants this relay and no other finds it under its own address.
        let ssh = relay.ssh();
        let own = format!("@cert-authority [{}]:{} ", ssh.ip(), ssh.port());
        let ca = known[1].strip_prefix(&authority).unwrap();
        let known = alice.folder().join("own");
        fs::write(&known, format!("{own}{ca}\n")).unwrap();
        let mut console = alice.console();
        console.arg("-o");
        console.arg(format!("UserKnownHostsFile={}", known.display()));
        console.args(["-o", &format!("HostName={}", ssh.ip())]);
        console.args(["-o", &format!("Port={}", ssh.port()), "whoami"]);
        run(&mut console).ok();
        // The device's lines and the hints name what operators dial.
        let config = relay.admin(&["ssh-config"]).ok().out();
        let jump = format!("ProxyJump localhost:{port}\n");
        assert!(config.contains(&jump), "{config}");
    }
    for member in cluster.members() {
        assert_eq!(member["ssh"], format!("localhost:{port}"), "{member}");
    }
    // Devices dial each relay by its own address, which the tokens name.
    for relay in &cluster.relays {
        let members = cluster.members();
        let mut tunnels = members.iter().map(|member| member["tunnel"].clone());
        assert!(tunnels.any(|tunnel| tunnel == relay.tunnel().to_string()));
    }
}
