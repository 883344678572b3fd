//! Relays that drain.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{
    Cluster, Device, Relay, Running, SOON, Terminal, User, Way, own_login, run, wait_until,
};
use crate::health::get;

/// The time within which the devices of a relay that drains are gone.
const GONE: Duration = Duration::from_secs(75);

/// The notice that sessions get.
const NOTICE: &str = "[holdfast] the relay is drained: this session is closed at ";

/// Two relays, and a device that has its tunnel at the one that is to drain.
struct Draining {
    alice: User,
    device: Device,
    drained: usize,
    // Last, so that it ends last.
    cluster: Cluster,
}

impl Draining {
    /// Starts them; `None`: what a cluster needs is not installed.
    #[track_caller]
    fn start() -> Option<Self> {
        Cluster::start(2).map(Self::with)
    }

    #[track_caller]
    fn with(cluster: Cluster) -> Self {
        let alice = cluster.relays[0].admin_user();
        let device = Device::online(&cluster.relays[0], "kitchen-cam");
        Self {
            alice,
            device,
            drained: cluster.with_the_device(),
            cluster,
        }
    }

    fn drained(&self) -> &Relay {
        &self.cluster.relays[self.drained]
    }

    fn other(&self) -> &Relay {
        &self.cluster.relays[1 - self.drained]
    }

    /// Opens a shell whose operator is at this relay.
    #[track_caller]
    fn shell(&self, relay: &Relay) -> Terminal {
        self.alice.configure(relay, &["relay"]);
        let ssh = self
            .alice
            .ssh(Way::Direct, &own_login(), self.device.name());
        let mut terminal = Terminal::start(&ssh, 80, 24);
        terminal.send("echo be''fore\r");
        terminal.expect("before");
        terminal
    }

    /// `cluster drain`, on the folder of the other relay.
    fn drain(&self, wait: &str) -> Command {
        let name = self.cluster.name(self.drained);
        let drain = ["cluster", "drain", &name, "--wait", wait];
        self.other().command(&drain)
    }
}

#[test]
fn sessions_outlive_the_move_of_their_device_from_a_relay() {
    let Some(site) = Draining::start() else {
        return;
    };
    let mut local = site.shell(site.drained());
    let mut across = site.shell(site.other());
    let drain = Running::start(&mut site.drain("10m"));
    for terminal in [&mut local, &mut across] {
        terminal.expect(NOTICE);
        terminal.expect("minutes");
    }
    site.cluster.wait_at(1 - site.drained, GONE);
    let name = site.cluster.name(site.drained);
    site.cluster.wait_state(&name, "draining", SOON);
    let address = site.drained().ssh();
    wait_until(SOON, "it takes no logins", || {
        TcpStream::connect(address).is_err()
    });
    let again = site
        .alice
        .exec(Way::Direct, site.device.name(), "echo again");
    assert_eq!(again.ok().out(), "again\n");

    // Longer than a tunnel is kept that nothing goes over.
    std::thread::sleep(Duration::from_secs(12));
    drain.wait_out("still has 1 tunnel and 2 sessions");
    for terminal in [&mut local, &mut across] {
        terminal.send("echo sti''ll\r");
        terminal.expect("still");
    }
    for terminal in [&mut local, &mut across] {
        terminal.send("exit 3\r");
        assert_eq!(terminal.wait(SOON).code(), Some(3));
    }
    let drained = drain.wait(SOON).ok().out();
    assert!(drained.contains(&format!("{name} is drained")), "{drained}");
    // It has not been away for a moment.
    let offline = ["audit", "--event", "device.offline", "--json"];
    assert_eq!(site.other().admin(&offline).ok().out(), "");
}

