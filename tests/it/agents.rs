//! Issue 6, point 1: `ssh -A`, with the real `ssh`, `ssh-agent` and `ssh-add`, on both ways in.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    Accounts, Output, Relay, Running, SOON, Site, User, Way, command, own_login, run,
    run_with_input, wait_for, wait_until,
};

/// An operator's `ssh-agent`, with one key in it.
struct OwnAgent {
    _program: Running,
    folder: TempDir,
    /// The name of the key in `ssh-add -l`.
    key: String,
}

impl OwnAgent {
    #[track_caller]
    fn start() -> Self {
        let mut agent = Self::empty();
        let key = agent.folder.path().join("key");
        let mut keygen = command("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f"]);
        run(keygen.arg(&key)).ok();
        agent.add(&["-q", key.to_str().unwrap()]).ok();
        agent.key = agent.add(&["-l"]).ok().out();
        assert!(agent.key.contains("operator"), "{}", agent.key);
        agent
    }

    /// One without keys.
    #[track_caller]
    fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("hf-a").tempdir().unwrap();
        let socket = folder.path().join("socket");
        let mut agent = command("ssh-agent");
        let program = Running::start(agent.arg("-D").arg("-a").arg(&socket));
        wait_until(SOON, "the ssh-agent", || {
            UnixStream::connect(&socket).is_ok()
        });
        Self {
            _program: program,
            folder,
            key: String::new(),
        }
    }

    /// `ssh-add` with these arguments.
    fn add(&self, args: &[&str]) -> Output {
        let mut add = command("ssh-add");
        add.env("SSH_AUTH_SOCK", self.folder.path().join("socket"));
        run(add.args(args))
    }

    /// Takes it along.
    fn with(&self, mut ssh: Command) -> Command {
        ssh.env("SSH_AUTH_SOCK", self.folder.path().join("socket"));
        ssh.arg("-A");
        ssh
    }
}

/// Returns what the audit log has on agents.
#[track_caller]
fn rows(relay: &Relay) -> Vec<Value> {
    let rows = relay.admin(&["audit", "--event", "agent.forward", "--json"]);
    let rows = rows.ok().out();
    rows.lines()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect()
}

/// A session that waits, and the path of its socket.
#[track_caller]
fn waiting(agent: &OwnAgent, ssh: Command) -> (Running, PathBuf) {
    let mut ssh = agent.with(ssh);
    let session = Running::start(ssh.arg("echo \"<$SSH_AUTH_SOCK>\"; cat"));
    session.wait_out(">");
    let said = session.out();
    let path = said.split(['<', '>']).nth(1).unwrap().to_owned();
    (session, path.into())
}

#[track_caller]
fn gone(socket: &Path) {
    let folder = socket.parent().unwrap();
    wait_until(SOON, "the end of the socket", || !folder.exists());
}

#[test]
fn programs_of_a_session_use_the_operators_agent() {
    let (site, agent) = (Site::new(), OwnAgent::start());
    for way in Way::BOTH {
        let line = "ssh-add -l; stat -c '%a %u' $SSH_AUTH_SOCK $(dirname $SSH_AUTH_SOCK)";
        let said = run(agent.with(site.ssh(way)).arg(line)).ok();
        let me = rustix::process::geteuid().as_raw();
        let expected = format!("{}600 {me}\n700 {me}\n", agent.key);
        assert_eq!(said.out(), expected, "{way:?}");
        // Who does not take it along has none, and sftp has no use for it.
        let none = site.exec(way, "echo \"<$SSH_AUTH_SOCK>\"").ok();
        assert_eq!(none.out(), "<>\n", "{way:?}");
    }
    let pairs = wait_for(SOON, "both ends of both in the log", || {
        Some(rows(&site.relay)).filter(|rows| rows.len() == 4)
    });
    for pair in pairs.chunks(2) {
        assert_eq!(
            (&pair[0]["state"], &pair[1]["state"]),
            (&"open".into(), &"closed".into())
        );
        assert!(pair[1]["bytes_out"].as_u64() > Some(4), "{pair:?}");
    }
}

