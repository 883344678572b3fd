//! A process whose observer is lost, or that is to stop, ends as its role says.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Running, SOON, Site, Terminal, Way, own_login, run, wait_until};

/// Within this a process is gone that is to stop and heeds no HUP.
pub(super) const GONE: Duration = Duration::from_secs(10);

pub(super) fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// Returns whether any of the processes runs; a zombie does not.
pub(super) fn any_runs(ids: &[u32]) -> bool {
    ids.iter().any(|id| {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let state = status.lines().find_map(|line| line.strip_prefix("State:"));
        state.is_some_and(|state| !state.trim_start().starts_with('Z'))
    })
}

#[track_caller]
fn start(site: &Site, way: Way, line: &str) -> (Running, Vec<u32>) {
    let session = site.start(way, line);
    session.wait_out("\n");
    let ids = numbers(&session.out());
    assert!(any_runs(&ids), "{ids:?}");
    (session, ids)
}

/// A command that says `ready`, goes on until it is let go, and then leaves a note: both are files beside the device.
pub(super) struct Held {
    go: PathBuf,
    note: PathBuf,
}

impl Held {
    pub(super) fn new(site: &Site, name: &str) -> Self {
        let folder = site.device.folder();
        Self {
            go: folder.join(format!("{name}.go")),
            note: folder.join(format!("{name}.note")),
        }
    }

    /// It gives up after a minute, whatever becomes of the test.
    pub(super) fn line(&self) -> String {
        format!(
            "echo ready; i=0; until [ -e {} ] || [ $i -gt 600 ]; do sleep 0.1; i=$((i+1)); done; echo done >{}",
            self.go.display(),
            self.note.display()
        )
    }

    fn let_go(&self) {
        fs::write(&self.go, "").unwrap();
    }

    #[track_caller]
    pub(super) fn finishes(&self) {
        self.let_go();
        let what = format!("{}", self.note.display());
        wait_until(SOON, &what, || self.note.exists());
    }
}

fn no_session_is_live(site: &Site) {
    wait_until(SOON, "no live session", || {
        site.relay.json(&["sessions", "--json"]) == serde_json::json!([])
    });
}

/// Returns what the audit log says became of the processes, of the newest session first.
fn processes(site: &Site) -> Vec<String> {
    let output = site
        .relay
        .admin(&["audit", "--json", "--event", "session.end"]);
    let rows: Vec<serde_json::Value> = output
        .ok()
        .out()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let process = |row: &serde_json::Value| row["process"].as_str().unwrap_or("-").to_owned();
    rows.iter().rev().map(process).collect()
}

#[track_caller]
pub(super) fn role(site: &Site, options: &str) -> crate::harness::User {
    let policy = format!(
        "[roles.tech]\n{options}\n[roles.tech.allow]\nlabels = {{ '*' = '*' }}\nlogins = ['*']\n\
         abilities = ['shell', 'exec']\n"
    );
    let file = site.relay.folder().join("policy.toml");
    fs::write(&file, policy).unwrap();
    run(site.relay.command(&["apply", "-f"]).arg(&file)).ok();
    site.relay.user("bob", &["tech"])
}

/// The six forms in which people start what is to go on. sshd sends none of them a signal.
#[test]
fn a_command_without_a_terminal_goes_on_when_its_client_is_gone() {
    let site = Site::new();
    for way in Way::BOTH {
        let held = |name: &str| Held::new(&site, &format!("{way:?}-{name}"));
        let script = |held: &Held| held.line().replace('\'', "'\\''");
        let plain = held("plain");
        let nohup = held("nohup");
        let trap = held("trap");
        let setsid = held("setsid");
        let background = held("background");
        let child = held("child");
        let lines = [
            plain.line(),
            format!("nohup sh -c '{}'", script(&nohup)),
            format!("trap '' HUP TERM INT; {}", trap.line()),
            format!("setsid sh -c '{}'", script(&setsid)),
            format!("({}) & wait", background.line()),
            format!("sh -c '{}'; true", script(&child)),
        ];
        let started: Vec<Running> = lines.iter().map(|line| site.start(way, line)).collect();
        for session in &started {
            session.wait_out("ready");
        }
        for session in &started {
            session.signal(Signal::KILL);
        }
        no_session_is_live(&site);
        for held in [plain, nohup, trap, setsid, background, child] {
            held.finishes();
        }
        let said = processes(&site);
        assert_eq!(said[..6], ["left"; 6], "{way:?}");
    }
}