#[test]
fn sessions_are_closed_at_the_deadline_of_a_drain() {
    let Some(mut site) = Draining::start() else {
        return;
    };
    let mut local = site.shell(site.drained());
    let mut across = site.shell(site.other());
    let drain = Running::start(&mut site.drain("12s"));
    for terminal in [&mut local, &mut across] {
        terminal.expect(NOTICE);
    }
    for terminal in [&mut local, &mut across] {
        terminal.expect("[holdfast] closed: the relay was drained");
        assert_eq!(terminal.wait(SOON).code(), Some(255));
    }
    let drained = drain.wait(Duration::from_secs(40)).ok().out();
    assert!(drained.contains("is drained"), "{drained}");

    // A restart makes it active again, and it takes logins.
    let name = site.cluster.name(site.drained);
    let drained = site.drained;
    site.cluster.relays[drained].terminate(SOON);
    site.cluster.relays[drained].start_again();
    site.cluster.wait_state(&name, "active", SOON);
    site.alice.configure(site.drained(), &["relay"]);
    let again = site
        .alice
        .exec(Way::Direct, site.device.name(), "echo again");
    assert_eq!(again.ok().out(), "again\n");
}

#[test]
fn sessions_have_their_grace_when_a_relay_of_a_cluster_stops() {
    let Some(mut cluster) = Cluster::start(2) else {
        return;
    };
    let configuration = cluster.bucket.configuration();
    let text = fs::read_to_string(&configuration).unwrap();
    fs::write(&configuration, format!("drain_grace = \"5m\"\n{text}")).unwrap();
    for relay in &mut cluster.relays {
        relay.terminate(SOON);
        relay.start_again();
    }
    let mut site = Draining::with(cluster);
    let mut local = site.shell(site.drained());
    let mut across = site.shell(site.other());
    site.drained().signal(Signal::TERM);
    site.cluster.wait_at(1 - site.drained, GONE);
    // Longer than a tunnel is kept that nothing goes over.
    std::thread::sleep(Duration::from_secs(12));
    for terminal in [&mut local, &mut across] {
        terminal.send("echo sti''ll; exit 3\r");
        terminal.expect("still");
        assert_eq!(terminal.wait(SOON).code(), Some(3));
    }
    let drained = site.drained;
    let ended = site.cluster.relays[drained].wait(SOON);
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn drained_relay_is_not_ready_until_it_starts_again() {
    let Some(mut cluster) = Cluster::start(1) else {
        return;
    };
    cluster.relays[0].admin_user();
    let mut joined = cluster.joined();
    // No other test uses the relay's address, so the port stays free.
    let free = TcpListener::bind((joined.ssh().ip(), 0)).unwrap();
    let health = free.local_addr().unwrap();
    drop(free);
    let file = joined.folder().join("relay.toml");
    let common = fs::read_to_string(cluster.bucket.configuration()).unwrap();
    fs::write(&file, format!("{common}[health]\nlisten = \"{health}\"\n")).unwrap();
    joined.clear_flags();
    joined.add_flags(&["--config", file.to_str().unwrap()]);
    joined.start_again();
    cluster.relays.push(joined);
    let (first, second) = (cluster.name(0), cluster.name(1));
    let drain = |name: &str| cluster.relays[0].admin(&["cluster", "drain", name]);
    drain("nowhere")
        .exits(1)
        .says("no relay \"nowhere\" in the cluster");
    assert_eq!(get(health, "/readyz").0, "200");

    // Nothing is there that it would have to wait for.
    let drained = drain(&second).ok().out();
    assert!(
        drained.contains(&format!("{second} is drained")),
        "{drained}"
    );
    let (status, sentence) = get(health, "/readyz");
    assert_eq!(status, "503", "{sentence}");
    assert!(sentence.contains("drained"), "{sentence}");
    assert_eq!(get(health, "/healthz").0, "200");
    let last = drain(&first).exits(1);
    last.says("is the last relay that takes logins");
    let audit = ["audit", "--json", "--event", "relay.drained"];
    let rows = cluster.relays[0].admin(&audit).ok().out();
    let done = |row: &&str| row.contains("success") && row.contains(&second);
    assert_eq!(rows.lines().filter(done).count(), 1, "{rows}");

    cluster.relays[1].terminate(SOON);
    let down = run(&mut cluster.relays[0].command(&["cluster", "drain", &second])).exits(1);
    down.says("does not run");
    cluster.relays[1].start_again();
    cluster.wait_state(&second, "active", SOON);
    wait_until(SOON, "it is ready", || get(health, "/readyz").0 == "200");
}