#[test]
fn without_the_ability_a_session_runs_without_the_agent() {
    let (site, agent) = (Site::new(), OwnAgent::start());
    let text = "[roles.tech.allow]\nlabels = { '*' = '*' }\nlogins = ['*']\nabilities = ['exec']\n";
    let mut apply = site.relay.command(&["apply", "-f", "-"]);
    run_with_input(&mut apply, text.as_bytes()).ok();
    let bob = site.relay.user("bob", &["tech"]);
    let sentence = format!(
        "user \"bob\" may not use agent forwarding as {} on kitchen-cam",
        own_login()
    );
    for way in Way::BOTH {
        let mut ssh = agent.with(bob.ssh(way, &own_login(), "kitchen-cam"));
        let said = run(ssh.args(["-v", "echo \"<$SSH_AUTH_SOCK>\""])).ok();
        assert_eq!(said.out(), "<>\n", "{way:?}");
        said.says(&sentence);
    }
    let refused = rows(&site.relay);
    assert_eq!(refused.len(), 2, "{refused:?}");
    for row in refused {
        assert_eq!(
            (&row["outcome"], &row["reason"]),
            (&"refused".into(), &sentence.as_str().into())
        );
    }
}

#[test]
fn the_socket_goes_with_its_session() {
    let (mut site, agent) = (Site::new(), OwnAgent::start());
    // In good order, by a kill, and with the agent of the device.
    let (mut session, socket) = waiting(&agent, site.ssh(Way::Direct));
    assert!(socket.exists());
    session.end_input();
    session.wait(SOON).ok();
    gone(&socket);
    // The listing follows the sessions: by a flush.
    wait_until(SOON, "an empty list of sessions", || {
        site.relay.json(&["sessions", "--json"]) == Value::Array(vec![])
    });
    let (_session, socket) = waiting(&agent, site.ssh(Way::Jump));
    let id = wait_for(SOON, "it in the list", || {
        let rows = site.relay.json(&["sessions", "--json"]);
        rows[0]["id"].as_str().map(str::to_owned)
    });
    let kill = ["sessions", "kill", &id];
    site.relay.admin(&kill).ok();
    gone(&socket);
    // One whose keeper was killed is left behind, and the next session finds it.
    let (session, left) = waiting(&agent, site.ssh(Way::Direct));
    let keeper = wait_for(SOON, "the keeper", || keeper_of(site.device.id()));
    kill_process(keeper, Signal::KILL).unwrap();
    drop(session);
    let (_session, socket) = waiting(&agent, site.ssh(Way::Direct));
    gone(&left);
    site.device.kill();
    gone(&socket);
}

/// The helper that keeps a socket of this agent.
fn keeper_of(agent: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).unwrap();
    let is_keeper = |child: &&str| {
        let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        line.windows(15).any(|part| part == b"internal-socket")
    };
    let keeper = children.split_whitespace().find(is_keeper)?;
    Pid::from_raw(keeper.parse().unwrap())
}

#[test]
fn a_session_asks_so_many_at_once_and_no_longer_than_it_lives() {
    let (site, agent) = (Site::new(), OwnAgent::start());
    // The connection stays when the session ends.
    let control = agent.folder.path().join("control");
    let over = |flag: &str| {
        let mut ssh = agent.with(site.ssh(Way::Direct));
        ssh.arg("-S").arg(&control).arg(flag);
        ssh
    };
    let _master = Running::start(&mut over("-MN"));
    wait_until(SOON, "the master", || control.exists());
    let (mut session, socket) = waiting(&agent, over("-T"));
    // "Which keys?", by the protocol of agents; the answer begins with its length.
    let ask = |stream: &mut UnixStream| {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(&[0, 0, 0, 1, 11]).unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
    };
    let mut all: Vec<UnixStream> = (0..16)
        .map(|_| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            ask(&mut stream);
            stream
        })
        .collect();
    let _one_more = UnixStream::connect(&socket).unwrap();
    wait_until(SOON, "the refusal", || {
        let full = "a session has at most 16 of them at once";
        rows(&site.relay).iter().any(|row| row["reason"] == full)
    });
    // Where one goes there is room again.
    drop(all.pop());
    wait_until(SOON, "its end", || {
        rows(&site.relay).iter().any(|row| row["state"] == "closed")
    });
    let mut again = UnixStream::connect(&socket).unwrap();
    ask(&mut again);
    session.end_input();
    session.wait(SOON).ok();
    for mut stream in all {
        // It ends, in whichever way.
        let ended = stream.read_to_end(&mut Vec::new());
        let waited = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!waited, "it goes on");
    }
    wait_until(SOON, "an empty board", || {
        let sessions = site.relay.json(&["sessions", "--json"]);
        sessions.as_array().unwrap().is_empty()
    });
    gone(&socket);
}

