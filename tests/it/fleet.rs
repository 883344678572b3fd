//! One command, or one file, for many devices, asked for with the real `ssh`.

mod copies;
mod local;

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Device, Output, Relay, Running, SOON, Terminal, User, own_login, read_one_line, run, wait_until,
};

/// Two cameras that are online, one of them in the lab; a third, and a sensor, that have never been.
struct Fleet {
    alice: User,
    cam: Device,
    lab: Device,
    off: Device,
    _sensor: Device,
    relay: Relay,
}

impl Fleet {
    #[track_caller]
    fn new() -> Self {
        let relay = Relay::start();
        let join = |name: &str, labels: &[&str]| {
            let device = Device::new(name);
            let labels = labels.iter().flat_map(|label| ["--label", label]);
            let token = relay.token(&labels.collect::<Vec<_>>());
            device.join(&token, &[]).ok();
            device
        };
        let mut cam = join("cam", &["role=camera"]);
        let mut lab = join("lab-cam", &["role=camera", "site=lab"]);
        let off = join("off-cam", &["role=camera", "state=off"]);
        let sensor = join("sensor", &["role=sensor"]);
        for device in [&mut cam, &mut lab] {
            device.run();
        }
        for device in [&cam, &lab] {
            device.wait_online(&relay);
        }
        Self {
            alice: relay.admin_user(),
            cam,
            lab,
            off,
            _sensor: sensor,
            relay,
        }
    }

    /// `exec` on what is picked, as the account that runs the tests.
    #[track_caller]
    fn exec(&self, on: &str, line: &str) -> Output {
        run(&mut exec(&self.alice, on, line))
    }
}

/// The same of anybody, to be started.
fn exec(user: &User, on: &str, line: &str) -> Command {
    let mut console = user.console();
    let login = own_login();
    console.args(["exec", "--login", &login, "--on"]);
    console.arg(format!("'{on}'")).args(["--", line]);
    console
}

/// The table at the end: of each device its exit and its note.
#[track_caller]
fn table(output: &Output) -> Vec<(String, String, String)> {
    let out = output.out();
    let (_, table) = out
        .split_once("DEVICE ")
        .unwrap_or_else(|| panic!("no table in {output}"));
    let rows = table.lines().skip(1);
    rows.map(|row| {
        let mut words = row.split_whitespace();
        let (device, exit) = (words.next().unwrap(), words.next().unwrap());
        let note = row.split_once(" s").map_or("", |(_, note)| note.trim());
        (device.to_owned(), exit.to_owned(), note.to_owned())
    })
    .collect()
}

