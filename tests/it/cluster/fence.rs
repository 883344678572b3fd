//! Relays that have lost their store: nothing passes that a lock forbids.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::harness::{
    Cluster, Device, Relay, Running, SOON, Terminal, User, Way, own_login, run, wait_until,
};

/// The time after a lock is acknowledged in which a relay that is cut off may let something pass that it forbids.
const BOUND: Duration = Duration::from_secs(10);

/// The interval at which a counter passes.
const STEP: Duration = Duration::from_millis(100);

const LOST: &str = "[holdfast] the relay has lost its store (";

/// A session that passes a counter to a device, which notes when each number arrives, and sends it back.
struct Counter {
    session: Running,
    arrived: PathBuf,
    count: u64,
}

impl Counter {
    #[track_caller]
    fn start(alice: &User, device: &Device) -> Self {
        let arrived = device.folder().join("arrived");
        let mut ssh = alice.ssh(Way::Direct, &own_login(), device.name());
        ssh.arg(format!(
            "while read -r n; do date +%s%N >> {}; echo \"$n\"; done",
            arrived.display()
        ));
        let mut counter = Self {
            session: Running::start(&mut ssh),
            arrived,
            count: 0,
        };
        counter.step();
        counter.session.wait_out("1\n");
        counter
    }

    fn step(&mut self) {
        self.count += 1;
        self.session.write_if_open(&format!("{}\n", self.count));
        std::thread::sleep(STEP);
    }

    fn count_for(&mut self, span: Duration) {
        let began = Instant::now();
        while began.elapsed() < span {
            self.step();
        }
    }

    /// Counts until a command has ended, and returns the time of its end.
    #[track_caller]
    fn count_during(&mut self, mut command: Command) -> SystemTime {
        let command = std::thread::spawn(move || {
            run(&mut command);
            SystemTime::now()
        });
        while !command.is_finished() {
            self.step();
        }
        command.join().unwrap()
    }

    /// Counts until the operator reads this.
    #[track_caller]
    fn count_until_said(&mut self, text: &str) {
        let began = Instant::now();
        while !self.session.err().contains(text) {
            assert!(began.elapsed() < SOON, "{}", self.session.err());
            self.step();
        }
    }

    /// Returns the times at which numbers have arrived.
    #[track_caller]
    fn arrivals(&self) -> Vec<SystemTime> {
        let arrived = fs::read_to_string(&self.arrived).unwrap();
        let nanos = arrived.lines().map(|line| line.parse().unwrap());
        nanos
            .map(|nanos| UNIX_EPOCH + Duration::from_nanos(nanos))
            .collect()
    }
}

fn lock(relay: &Relay, user: &User) -> Command {
    relay.command(&["lock", "user", user.name()])
}

#[test]
fn relay_cut_from_its_store_passes_nothing_that_a_lock_forbids() {
    let Some((mut cluster, links)) = Cluster::start_linked(2) else {
        return;
    };
    let alice = cluster.relays[0].admin_user();
    let device = Device::online(&cluster.relays[0], "kitchen-cam");
    alice.configure(&cluster.relays[1], &["relay"]);
    let mut counter = Counter::start(&alice, &device);
    counter.count_for(Duration::from_secs(1));
    links[1].cut(true);
    let cut = SystemTime::now();
    let acknowledged = counter.count_during(lock(&cluster.relays[0], &alice));
    counter.count_until_said(LOST);
    counter.count_for(BOUND);
    let arrivals = counter.arrivals();
    let last = *arrivals.last().unwrap();
    assert!(last > cut, "nothing passed between the cut and the fence");
    assert!(last < acknowledged + BOUND && last < cut + BOUND);
    // It was declared dead, and ends its run: no number that waits passes.
    links[1].cut(false);
    assert_eq!(cluster.relays[1].wait(SOON).code(), Some(1));
    assert_eq!(counter.arrivals(), arrivals);
    counter.session.wait(SOON).exits(255);
}

#[test]
fn store_that_is_back_is_obeyed_before_anything_passes() {
    let Some((cluster, links)) = Cluster::start_linked(1) else {
        return;
    };
    // It only runs commands, so that the other one is not declared dead.
    let other = cluster.joined();
    let alice = cluster.relays[0].admin_user();
    let device = Device::online(&cluster.relays[0], "kitchen-cam");
    let mut counter = Counter::start(&alice, &device);
    // Without a lock, what was held up passes when the store is back, and nothing is missing.
    links[0].cut(true);
    counter.count_until_said(LOST);
    // What had passed is noted.
    counter.count_for(STEP * 10);
    let frozen = counter.arrivals().len();
    counter.count_for(Duration::from_secs(2));
    assert_eq!(counter.arrivals().len(), frozen);
    links[0].cut(false);
    counter.count_until_said("[holdfast] the relay has its store again");
    counter.session.wait_out(&format!("{}\n", counter.count));
    let numbers = (1..=counter.count).map(|number| format!("{number}\n"));
    assert_eq!(counter.session.out(), numbers.collect::<String>());
    // With one, nothing of it does.
    links[0].cut(true);
    wait_until(SOON, "it is lost again", || {
        counter.step();
        counter.session.err().matches(LOST).count() == 2
    });
    counter.count_for(STEP * 10);
    let arrivals = counter.arrivals();
    counter.count_during(lock(&other, &alice));
    links[0].cut(false);
    let arrived = counter.arrived.clone();
    counter.session.wait(SOON).exits(255).says("locked");
    let lines = fs::read_to_string(arrived).unwrap().lines().count();
    assert_eq!(lines, arrivals.len());
}