#[test]
fn what_it_writes_then_goes_nowhere_as_with_sshd() {
    let site = Site::new();
    for way in Way::BOTH {
        let (session, ids) = start(
            &site,
            way,
            "echo $$; while :; do echo tick; sleep 0.1; done",
        );
        session.signal(Signal::KILL);
        wait_until(GONE, "its end by SIGPIPE", || !any_runs(&ids));
    }
}

#[test]
fn a_terminal_hangs_up_and_what_ignores_it_goes_on() {
    let site = Site::new();
    for way in Way::BOTH {
        let held = Held::new(&site, &format!("{way:?}"));
        let heeds = site.device.folder().join(format!("{way:?}-heeds"));
        let note = heeds.display();
        // The kernel tells the leader of the terminal's session.
        let lines = [
            format!("trap 'echo hung up >{note}; exit' HUP; echo ready; sleep 60 & wait"),
            format!("trap '' HUP; {}", held.line()),
        ];
        for line in lines {
            let mut ssh = site.ssh(way);
            let mut terminal = Terminal::start(ssh.arg("-tt").arg(&line), 80, 24);
            terminal.expect("ready");
            terminal.signal(Signal::KILL);
            no_session_is_live(&site);
            assert_eq!(processes(&site)[0], "hung-up", "{way:?}");
        }
        wait_until(SOON, "the hangup", || read(&heeds) == "hung up\n");
        held.finishes();
    }
}

#[test]
fn a_command_goes_on_when_the_relay_or_the_agent_is_restarted() {
    let mut site = Site::new();
    let held: Vec<Held> = ["stopped", "killed", "agent"]
        .iter()
        .map(|name| Held::new(&site, name))
        .collect();
    let begin = |site: &Site, held: &Held| {
        let session = site.start(Way::Direct, &held.line());
        session.wait_out("ready");
        session
    };
    let first = begin(&site, &held[0]);
    site.relay.restart();
    let _ = first.wait(SOON).exits(255);
    site.device.wait_online(&site.relay);
    let row = processes(&site);
    assert_eq!(row[0], "left");

    let second = begin(&site, &held[1]);
    site.relay.kill();
    site.relay.start_again();
    let _ = second.wait(SOON).exits(255);
    site.device.restart(&site.relay);

    let third = begin(&site, &held[2]);
    site.device.restart(&site.relay);
    let _ = third.wait(SOON).exits(255);
    for held in &held {
        held.finishes();
    }
}

#[test]
fn a_kill_ends_what_heeds_no_hangup() {
    let site = Site::new();
    let line = "trap '' HUP TERM INT; (while :; do sleep 1; done) & echo $$ $!; wait; wait";
    let (session, ids) = start(&site, Way::Direct, line);
    let rows = site.relay.json(&["sessions", "--json"]);
    let id = rows[0]["id"].as_str().unwrap().to_owned();
    site.relay.admin(&["sessions", "kill", &id]).ok();
    let _ = session.wait(SOON).exits(255).says("ended by");
    wait_until(GONE, "the end of a stubborn process", || !any_runs(&ids));
    assert_eq!(processes(&site)[0], "killed");
}

