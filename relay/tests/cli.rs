//! The real program: exit codes, sentences, files, and what it leaves behind.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set its stage must fail"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti alice";

/// A state folder as a relay leaves it that has served once.
struct Fixture {
    root: TempDir,
    state: PathBuf,
    /// The port that it served SSH on.
    port: u16,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut fixture = Self {
            state: root.path().join("state"),
            root,
            port: 0,
        };
        fixture.port = fixture.serve().port;
        fixture
    }

    /// Starts a relay on this folder, and returns when it serves.
    fn serve(&self) -> Serving {
        let child = Command::new(env!("CARGO_BIN_EXE_relay"))
            .args(["serve", "--ssh", "127.0.0.1:0", "--tunnel", "127.0.0.1:0"])
            .args(["--public", "relay.example.com:4433"])
            .arg("--state")
            .arg(&self.state)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut serving = Serving { child, port: 0 };
        let mut line = String::new();
        let output = serving.child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let address = line.strip_prefix("ready ssh=127.0.0.1:").unwrap();
        serving.port = address.split_once(' ').unwrap().0.parse().unwrap();
        serving
    }

    fn relay(&self, args: &[&str]) -> Output {
        relay(args, &self.state, "")
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.root.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// A relay that serves, and is stopped when this is dropped.
struct Serving {
    child: Child,
    port: u16,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.child.wait();
    }
}

