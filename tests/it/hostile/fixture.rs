//! A relay in a memory cgroup, with another user who types meanwhile: what a peer causes is seen by both.

use std::cell::OnceCell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hostile::Outcome;
use hostile::cases;
use hostile::operator::{self, OperatorTarget};
use serde_json::Value;

use crate::harness::{
    Device, Echo, MemoryBound, Relay, Running, SOON, User, Way, block_on, memory, own_login, p99,
    wait_until,
};

/// The relay's memory in all.
const BOUND: u64 = 256 << 20;

/// The most that one of the floods may cost of it.
const BEARABLE: u64 = 48 << 20;

/// The most that another user's keystroke may take beside a flood.
const SLOW: Duration = Duration::from_millis(200);

/// The factor by which it may be slower than beside no flood where that is more: a machine that is busy with other things is slow
/// by itself, and must not fail the test.
const SLOWER: u32 = 3;

/// The number of times that a flood that lasts is looked at before it counts as a disturbance.
pub(super) const LOOKS: usize = 3;

/// A relay with little memory, a good device with a user on it, and an administrator whom others lie to.
pub(super) struct Siege {
    pub(super) alice: User,
    agent: OnceCell<(PathBuf, Running)>,
    /// The server that `ssh -R` leads to.
    pub(super) target: Target,
    echo: Echo,
    /// The 99th percentile of the echo beside no flood.
    calm: Duration,
    before: u64,
    _kitchen: Device,
    pub(super) relay: Relay,
    // Last: it goes when all has ended.
    bound: Option<MemoryBound>,
}

/// A server that takes each connection, says nothing, and waits until it ends.
pub(super) struct Target {
    address: SocketAddr,
    taken: Arc<AtomicUsize>,
}

