//! All relays of a cluster are restarted, one after the other, while it is in use.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::harness::{
    Cluster, Device, Relay, Running, SOON, Terminal, User, Way, command, own_login, run,
};

/// The time that sessions have.
const WAIT: Duration = Duration::from_secs(15);

/// The pieces of a copy, and the time between them: it takes some seconds.
const PIECES: usize = 60;
const PACE: Duration = Duration::from_millis(100);

/// Writes an ssh configuration of its own by which an operator reaches one of the relays.
fn configuration(alice: &User, relay: &Relay, number: usize) -> PathBuf {
    alice.configure(relay, &["relay"]);
    let folder = alice.folder();
    let (known, file) = (
        format!("known_hosts-{number}"),
        format!("ssh_config-{number}"),
    );
    fs::copy(folder.join("known_hosts"), folder.join(&known)).unwrap();
    let text = fs::read_to_string(alice.config()).unwrap();
    fs::write(folder.join(&file), text.replace("known_hosts", &known)).unwrap();
    folder.join(file)
}

/// Returns `ssh` to the device at the relay of a configuration.
fn ssh(configuration: &Path, device: &str) -> std::process::Command {
    let mut ssh = command("ssh");
    ssh.arg("-F").arg(configuration);
    ssh.arg(Way::Direct.destination(&own_login(), device));
    ssh
}

/// Logs in again and again, as a client that is given the addresses of all relays: where none listens, it tries the next.
struct Logins {
    is_over: Arc<AtomicBool>,
    worker: JoinHandle<(usize, Vec<String>)>,
}

impl Logins {
    fn start(mut configurations: Vec<PathBuf>, device: String) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let over = is_over.clone();
        let worker = std::thread::spawn(move || {
            let (mut done, mut failed) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                configurations.rotate_left(1);
                let tries = configurations.iter();
                let mut tries = tries.map(|one| run(ssh(one, &device).arg("echo in")));
                let login = tries.find(|output| !output.err().contains("Connection refused"));
                match login {
                    Some(output) if output.out() == "in\n" => done += 1,
                    Some(output) => failed.push(output.to_string()),
                    None => failed.push("no relay listens".to_owned()),
                }
            }
            (done, failed)
        });
        Self { is_over, worker }
    }

    /// Ends them. Returns how many there were, and those that failed.
    fn end(self) -> (usize, Vec<String>) {
        self.is_over.store(true, Ordering::Relaxed);
        self.worker.join().unwrap()
    }
}

#[test]
fn relays_are_restarted_one_by_one_while_they_are_in_use() {
    let Some(mut cluster) = Cluster::start(3) else {
        return;
    };
    let alice = cluster.relays[0].admin_user();
    let device = Device::online(&cluster.relays[0], "kitchen-cam");
    let all: Vec<_> = (0..3)
        .map(|number| configuration(&alice, &cluster.relays[number], number))
        .collect();
    let logins = Logins::start(all.clone(), device.name().to_owned());
    for drained in 0..3 {
        let name = cluster.name(drained);
        let other = (drained + 1) % 3;
        let mut shell = Terminal::start(&ssh(&all[drained], device.name()), 80, 24);
        shell.send("echo be''fore\r");
        shell.expect("before");
        let file = device.folder().join(format!("copy-{drained}"));
        let mut copy = ssh(&all[other], device.name());
        let mut copy = Running::start(copy.arg(format!("cat > {}", file.display())));

        let wait = format!("{}s", WAIT.as_secs());
        let drain = ["cluster", "drain", &name, "--wait", &wait];
        let began = Instant::now();
        let drain = Running::start(&mut cluster.relays[other].command(&drain));
        shell.expect("[holdfast] the relay is drained: this session is closed at ");
        let piece = "x".repeat(10_000);
        for _ in 0..PIECES {
            copy.write(&piece);
            sleep(PACE);
        }
        copy.end_input();
        copy.wait(SOON).ok();
        assert_eq!(fs::read_to_string(file).unwrap(), piece.repeat(PIECES));
        // The shell goes on for as long as it may.
        while began.elapsed() < WAIT - Duration::from_secs(4) {
            shell.send("echo sti''ll\r");
            shell.expect("still");
            sleep(PACE);
        }
        shell.expect("[holdfast] closed: the relay was drained");
        assert!(began.elapsed() + Duration::from_secs(1) > WAIT);
        assert_eq!(shell.wait(SOON).code(), Some(255));
        drain.wait(SOON).ok();

        let relay = &mut cluster.relays[drained];
        relay.terminate(SOON);
        relay.start_again();
        cluster.wait_state(&name, "active", SOON);
    }
    let (done, failed) = logins.end();
    assert_eq!(failed, Vec::<String>::new());
    assert!(done >= 10, "{done}");
    // It was never away.
    let offline = ["audit", "--event", "device.offline", "--json"];
    assert_eq!(cluster.relays[0].admin(&offline).ok().out(), "");
}