/// As every session did before roles could set it.
#[test]
fn a_role_may_have_it_killed() {
    let site = Site::new();
    let bob = role(&site, "on_disconnect = 'kill'");
    for way in Way::BOTH {
        let note = site.device.folder().join(format!("note-{way:?}"));
        let heeds = format!(
            "trap 'echo hung up > {}; exit' HUP; sleep 600 & echo $$ $!; wait",
            note.display()
        );
        let stubborn = "trap '' HUP TERM INT; (while :; do sleep 1; done) & echo $$ $!; wait; wait";
        let [heeds, stubborn] = [heeds.as_str(), stubborn].map(|line| {
            let session = Running::start(bob.ssh(way, &own_login(), "kitchen-cam").arg(line));
            session.wait_out("\n");
            let ids = numbers(&session.out());
            session.signal(Signal::KILL);
            ids
        });
        // Well before a KILL would come.
        wait_until(Duration::from_secs(4), "the group's end", || {
            !any_runs(&heeds)
        });
        assert_eq!(read(&note), "hung up\n", "{way:?}");
        wait_until(GONE, "the end of a stubborn process", || {
            !any_runs(&stubborn)
        });
        assert_eq!(processes(&site)[..2], ["killed"; 2]);
    }
}

#[test]
fn a_role_may_have_it_left_with_its_terminal() {
    let site = Site::new();
    let bob = role(&site, "on_disconnect = 'leave'");
    for way in Way::BOTH {
        let held = Held::new(&site, &format!("{way:?}"));
        // It ends by the first HUP, and by the first byte that it cannot write.
        let line = held.line().replace("do sleep", "do echo tick; sleep");
        let mut ssh = bob.ssh(way, &own_login(), "kitchen-cam");
        let mut terminal = Terminal::start(ssh.arg("-tt").arg(&line), 80, 24);
        terminal.expect("ready");
        terminal.signal(Signal::KILL);
        no_session_is_live(&site);
        assert_eq!(processes(&site)[0], "left", "{way:?}");
        held.finishes();
    }
}

#[test]
fn a_terminals_jobs_go_with_it() {
    let site = Site::new();
    for way in Way::BOTH {
        let mut terminal: Terminal = site.shell(way);
        terminal.send("PS1=; echo ids $$ $(sleep 600 >/dev/null & echo $!) e''nd; sleep 601\r");
        terminal.expect("ids ");
        // First the echo of what was typed, then what it gives.
        terminal.expect("\r\n");
        let mut text = terminal.expect("end\r\n");
        text = text.rsplit("ids ").next().unwrap().to_owned();
        let ids = numbers(&text);
        assert_eq!(ids.len(), 2, "{text:?}");
        let shell = ids[0];
        let jobs = || -> Vec<u32> {
            let line = |id: &u32| read(Path::new(&format!("/proc/{id}/cmdline")));
            let is_job = |id: &u32| line(id) == "sleep\x00601\x00";
            children(shell).into_iter().filter(is_job).collect()
        };
        wait_until(SOON, "the job in the foreground", || !jobs().is_empty());
        let mut all = jobs();
        all.push(shell);
        terminal.signal(Signal::KILL);
        wait_until(GONE, "the end of the shell and its job", || !any_runs(&all));
        if any_runs(&ids[1..]) {
            let _ = rustix::process::kill_process(pid(ids[1]), Signal::KILL);
        }
    }
}

#[test]
fn closing_one_session_leaves_the_others() {
    let site = Site::new();
    for way in Way::BOTH {
        // It reads to the end of its input, which is all that it gets.
        let (first, ids) = start(&site, way, "echo $$; exec cat");
        let (mut second, _) = start(&site, way, "echo $$; cat; echo over");
        first.signal(Signal::KILL);
        wait_until(GONE, "the first one's end", || !any_runs(&ids));
        second.write("still here\n");
        second.wait_out("still here");
        second.end_input();
        second.wait_out("over");
        second.wait(SOON).ok();
    }
}

fn pid(id: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}

fn children(id: u32) -> Vec<u32> {
    let path = format!("/proc/{id}/task/{id}/children");
    numbers(&fs::read_to_string(path).unwrap_or_default())
}

pub(super) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