fn relay(args: &[&str], state: &Path, stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_relay"))
        .args(args)
        .arg("--state")
        .arg(state)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that reads no stdin may be gone already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[track_caller]
fn done(output: &Output) -> &str {
    assert_eq!((output.status.code(), err(output)), (Some(0), ""));
    out(output)
}

/// Returns one sentence on stderr, nothing on stdout, exit status 1.
#[track_caller]
fn refused(output: &Output) -> &str {
    assert_eq!(
        (output.status.code(), out(output)),
        (Some(1), ""),
        "{}",
        err(output)
    );
    assert_eq!(err(output).lines().count(), 1, "{}", err(output));
    err(output)
}

#[test]
fn exit_codes_tell_done_refused_and_usage_apart() {
    let fixture = Fixture::new();
    done(&fixture.relay(&["devices"]));
    refused(&fixture.relay(&["devices", "show", "absent"]));
    for usage in [
        &["frob"] as &[&str],
        &[],
        &["user"],
        &["token", "create", "--uses", "no"],
        &["devices", "show", "NOT A NAME"],
    ] {
        let output = fixture.relay(usage);
        assert_eq!(
            (output.status.code(), out(&output)),
            (Some(2), ""),
            "{usage:?}"
        );
        assert!(!err(&output).is_empty());
    }
    for help in [
        &["--help"] as &[&str],
        &["user", "add", "--help"],
        &["serve", "--help"],
        &["--version"],
    ] {
        assert!(!done(&fixture.relay(help)).is_empty());
    }
    assert!(out(&fixture.relay(&["serve", "--help"])).contains("ready ssh=IP:PORT tunnel=IP:PORT"));
}

#[test]
fn without_a_state_every_admin_command_says_how_to_get_one() {
    let root = tempfile::tempdir().unwrap();
    let none = root.path().join("none");
    // Each waits for a first start that may be under way, and says so: side by side.
    std::thread::scope(|scope| {
        for command in [
            &["devices"] as &[&str],
            &["user", "ls"],
            &["token", "create"],
            &["ssh-config"],
        ] {
            let none = &none;
            scope.spawn(move || {
                let output = relay(command, none, "");
                assert_eq!((output.status.code(), out(&output)), (Some(1), ""));
                let lines: Vec<&str> = err(&output).lines().collect();
                assert!(
                    lines.len() == 2
                        && lines[0].starts_with("waiting up to 5 s for `relay serve`")
                        && lines[1].contains("start `relay serve --state"),
                    "{lines:?}"
                );
            });
        }
    });
    assert!(!none.exists());
}

#[test]
fn user_add_reads_files_and_stdin_and_is_idempotent() {
    let fixture = Fixture::new();
    let file = fixture.file("alice.pub", KEY);
    let add = fixture.relay(&["user", "add", "alice", "--key", &file, "--role", "admin"]);
    let said = "user alice added: 1 key (SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ), roles admin\n";
    assert_eq!(done(&add), said);
    let again = relay(
        &["user", "add", "alice", "--key", "-", "--role", "admin"],
        &fixture.state,
        KEY,
    );
    assert_eq!(done(&again), said.replace("added", "unchanged"));
    let users: Value =
        serde_json::from_str(done(&fixture.relay(&["user", "ls", "--json"]))).unwrap();
    assert_eq!(users.as_array().unwrap().len(), 1);
    assert_eq!(users[0]["name"], "alice");

    let private = fixture.file("id", "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n");
    let output = fixture.relay(&["user", "add", "bob", "--key", &private]);
    assert!(refused(&output).contains("is a private key") && !err(&output).contains("c2VjcmV0"));
    let output = fixture.relay(&["user", "add", "bob", "--key", "/nonexistent"]);
    assert!(refused(&output).starts_with("cannot read /nonexistent: "));
    let output = relay(
        &["user", "add", "bob", "--key", "-"],
        &fixture.state,
        &"x".repeat(70_000),
    );
    assert!(refused(&output).contains("longer than"));
}

#[test]
fn listings_are_json_and_tokens_print_alone() {
    let fixture = Fixture::new();
    let token = fixture.relay(&["token", "create", "--ttl", "10m"]);
    assert!(
        done(&token).starts_with("hf1.relay.example.com:4433.") && out(&token).lines().count() == 1
    );
    for listing in ["devices", "user ls", "token ls"] {
        let mut args: Vec<&str> = listing.split(' ').collect();
        args.push("--json");
        let rows: Value = serde_json::from_str(done(&fixture.relay(&args))).unwrap();
        assert!(rows.is_array(), "{listing}");
    }
    // The position of a flag does not matter.
    for args in [
        &["--state", "S", "devices", "--json"] as &[&str],
        &["devices", "--json", "--state", "S", "ls"],
    ] {
        let state = fixture.state.to_str().unwrap();
        let args: Vec<&str> = args
            .iter()
            .map(|a| if *a == "S" { state } else { a })
            .collect();
        let output = Command::new(env!("CARGO_BIN_EXE_relay"))
            .args(args)
            .output()
            .unwrap();
        assert_eq!(done(&output), "[]\n");
    }
}

#[test]
fn a_state_that_is_open_to_others_or_damaged_is_refused() {
    let fixture = Fixture::new();
    let key = fixture.state.join("cluster.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    for command in ["devices", "serve"] {
        let output = fixture.relay(&[command]);
        assert!(refused(&output).contains(&format!("run `chmod 600 {}`", key.display())));
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&key, "x").unwrap();
    assert!(refused(&fixture.relay(&["serve"])).contains("cluster.key is damaged"));
    std::fs::remove_file(&key).unwrap();
    assert!(refused(&fixture.relay(&["serve"])).contains("cluster.key is missing"));
    assert!(!key.exists());
}

#[test]
fn a_second_relay_on_the_same_folder_is_refused() {
    let fixture = Fixture::new();
    let first = fixture.serve();
    let second = fixture.relay(&["serve", "--ssh", "127.0.0.1:0", "--tunnel", "127.0.0.1:0"]);
    let sentence = format!("a relay already serves from {}", fixture.state.display());
    assert!(refused(&second).starts_with(&sentence));
    done(&fixture.relay(&["devices"]));
    drop(first);
}

#[test]
fn a_configuration_with_an_unknown_key_is_refused() {
    let fixture = Fixture::new();
    let file = fixture.file(
        "relay.toml",
        "ssh = \"127.0.0.1:0\"\nsshd = \"127.0.0.1:0\"\n",
    );
    let output = fixture.relay(&["serve", "--config", &file]);
    assert!(
        refused(&output).contains("line 2: unknown field `sshd`"),
        "{}",
        err(&output)
    );
}

#[test]
fn a_full_disk_at_stdout_is_an_error_and_a_closed_pipe_is_not() {
    let fixture = Fixture::new();
    let run = |stdout: Stdio| {
        Command::new(env!("CARGO_BIN_EXE_relay"))
            .args(["token", "create", "--state"])
            .arg(&fixture.state)
            .stdout(stdout)
            .output()
            .unwrap()
    };
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = run(full.into());
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).starts_with("cannot write the answer: "));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(run(writer.into()).status.code(), Some(0));
}

