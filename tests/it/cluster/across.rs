//! Operators on one relay, devices on another.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{
    Cluster, Device, Output, Relay, Running, SOON, Terminal, User, Way, own_login, run, wait_for,
    wait_until,
};

/// The time within which a login says that a relay cannot be reached.
const LOGIN_BOUND: Duration = Duration::from_secs(15);

/// The time within which a session across ends when its relays cannot reach each other.
const SESSION_BOUND: Duration = Duration::from_secs(45);

/// The time within which a device whose relay is gone is back at another.
const BACK: Duration = Duration::from_secs(35);

/// Two relays: the operator is on one, the device is on the other.
pub(super) struct Across {
    pub(super) alice: User,
    pub(super) device: Device,
    pub(super) operators: usize,
    // Last, so that it ends last.
    pub(super) cluster: Cluster,
}

impl Across {
    /// Starts them; `None`: what a cluster needs is not installed.
    #[track_caller]
    pub(super) fn start() -> Option<Self> {
        let cluster = Cluster::start(2)?;
        let device = Device::online(&cluster.relays[0], "kitchen-cam");
        let operators = 1 - cluster.with_the_device();
        Some(Self {
            alice: cluster.relays[operators].admin_user(),
            device,
            operators,
            cluster,
        })
    }

    pub(super) fn operators(&self) -> &Relay {
        &self.cluster.relays[self.operators]
    }

    pub(super) fn devices(&mut self) -> &mut Relay {
        &mut self.cluster.relays[1 - self.operators]
    }

    pub(super) fn ssh(&self, way: Way) -> Command {
        self.alice.ssh(way, &own_login(), self.device.name())
    }

    #[track_caller]
    pub(super) fn exec(&self, way: Way, line: &str) -> Output {
        run(self.ssh(way).arg(line))
    }

    fn remote(&self) -> String {
        Way::Jump.destination(&own_login(), self.device.name())
    }
}

#[test]
fn commands_and_shells_run_on_a_device_of_another_relay() {
    let Some(site) = Across::start() else {
        return;
    };
    for way in Way::BOTH {
        let output = site.exec(way, "echo hello; echo oops >&2; exit 7");
        assert_eq!(output.exits(7).says("oops").out(), "hello\n", "{way:?}");
        let mut terminal = Terminal::start(&site.ssh(way), 91, 27);
        terminal.send("stty size; exit 3\r");
        terminal.expect("27 91");
        assert_eq!(terminal.wait(SOON).code(), Some(3));
    }
    // The relay of the operator has them in the log, with what the other one knows of the device.
    let rows = ["audit", "--event", "exec", "--json"];
    let rows = site.operators().admin(&rows).ok().out();
    let of_device = rows.matches("\"device_address\":\"127.0.0.1:");
    assert_eq!(of_device.count(), 2, "{rows}");
    // What is recorded is uploaded to the relay of the device, and judged once.
    wait_until(BACK, "each recording has its verdict", || {
        let rows = site.operators().json(&["recordings", "--json"]);
        let rows = rows.as_array().unwrap();
        rows.len() == 4 && rows.iter().all(|row| row["state"] == "complete")
    });
    let verdicts = ["audit", "--event", "recording.complete", "--json"];
    let verdicts = site.operators().admin(&verdicts).ok().out();
    assert_eq!(verdicts.lines().count(), 4, "{verdicts}");
}

#[test]
fn files_and_fleets_pass_to_a_device_of_another_relay() {
    let Some(site) = Across::start() else {
        return;
    };
    let from = site.alice.folder().join("from");
    let to = site.device.folder().join("to");
    let data: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&from, &data).unwrap();
    for legacy in [false, true] {
        let mut scp = site.alice.tool("scp");
        if legacy {
            scp.arg("-O");
        }
        let remote = format!("{}:{}", site.remote(), to.display());
        run(scp.arg(&from).arg(&remote)).ok();
        assert_eq!(fs::read(&to).unwrap(), data);
        let mut back = site.alice.tool("scp");
        let again = site.alice.folder().join(format!("again-{legacy}"));
        run(back.arg(&remote).arg(&again)).ok();
        assert_eq!(fs::read(&again).unwrap(), data);
        fs::remove_file(&to).unwrap();
    }
    let login = own_login();
    let on = [
        "exec", "--login", &login, "--on", "'*'", "--", "echo", "here",
    ];
    let output = run(site.alice.console().args(on)).ok();
    assert!(output.out().contains("here"), "{output}");
    let wait = run(site.alice.console().args(["wait", "kitchen-cam"])).ok();
    assert_eq!(wait.out(), "kitchen-cam is online\n");
}

#[test]
fn ports_and_sockets_pass_through_a_device_of_another_relay() {
    let Some(site) = Across::start() else {
        return;
    };
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = target.local_addr().unwrap().port();
    let echo = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = target.accept().unwrap();
            let mut data = Vec::new();
            stream.read_to_end(&mut data).unwrap();
            data.reverse();
            stream.write_all(&data).unwrap();
        }
    });
    let there = site.alice.folder().join("there");
    let back = site.device.folder().join("back");
    let mut ssh = site.ssh(Way::Direct);
    ssh.args(["-N", "-o", "ExitOnForwardFailure=yes", "-L"]);
    ssh.arg(format!("{}:localhost:{port}", there.display()));
    ssh.arg("-R");
    ssh.arg(format!("{}:localhost:{port}", back.display()));
    let _ssh = Running::start(&mut ssh);
    for socket in [&there, &back] {
        let mut stream = wait_for(SOON, "the forward", || UnixStream::connect(socket).ok());
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"abc").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "cba", "{}", socket.display());
    }
    echo.join().unwrap();
}

#[test]
fn session_ends_when_the_relay_of_its_device_dies() {
    let Some(mut site) = Across::start() else {
        return;
    };
    let mut terminal = Terminal::start(&site.ssh(Way::Direct), 80, 24);
    terminal.send("echo be''fore\r");
    terminal.expect("before");
    site.devices().kill();
    let died = Instant::now();
    let refused = site.exec(Way::Direct, "true");
    assert!(died.elapsed() < LOGIN_BOUND, "{refused}");
    if !refused.status.success() {
        refused.says("kitchen-cam");
    }
    terminal.wait(SESSION_BOUND);
    assert!(died.elapsed() < SESSION_BOUND);
    // The device comes to the relay that is left.
    wait_until(BACK, "it is reached again", || {
        site.exec(Way::Direct, "true").status.success()
    });
}

#[test]
fn link_with_a_relay_that_leaves_is_closed() {
    let Some(site) = Across::start() else {
        return;
    };
    let mut terminal = Terminal::start(&site.ssh(Way::Direct), 80, 24);
    terminal.send("echo be''fore\r");
    terminal.expect("before");
    let leaving = site.cluster.name(1 - site.operators);
    let left = ["cluster", "leave", &leaving];
    site.operators().admin(&left).ok();
    // Long before the link would be given up as silent.
    terminal.wait(SOON);
}