#[test]
fn relay_that_was_stopped_passes_nothing_that_a_lock_forbids() {
    let Some((cluster, _links)) = Cluster::start_linked(2) else {
        return;
    };
    let alice = cluster.relays[0].admin_user();
    let device = Device::online(&cluster.relays[0], "kitchen-cam");
    alice.configure(&cluster.relays[1], &["relay"]);
    let mut counter = Counter::start(&alice, &device);
    cluster.relays[1].signal(Signal::STOP);
    let stopped = Instant::now();
    counter.count_during(lock(&cluster.relays[0], &alice));
    // In its sockets the numbers wait.
    let rest = Duration::from_secs(15).saturating_sub(stopped.elapsed());
    counter.count_for(rest);
    let arrivals = counter.arrivals();
    cluster.relays[1].signal(Signal::CONT);
    let arrived = counter.arrived.clone();
    counter.session.wait(SOON).exits(255);
    let lines = fs::read_to_string(arrived).unwrap().lines().count();
    assert_eq!(lines, arrivals.len());
}

#[test]
fn relay_of_a_device_that_is_cut_from_its_store_is_no_pipe() {
    let Some((mut cluster, links)) = Cluster::start_linked(2) else {
        return;
    };
    let alice = cluster.relays[0].admin_user();
    let device = Device::online(&cluster.relays[0], "kitchen-cam");
    let cut = cluster.with_the_device();
    alice.configure(&cluster.relays[1 - cut], &["relay"]);
    let mut counter = Counter::start(&alice, &device);
    links[cut].cut(true);
    counter.count_for(BOUND);
    let arrivals = counter.arrivals();
    counter.count_for(Duration::from_secs(5));
    assert_eq!(counter.arrivals(), arrivals);
    // The other relay has declared it dead: the session does not wait for what becomes of it.
    let arrived = counter.arrived.clone();
    counter.session.wait(Duration::from_secs(10)).exits(255);
    links[cut].cut(false);
    assert_eq!(cluster.relays[cut].wait(SOON).code(), Some(1));
    let lines = fs::read_to_string(arrived).unwrap().lines().count();
    assert_eq!(lines, arrivals.len());
}

#[test]
fn frozen_sessions_end_when_the_store_stays_away() {
    let Some((cluster, links)) = Cluster::start_linked(1) else {
        return;
    };
    let alice = cluster.relays[0].admin_user();
    let device = Device::online(&cluster.relays[0], "kitchen-cam");
    let ssh = alice.ssh(Way::Jump, &own_login(), device.name());
    let mut terminal = Terminal::start(&ssh, 80, 24);
    terminal.send("echo be''fore\r");
    terminal.expect("before");
    let login = own_login();
    let mut fleet = alice.console();
    fleet.args(["exec", "--on", "'*'", "--login", &login, "--"]);
    let fleet = Running::start(fleet.arg("while echo tick; do sleep 0.2; done"));
    fleet.wait_out("kitchen-cam: tick");
    links[0].cut(true);
    let cut = Instant::now();
    terminal.expect(LOST);
    terminal.expect("Waiting");
    terminal.send("echo la''ter\r");
    fleet.wait_err(LOST);
    let passed = fleet.out();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(fleet.out(), passed);
    // 8 s until they are frozen, and 60 s more.
    let within = Duration::from_secs(100);
    assert_eq!(terminal.wait(within).code(), Some(255));
    assert!(cut.elapsed() > Duration::from_secs(60));
    let shown = terminal.shown();
    assert!(
        shown.contains("[holdfast] closed: the relay has lost its store"),
        "{shown}"
    );
    assert!(!shown.contains("later"), "{shown}");
    let ended = fleet.wait(SOON).exits(255);
    ended.says("[holdfast] closed: the relay has lost its store");
}

#[test]
fn sessions_go_on_without_the_store_where_that_is_configured() {
    let Some((mut cluster, links)) = Cluster::start_linked(1) else {
        return;
    };
    let relay = &mut cluster.relays[0];
    relay.terminate(SOON);
    let configuration = cluster.bucket.configuration();
    let text = fs::read_to_string(&configuration).unwrap();
    let text = format!("{text}\n[cluster]\non_store_loss = \"continue\"\n");
    fs::write(&configuration, text).unwrap();
    relay.start_again();
    let alice = cluster.relays[0].admin_user();
    let device = Device::online(&cluster.relays[0], "kitchen-cam");
    let mut counter = Counter::start(&alice, &device);
    links[0].cut(true);
    counter.count_until_said(LOST);
    let err = counter.session.err();
    assert!(err.contains("s). Going on without it"), "{err}");
    counter.count_for(Duration::from_secs(2));
    counter.session.wait_out(&format!("{}\n", counter.count));
}