fn lines(text: &str, of: &str) -> Vec<String> {
    let begin = format!("{of}: ");
    let lines = text.lines().filter_map(|line| line.strip_prefix(&begin));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_command_on_many_ends_when_its_output_is_not_read() {
    let fleet = Fleet::new();
    let (first, status) = read_one_line(&mut exec(&fleet.alice, "role=camera,state!=off", "yes"));
    assert!(first.ends_with("cam: y\n"), "{first}");
    assert_eq!(status.code(), Some(255));
    wait_until(SOON, "no session is left", || {
        fleet.relay.json(&["sessions", "--json"]) == serde_json::json!([])
    });
    // An answer that has an end comes to it.
    let mut devices = fleet.alice.console();
    let (_, status) = read_one_line(devices.arg("devices"));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_command_runs_on_every_device_that_is_meant() {
    let fleet = Fleet::new();
    let output = fleet
        .exec(
            "role=camera,state!=off",
            "echo out; echo 'e  r' >&2; printf end",
        )
        .ok();
    for name in ["cam", "lab-cam"] {
        assert_eq!(lines(&output.out(), name), ["out", "end"], "{output}");
        assert_eq!(lines(&output.err(), name), ["e  r"], "{output}");
    }
    assert!(!output.out().contains("sensor"), "{output}");
    let well = |name: &str| (name.to_owned(), "0".to_owned(), String::new());
    assert_eq!(table(&output), [well("cam"), well("lab-cam")]);

    // Each was a session like any other: logged, and recorded.
    let rows = fleet.relay.admin(&["audit", "--event", "exec", "--json"]);
    let rows: Vec<Value> = rows
        .ok()
        .out()
        .lines()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect();
    assert_eq!(rows.len(), 2);
    for row in &rows {
        assert_eq!(row["user"], "alice");
        assert_eq!(row["command"], "echo out; echo 'e  r' >&2; printf end");
        assert!(row["session"].is_string() && row["client"].is_string());
    }
    let recordings = fleet.relay.json(&["recordings", "--json"]);
    assert_eq!(recordings.as_array().unwrap().len(), 2);
    // The registry is written to the store after the client was answered: the console's own row may go after its exit.
    wait_until(SOON, "no session is left", || {
        fleet.relay.json(&["sessions", "--json"]) == serde_json::json!([])
    });

    // How it ended is said of each, and of all.
    let failed = fleet.exec("site=lab", "exit 3").exits(1);
    assert_eq!(
        table(&failed),
        [("lab-cam".into(), "3".into(), String::new())]
    );
    let killed = fleet.exec("site=lab", "kill -9 $$").exits(1);
    assert_eq!(table(&killed)[0].1, "KILL");
    // A process that reads gets no input, and nothing hangs.
    fleet.exec("site=lab", "cat").ok();
}

#[test]
fn what_a_device_writes_cannot_hurt_the_terminal() {
    let fleet = Fleet::new();
    let nasty =
        r"printf '\033]0;owned\a\377\0\r\nplain\ttab\r\n\342\200\256'; printf '\033[2J' >&2";
    let output = fleet.exec("site=lab", nasty).ok();
    assert_eq!(
        lines(&output.out(), "lab-cam"),
        [r"\u{1b}]0;owned\u{7}\xff\u{0}", "plain\ttab", r"\u{202e}"]
    );
    assert_eq!(lines(&output.err(), "lab-cam"), [r"\u{1b}[2J"]);
    // For machines it is what it was, but for what is not valid UTF-8.
    let mut json = fleet.alice.console();
    let login = own_login();
    json.args([
        "exec",
        "--json",
        "--on",
        "'role=camera'",
        "--login",
        &login,
        "--",
    ]);
    let output = run(json.arg(nasty)).exits(1);
    let rows: Vec<Value> = output
        .out()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |name: &str| rows.iter().find(|row| row["device"] == name).unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(
        of("lab-cam")["stdout"],
        "\u{1b}]0;owned\u{7}\u{fffd}\0\r\nplain\ttab\r\n\u{202e}"
    );
    assert_eq!(
        (&of("cam")["exit"], &of("cam")["ok"]),
        (&0.into(), &true.into())
    );
    let off = of("off-cam");
    assert_eq!((&off["exit"], &off["ok"]), (&Value::Null, &false.into()));
    assert!(
        off["note"].as_str().unwrap().contains("not been online"),
        "{off}"
    );
    assert!(!output.out().contains(|c: char| c.is_control() && c != '\n'));
}

#[test]
fn what_is_offline_is_reported_or_waited_for() {
    let mut fleet = Fleet::new();
    let output = fleet.exec("role=camera", "true").exits(1);
    let rows = table(&output);
    assert_eq!(rows.len(), 3);
    assert_eq!((rows[2].0.as_str(), rows[2].1.as_str()), ("off-cam", "-"));
    assert!(
        rows[2].2.contains("off-cam has not been online yet"),
        "{output}"
    );

    let mut wait = fleet.alice.console();
    let login = own_login();
    wait.args([
        "exec",
        "--wait",
        "1h",
        "--login",
        &login,
        "--on",
        "role=camera",
    ]);
    let waiting = Running::start(wait.args(["--", "echo here"]));
    waiting.wait_out("lab-cam: here");
    fleet.off.run_online(&fleet.relay);
    let output = waiting.wait(SOON).ok();
    assert_eq!(lines(&output.out(), "off-cam"), ["here"]);
    fleet.off.stop();
    let mut wait = fleet.alice.console();
    wait.args([
        "exec",
        "--wait",
        "1s",
        "--login",
        &login,
        "--on",
        "state=off",
    ]);
    let output = run(wait.args(["--", "true"])).exits(1);
    assert!(table(&output)[0].2.contains("is offline since"), "{output}");
}

#[test]
fn every_rule_holds_on_every_device() {
    let fleet = Fleet::new();
    let login = own_login();
    let policy = fleet.relay.folder().join("policy.toml");
    let role = format!(
        "[roles.tech]\nlimits = {{ max_sessions = 1 }}\n\
         [[roles.tech.allow]]\nlabels = {{ role = \"camera\" }}\nlogins = [\"{login}\"]\nabilities = [\"exec\"]\n\
         [[roles.tech.deny]]\nlabels = {{ site = \"lab\" }}\nabilities = [\"exec\"]\n\
         [roles.looker]\n[[roles.looker.allow]]\nlabels = {{ \"*\" = \"*\" }}\nlogins = [\"unused\"]\nabilities = [\"sftp\"]\n"
    );
    std::fs::write(&policy, role).unwrap();
    let policy = policy.to_str().unwrap();
    fleet.relay.admin(&["apply", "-f", policy]).ok();
    // Who may not know of a device does not learn of it; a role that does nothing else shows it, and no more.
    let bob = fleet.relay.user("bob", &["tech"]);
    let output = run(&mut exec(&bob, "*", "true")).exits(1);
    let names: Vec<String> = table(&output).into_iter().map(|row| row.0).collect();
    assert_eq!(names, ["cam", "off-cam"]);
    fleet
        .relay
        .admin(&["user", "role", "add", "bob", "looker"])
        .ok();
    let output = run(&mut exec(&bob, "state!=off", "echo ran")).exits(1);
    let rows = table(&output);
    let may_not = format!("user \"bob\" may not use commands as {login} on ");
    assert_eq!(rows[0], ("cam".into(), "0".into(), String::new()));
    assert_eq!(
        rows[1],
        ("lab-cam".into(), "-".into(), format!("{may_not}lab-cam"))
    );
    assert!(rows[2].2.contains("sensor has not been online"), "{output}");
    assert_eq!(output.out().matches("ran").count(), 1);
    // No more at a time than the user may have: with a lab that is allowed, one after the other.
    let text = std::fs::read_to_string(policy).unwrap();
    std::fs::write(policy, text.replace("site = \"lab\"", "site = \"none\"")).unwrap();
    fleet.relay.admin(&["apply", "-f", policy]).ok();
    // For longer than anybody waits for a slot.
    run(&mut exec(&bob, "role=camera,state!=off", "sleep 1.1")).ok();
    // A lock is a lock, and who may nothing learns why.
    let lock = ["lock", "device", "lab-cam", "--message", "under repair"];
    fleet.relay.admin(&lock).ok();
    let output = run(&mut exec(&bob, "site=lab", "true")).exits(1);
    assert!(
        table(&output)[0].2.contains("locked: under repair"),
        "{output}"
    );
    let eve = fleet.relay.user("eve", &[]);
    run(&mut exec(&eve, "*", "true"))
        .exits(1)
        .says("it needs a role");
}

#[test]
fn what_runs_ends_with_its_time_its_client_or_a_key() {
    let fleet = Fleet::new();
    let login = own_login();
    let flag = fleet.relay.folder().join("flag");
    let line = format!(
        "trap 'echo x >>{}; exit' HUP TERM; echo up; sleep 600 & wait",
        flag.display()
    );
    let ended = || std::fs::read_to_string(&flag).unwrap_or_default().len() / 2;

    let mut timed = fleet.alice.console();
    timed.args([
        "exec",
        "--timeout",
        "1s",
        "--login",
        &login,
        "--on",
        "site=lab",
        "--",
    ]);
    let output = run(timed.arg(&line)).exits(1);
    assert_eq!(lines(&output.out(), "lab-cam"), ["up"]);
    assert_eq!(table(&output)[0].2, "not done after 1s: hung up");
    wait_until(SOON, "the end of what took too long", || ended() == 1);

    // A client that is gone is no order to stop, here as for any session.
    let go = fleet.relay.folder().join("go");
    let waits = format!(
        "echo up; i=0; until [ -e {} ] || [ $i -gt 600 ]; do sleep 0.1; i=$((i+1)); done; echo x >>{}",
        go.display(),
        flag.display()
    );
    let gone = Running::start(&mut exec(&fleet.alice, "role=camera,state!=off", &waits));
    let of_both = || gone.out().matches("cam: up\n").count() == 2;
    wait_until(SOON, "both at work", of_both);
    gone.signal(Signal::KILL);
    wait_until(SOON, "no sessions", || {
        fleet.relay.json(&["sessions", "--json"]) == serde_json::json!([])
    });
    std::fs::write(&go, "").unwrap();
    wait_until(SOON, "the end of what is not waited for", || ended() == 3);

    let mut on_terminal = fleet.alice.console();
    on_terminal.args([
        "-t", "exec", "--login", &login, "--on", "site=lab", "--", &line,
    ]);
    let mut terminal = Terminal::start(&on_terminal, 80, 24);
    terminal.expect("lab-cam: up\r\n");
    terminal.expect("0 of 1 done, 1 running");
    terminal.send("\u{3}");
    assert_eq!(terminal.wait(SOON).code(), Some(130));
    wait_until(SOON, "the end of what was interrupted", || ended() == 4);
    wait_until(SOON, "no sessions", || {
        fleet.relay.json(&["sessions", "--json"]) == serde_json::json!([])
    });
}

#[test]
fn slips_are_usage() {
    let fleet = Fleet::new();
    let ask = |line: &str| run(fleet.alice.console().arg(line));
    for line in [
        "exec",
        "exec --on role=camera",
        "exec --on role=camera --",
        "exec --on role -- true",
        "exec --on role=camera --parallel 0 -- true",
        "exec --on role=camera --parallel 65 -- true",
        "exec --on role=camera --timeout 0 -- true",
        "exec --on role=camera --login 'ro ot' -- true",
        "exec true --on role=camera",
        "cp - --on role=camera",
        "cp - --on role=camera:dir/",
        "cp - --on role=camera:x --mode 4755",
        "cp /etc/hostname --on role=camera:x",
    ] {
        let output = ask(line).exits(2);
        assert!(
            output.out().is_empty() && !output.err().is_empty(),
            "{line}"
        );
    }
    ask("exec --on role=none -- true")
        .exits(1)
        .says("no device that you may reach matches \"role=none\": `devices` shows their labels");
    // There is no account here that is called like this user.
    let output = ask("exec --on site=lab -- true").exits(1);
    assert_eq!(table(&output)[0].2, "lab-cam runs no account \"alice\"");
}