impl Target {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                count.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || io::copy(&mut stream, &mut io::sink()));
            }
        });
        Self { address, taken }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of connections that it has taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Siege {
    #[track_caller]
    pub(super) fn new() -> Self {
        let bound = MemoryBound::new(BOUND);
        let mut relay = Relay::new(&[]);
        if let Some(bound) = &bound {
            let wrapper = bound.wrapper();
            relay.run_by(&wrapper.iter().map(String::as_str).collect::<Vec<_>>());
        }
        relay.start_again();
        let alice = relay.admin_user();
        let bob = relay.user("bob", &["operator"]);
        let kitchen = Device::online(&relay, "kitchen-cam");
        let mut cat = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
        cat.arg("cat");
        let mut echo = Echo::start(cat);
        let calm = p99(&mut echo);
        let before = memory(relay.id());
        Self {
            alice,
            agent: OnceCell::new(),
            target: Target::new(),
            echo,
            calm,
            before,
            _kitchen: kitchen,
            relay,
            bound,
        }
    }

    /// The other user goes on typing beside a flood that lasts, and the relay has not grown by more than it may. A
    /// flood that disturbs does so each time that it is looked at; what else the machine does may disturb once.
    #[track_caller]
    pub(super) fn is_borne(&mut self, what: &str) {
        let bound = SLOW.max(self.calm * SLOWER);
        let mut looks = (0..LOOKS).map(|_| p99(&mut self.echo));
        let busy = looks.find(|busy| *busy < bound);
        self.has_not_grown(what);
        assert!(busy.is_some(), "{what}: each time {bound:?} or more");
        eprintln!(
            "{what}: p99 echo of another user {busy:?} (calm {:?})",
            self.calm
        );
    }

    /// The same of what is to be over soon, for as long as it takes. Returns what was too slow.
    #[track_caller]
    pub(super) fn is_borne_until(
        &mut self,
        what: &str,
        mut is_over: impl FnMut() -> bool,
    ) -> Option<String> {
        let deadline = Instant::now() + SOON * 3;
        let mut busy = Duration::ZERO;
        loop {
            let over = is_over();
            busy = busy.max(p99(&mut self.echo));
            if over {
                break;
            }
            assert!(Instant::now() < deadline, "{what}: it does not end");
        }
        self.has_not_grown(what);
        // What comes next is held to what it costs by itself; the kernel's bound is on all of it.
        self.before = memory(self.relay.id());
        if busy >= SLOW.max(self.calm * SLOWER) {
            // It is over: if the echo is as slow now, the machine is busy with other things.
            self.calm = self.calm.max(p99(&mut self.echo));
        }
        let bound = SLOW.max(self.calm * SLOWER);
        let echo = format!(
            "{what}: p99 echo of another user {busy:?} (calm {:?})",
            self.calm
        );
        eprintln!("{echo}");
        (busy >= bound).then_some(echo)
    }

    #[track_caller]
    fn has_not_grown(&self, what: &str) {
        let grown = memory(self.relay.id()).saturating_sub(self.before);
        let peak = self.bound.as_ref().and_then(MemoryBound::peak);
        eprintln!(
            "{what}: the relay has grown by {} KiB (peak of its cgroup: {peak:?})",
            grown / 1024
        );
        assert!(grown < BEARABLE, "{what}: {} MiB", grown >> 20);
    }

    /// `ssh` of the administrator to the device that lies.
    pub(super) fn ssh(&self, args: &[&str]) -> Command {
        self.ssh_to("mallory", args)
    }

    /// `ssh` of the administrator to a device; options come first.
    pub(super) fn ssh_to(&self, device: &str, args: &[&str]) -> Command {
        let mut ssh = self.alice.tool("ssh");
        ssh.args(args)
            .arg(format!("{}+{device}@relay", own_login()));
        ssh
    }

    /// Returns the `ssh` of an administrator who uses a device so; `None`: they do nothing.
    pub(super) fn user_of(&self, how: &str, device: &str) -> Option<Command> {
        let ssh = |args: &[&str]| self.ssh_to(device, args);
        let mut ssh = match how {
            "nothing" => return None,
            "exec" | "leave" => ssh(&[]),
            "sftp" => ssh(&["-s"]),
            // Nothing listens behind it.
            "listen" => ssh(&["-N", "-R", "0:127.0.0.1:9"]),
            "serve" => ssh(&["-N", "-R", &format!("0:{}", self.target.address())]),
            "connect" => ssh(&["-W", "127.0.0.1:7"]),
            "agent" => ssh(&["-A"]),
            other => panic!("no use {other:?}"),
        };
        match how {
            "exec" | "leave" => drop(ssh.arg("true")),
            "sftp" => drop(ssh.arg("sftp")),
            "agent" => drop(ssh.arg("true").env("SSH_AUTH_SOCK", self.agent())),
            _ => {}
        }
        Some(ssh)
    }

    /// Returns the socket of the administrator's SSH agent, which runs from the first call on.
    pub(super) fn agent(&self) -> &Path {
        let (socket, _) = self.agent.get_or_init(|| {
            let socket = self.alice.folder().join("agent");
            let mut agent = Command::new("ssh-agent");
            let agent = Running::start(agent.arg("-D").arg("-a").arg(&socket));
            wait_until(SOON, "the SSH agent", || socket.exists());
            (socket, agent)
        });
        socket
    }

    #[track_caller]
    pub(super) fn audited(&self, event: &str) -> Vec<Value> {
        self.rows(&["--event", event])
    }

    /// All rows of the audit log that the filter lets through.
    #[track_caller]
    pub(super) fn rows(&self, filter: &[&str]) -> Vec<Value> {
        let listing = [&["audit", "--json", "--limit", "0"], filter].concat();
        let lines = self.relay.admin(&listing).ok().out();
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub(super) fn operator(&self, key: &User, user: &str, case: &str, count: u32) -> Outcome {
        let target = self.operated(key, user, count, Duration::from_secs(3));
        let case = cases::of_operator(case).unwrap();
        block_on(operator::play(case, target)).unwrap()
    }

    pub(super) fn operated(
        &self,
        key: &User,
        user: &str,
        count: u32,
        within: Duration,
    ) -> OperatorTarget {
        OperatorTarget {
            relay: self.relay.ssh(),
            key: key.key(),
            user: user.to_owned(),
            count,
            within,
        }
    }
}