#[test]
fn the_socket_is_the_accounts_alone() {
    if !Accounts::are_possible() {
        return;
    }
    let accounts = Accounts::new()
        .add("hf-pi", 4001, "/bin/sh", "*")
        .add("hf-other", 4002, "/bin/sh", "*");
    let (site, agent) = (
        Site::with(accounts.device("kitchen-cam")),
        OwnAgent::start(),
    );
    for way in Way::BOTH {
        let ssh = |user: &User, login| user.ssh(way, login, "kitchen-cam");
        let (session, socket) = waiting(&agent, ssh(&site.alice, "hf-pi"));
        for path in [socket.as_path(), socket.parent().unwrap()] {
            let stat = fs::symlink_metadata(path).unwrap();
            assert_eq!((stat.uid(), stat.mode() & 0o077), (4001, 0), "{way:?}");
        }
        let mut other = ssh(&site.alice, "hf-other");
        let line = format!("SSH_AUTH_SOCK={} ssh-add -l", socket.display());
        let refused = run(other.arg(line));
        assert_eq!(refused.out(), "", "{way:?}");
        drop(session);
        gone(&socket);
    }
}

/// `ssh-add -h` binds a key to hosts. The agent lets it sign on a connection that came by a forwarded agent only if the
/// request contains the host key, so the relay must take such requests.
#[test]
fn key_bound_to_hosts_works_at_the_second_hop() {
    let (site, agent) = (Site::new(), OwnAgent::empty());
    let (alice, relay) = (&site.alice, &site.relay);
    let (ip, port) = (relay.ssh().ip(), relay.ssh().port());
    let own = format!("[{ip}]:{port}");
    let known = alice.folder().join("known_hosts");
    let key = alice.key();
    let [known, key] = [&known, &key].map(|path| path.to_str().unwrap());
    let bind = |constraints: &[&str]| {
        agent.add(&["-q", "-D"]).ok();
        let hosts = constraints.iter().flat_map(|host| ["-h", host]);
        let args: Vec<&str> = ["-q", "-H", known]
            .into_iter()
            .chain(hosts)
            .chain([key])
            .collect();
        agent.add(&args).ok();
    };
    // The private key is the agent's alone.
    let public = alice.folder().join("bound.pub");
    fs::copy(alice.key().with_extension("pub"), &public).unwrap();
    let config = alice.folder().join("bound_config");
    let text = fs::read_to_string(alice.config()).unwrap();
    let text = text.replace(
        &format!("IdentityFile {key}\n"),
        &format!("IdentityFile {}\n", public.display()),
    );
    fs::write(&config, text).unwrap();
    let ssh = |way: Way, line: &str| {
        let mut ssh = agent.with(command("ssh"));
        ssh.arg("-F").arg(&config);
        ssh.arg(way.destination(&own_login(), "kitchen-cam"));
        run(ssh.arg(line))
    };
    let again = format!("ssh -v -F {} relay whoami", config.display());
    let twice = format!("{own}>{own}");
    let from_device = format!("kitchen-cam.fleet>{own}");
    bind(&[&own, "kitchen-cam.fleet", &twice, &from_device]);
    for way in Way::BOTH {
        assert_eq!(ssh(way, "echo first").ok().out(), "first\n", "{way:?}");
        let second = ssh(way, &again).ok();
        assert!(second.out().contains("alice"), "{way:?}: {second}");
        second.says("publickey-hostbound@openssh.com=<0>");
        // Without the host key in the request the agent does not sign there.
        let unbound = again.replace("ssh -v", "ssh -o PubkeyAuthentication=unbound");
        ssh(way, &unbound).exits(255).says("Permission denied");
    }
    // What is bound to the first hop alone is of no use behind it.
    bind(&[&own, "kitchen-cam.fleet"]);
    for way in Way::BOTH {
        ssh(way, "true").ok();
        ssh(way, &again).exits(255).says("Permission denied");
    }
    // Who knows the plain key alone, and asks for that, needs no authority.
    let lines = fs::read_to_string(known).unwrap();
    let plain = lines.lines().filter(|line| !line.starts_with('@'));
    let plain: Vec<&str> = plain.collect();
    fs::write(known, plain.join("\n") + "\n").unwrap();
    bind(&[&own]);
    let mut console = agent.with(command("ssh"));
    console.arg("-F").arg(&config);
    console.args(["-o", "HostKeyAlgorithms=ssh-ed25519", "relay", "whoami"]);
    run(&mut console).ok();
    fs::write(known, lines).unwrap();
    // Bound to another host, it does not even get there.
    bind(&["kitchen-cam.fleet"]);
    ssh(Way::Direct, "true")
        .exits(255)
        .says("Permission denied");
}