#[test]
fn openssh_takes_the_ssh_config() {
    let fixture = Fixture::new();
    let config = fixture.file("config", done(&fixture.relay(&["ssh-config"])));
    let ssh = |host: &str| {
        let output = Command::new("ssh")
            .args(["-G", "-F", &config, host])
            .stdin(Stdio::null())
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", err(&output));
        out(&output).to_owned()
    };
    let device = ssh("pi@kitchen-cam.fleet");
    assert!(
        device.contains("\nhostname kitchen-cam.fleet\n"),
        "{device}"
    );
    assert!(
        device.contains(&format!("\nproxyjump relay.example.com:{}\n", fixture.port)),
        "{device}"
    );
    assert!(
        device.contains("\nciphers aes256-gcm@openssh.com,"),
        "{device}"
    );
    let known = done(&fixture.relay(&["ssh-config", "--known-hosts"])).to_owned();
    let ca = known.lines().next().unwrap();
    assert!(
        device.contains(&format!("\nknownhostscommand /bin/echo {ca}\n")),
        "{device}"
    );
    for host in [&device, &ssh("relay.example.com")] {
        assert!(host.contains("\nidentitiesonly yes\n"), "{host}");
        assert!(host.contains("\nserveraliveinterval 30\n"), "{host}");
    }
    let relay = ssh("relay.example.com");
    assert!(relay.contains(&format!(
        "\nknownhostscommand /bin/echo @cert-authority [relay.example.com]:{} ssh-ed25519 ",
        fixture.port
    )));
    assert!(!ssh("elsewhere.example.com").contains("knownhostscommand"));

    // ssh-keygen finds the keys by the names that ssh asks for.
    let known = fixture.file("known_hosts", &known);
    for name in [
        "kitchen-cam.fleet",
        &format!("[relay.example.com]:{}", fixture.port),
    ] {
        let found = Command::new("ssh-keygen")
            .args(["-F", name, "-f", &known])
            .output()
            .unwrap();
        assert!(found.status.success(), "{name}");
    }
}

#[test]
fn the_ssh_config_has_a_form_for_each_client() {
    let fixture = Fixture::new();
    let form = |client: &str| done(&fixture.relay(&["ssh-config", "--for", client])).to_owned();
    assert_eq!(form("openssh"), done(&fixture.relay(&["ssh-config"])));

    // OpenSSH on Windows has no /bin/echo.
    let windows = form("windows");
    assert!(!windows.contains("KnownHostsCommand"), "{windows}");
    let known = done(&fixture.relay(&["ssh-config", "--known-hosts"])).to_owned();
    assert!(
        known.lines().all(|line| windows.contains(line)),
        "{windows}"
    );
    let config = fixture.file("windows", &windows);
    let ssh = Command::new("ssh")
        .args(["-G", "-F", &config, "pi@cam.fleet"])
        .output()
        .unwrap();
    assert!(
        out(&ssh).contains(&format!("\nproxyjump relay.example.com:{}\n", fixture.port)),
        "{}",
        err(&ssh)
    );

    // The relay's key as ssh-keygen shows it.
    let key = known.lines().nth(2).unwrap().split_once(' ').unwrap().1;
    let key = fixture.file("host.pub", &format!("{key}\n"));
    let shown = Command::new("ssh-keygen")
        .args(["-l", "-f", &key])
        .output()
        .unwrap();
    let print = out(&shown).split(' ').nth(1).unwrap().to_owned();
    let putty = form("putty");
    let port = fixture.port;
    let line = format!("plink -P {port} -hostkey {print} pi+kitchen-cam@relay.example.com uptime");
    assert!(putty.contains(&line), "{putty}");
    let number = format!("\"PortNumber\"=dword:{port:08x}\n");
    assert!(putty.contains(&number), "{putty}");
    let winscp = form("winscp");
    let digest = print.strip_prefix("SHA256:").unwrap();
    assert!(
        winscp.contains(&format!("ssh-ed25519 255 {digest}\"")),
        "{winscp}"
    );
    assert!(
        winscp.contains(&format!(
            "open sftp://pi%2Bkitchen-cam@relay.example.com:{port}/"
        )),
        "{winscp}"
    );
    let ansible = form("ansible");
    assert!(
        ansible.contains("ansible_user=pi+kitchen-cam ansible_remote_tmp=$HOME/.ansible/tmp"),
        "{ansible}"
    );
    // The device of the example is none of the fleet.
    let example = ansible.lines().filter(|line| line.contains("kitchen-cam"));
    assert!(example.clone().count() >= 2, "{ansible}");
    assert!(
        example.clone().all(|line| line.starts_with('#')),
        "{ansible}"
    );

    let output = fixture.relay(&["ssh-config", "--for", "telnet"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("the clients are openssh, windows, putty, winscp and ansible"));
}

#[test]
fn doctor_says_it_when_the_state_cannot_even_be_opened() {
    let fixture = Fixture::new();
    let well = fixture.relay(&["doctor", "--json"]);
    assert_eq!(well.status.code(), Some(0), "{}", out(&well));
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&fixture.state, open).unwrap();
    let found = fixture.relay(&["doctor", "--json"]);
    assert_eq!((found.status.code(), err(&found)), (Some(1), ""));
    let rows: Value = serde_json::from_str(out(&found)).unwrap();
    assert_eq!(rows[0]["level"], "problem");
    let [message, remedy] = ["message", "remedy"].map(|field| rows[0][field].as_str().unwrap());
    assert!(
        message.contains("0755") && remedy.contains("chmod"),
        "{message}: {remedy}"
    );
}
