//! Sessions are login sessions of the device.

use std::fs::{self, DirEntry, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{
    Accounts, Device, Running, SOON, Site, Terminal, Way, command, needs_program, run, wait_until,
};

/// The variables that the device gives all its sessions.
const ENVIRONMENT: &str = "# the site's proxy\nhttp_proxy=http://proxy.example:3128\nFIELD_QUOTED=\"two words\"\n\
     export SITE='berlin'\nUSER=forged\nSSH_CONNECTION=forged\n";

fn accounts() -> Accounts {
    Accounts::new().add("hf-pi", 4001, "/bin/sh", "*")
}

#[track_caller]
fn exec(site: &Site, way: Way, line: &str) -> String {
    let mut ssh = site.alice.ssh(way, "hf-pi", site.device.name());
    run(ssh.arg(line)).ok().out().to_owned()
}

#[test]
fn the_devices_variables_are_in_every_session() {
    if !Accounts::are_possible() || !fs::exists("/etc/environment").unwrap() {
        eprintln!("skipped: it needs a place to mount /etc/environment over");
        return;
    }
    let site = Site::with(accounts().environment(ENVIRONMENT).device("kitchen-cam"));
    for way in Way::BOTH {
        let shown = exec(&site, way, "echo \"$http_proxy,$FIELD_QUOTED,$SITE,$USER\"");
        let wanted = "http://proxy.example:3128,two words,berlin,hf-pi\n";
        assert_eq!(shown, wanted, "{way:?}");
        assert!(!exec(&site, way, "echo $SSH_CONNECTION").contains("forged"));
    }
}

#[test]
fn audit_knows_who_logged_in() {
    let unset = u32::MAX.to_string();
    let own = fs::read_to_string("/proc/self/loginuid").unwrap_or_default();
    if !Accounts::are_possible() || own.trim_end() != unset {
        eprintln!("skipped: it needs a kernel with audit, and a login session is one already");
        return;
    }
    let site = Site::with(accounts().device("kitchen-cam"));
    for way in Way::BOTH {
        let shown = exec(&site, way, "cat /proc/self/loginuid");
        assert_eq!(shown, "4001", "{way:?}");
    }
}

/// Returns whether PAM opens sessions on this machine.
fn is_pam_possible() -> bool {
    let possible = Accounts::are_possible()
        && fs::exists("/etc/pam.d/su").unwrap()
        && fs::exists("/etc/security/limits.conf").unwrap();
    if !possible {
        eprintln!("skipped: it needs su with PAM, and its limits.conf");
    }
    possible
}

const LIMITS: &str = "hf-pi - nofile 1234\nhf-pi hard core 4096\n";

#[test]
fn limits_and_groups_are_those_that_pam_gives() {
    if !is_pam_possible() {
        return;
    }
    let accounts = || accounts().group("hf-video", 4100, "hf-pi");
    for mode in ["auto", "pam", "bare"] {
        let device = accounts().environment(ENVIRONMENT).limits(LIMITS);
        let site = Site::with(device.device("kitchen-cam").flags(&["--login", mode]));
        for way in Way::BOTH {
            let line = "ulimit -n; ulimit -Hn; id -G; echo $http_proxy $HOME $SHELL; umask";
            let shown = exec(&site, way, line);
            let lines: Vec<&str> = shown.lines().collect();
            let by_pam = lines[..2] == ["1234", "1234"];
            assert_eq!(by_pam, mode != "bare", "{way:?} {mode}: {shown}");
            let home = site.device.folder().join("homes/hf-pi");
            let places = format!("http://proxy.example:3128 {} /bin/sh", home.display());
            assert_eq!(
                lines[2..],
                ["4001 4100", &*places, "0022"],
                "{way:?} {mode}"
            );
        }
    }
}

/// The processes of the account that wait for a session's end. Each test has an account of its own: they run side by side.
fn holding(account: u32) -> Vec<Pid> {
    let uid = format!("\nUid:\t{account}\t");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let holds = processes.filter(|process| {
        let read = |file| fs::read_to_string(process.path().join(file)).unwrap_or_default();
        read("status").contains(&uid) && read("cmdline").contains("holdfast-login")
    });
    let number = |process: DirEntry| process.file_name().to_str().unwrap().parse().unwrap();
    holds
        .map(|process| Pid::from_raw(number(process)).unwrap())
        .collect()
}

fn holders(account: u32) -> usize {
    holding(account).len()
}

#[test]
fn the_pam_session_lasts_as_long_as_the_session() {
    if !is_pam_possible() {
        return;
    }
    let accounts = Accounts::new().add("hf-held", 4077, "/bin/sh", "*");
    let site = Site::with(accounts.device("kitchen-cam").flags(&["--login", "pam"]));
    for way in Way::BOTH {
        let mut ssh = site.alice.ssh(way, "hf-held", site.device.name());
        let mut terminal =
            Terminal::start(ssh.args(["-t", "echo began; read end; exit 7"]), 80, 24);
        terminal.expect("began");
        assert_eq!(holders(4077), 1, "{way:?}");
        terminal.send("\r");
        assert_eq!(terminal.wait(SOON).code(), Some(7), "{way:?}");
        wait_until(SOON, "the end of the PAM session", || holders(4077) == 0);
    }
}

/// An account may stop the shell that waits for it: nothing stays behind, least of all what runs as root.
#[test]
fn a_waiting_shell_that_is_stopped_leaves_nothing_behind() {
    if !is_pam_possible() {
        return;
    }
    let accounts = Accounts::new().add("hf-held", 4078, "/bin/sh", "*");
    let site = Site::with(accounts.device("kitchen-cam").flags(&["--login", "pam"]));
    let mut ssh = site.alice.ssh(Way::Direct, "hf-held", site.device.name());
    let mut terminal = Terminal::start(ssh.args(["-t", "echo began; read end"]), 80, 24);
    terminal.expect("began");
    let shell = holding(4078)[0];
    let status = |pid: &str| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned())
            .unwrap_or_default()
    };
    let shell_number = shell.as_raw_nonzero().to_string();
    let su = line(&status(&shell_number), "PPid:");
    kill_process(shell, Signal::STOP).unwrap();
    wait_until(SOON, "su stops with it", || {
        line(&status(&su), "State:").starts_with('T')
    });
    terminal.send("\r");
    terminal.wait(SOON);
    wait_until(SOON, "the end of su and of the shell", || {
        status(&su).is_empty() && holders(4078) == 0
    });
}

/// A module may write back and unmount a home: `su` is not killed in the middle of it.
#[test]
fn pam_has_time_to_close_a_session() {
    if !is_pam_possible() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let closed = folder.path().join("closed");
    let rules = format!(
        "auth sufficient pam_rootok.so\naccount required pam_unix.so\n\
         session required pam_permit.so\n\
         session required pam_exec.so type=close_session /bin/sleep 13\n\
         session required pam_exec.so type=close_session /bin/touch {}\n",
        closed.display()
    );
    let accounts = Accounts::new().add("hf-slow", 4080, "/bin/sh", "*");
    let device = accounts.pam_rules(&rules).device("kitchen-cam");
    let site = Site::with(device.flags(&["--login", "pam"]));
    let mut ssh = site.alice.ssh(Way::Direct, "hf-slow", site.device.name());
    run(ssh.arg("true")).ok();
    assert!(!closed.exists());
    wait_until(SOON * 2, "the last module", || closed.exists());
}

/// As with sshd: an automation that runs many commands over one connection opens one.
#[test]
fn sessions_of_one_connection_share_a_pam_session() {
    if !is_pam_possible() {
        return;
    }
    let accounts = Accounts::new().add("hf-held", 4079, "/bin/sh", "*");
    let site = Site::with(accounts.device("kitchen-cam").flags(&["--login", "pam"]));
    let folder = tempfile::Builder::new().prefix("cm").tempdir().unwrap();
    let socket = folder.path().join("s");
    let control = format!("ControlPath={}", socket.display());
    let ssh = |role: &str| {
        let mut ssh = site.alice.ssh(Way::Direct, "hf-held", site.device.name());
        ssh.args(["-o", role, "-o", &control]);
        ssh
    };
    let _master = Running::start(ssh("ControlMaster=yes").arg("-N"));
    wait_until(SOON, "the master's socket", || socket.exists());
    let begin = || {
        let mut ssh = ssh("ControlMaster=no");
        let mut terminal = Terminal::start(ssh.args(["-t", "echo began; read end"]), 80, 24);
        terminal.expect("began");
        terminal
    };
    // They begin together, too.
    let together: Vec<_> = (0..6)
        .map(|_| {
            let mut ssh = ssh("ControlMaster=no");
            Running::start(ssh.arg("echo began; read end"))
        })
        .collect();
    for session in &together {
        session.wait_out("began");
    }
    assert_eq!(holders(4079), 1);
    drop(together);
    let (mut first, mut second) = (begin(), begin());
    assert_eq!(holders(4079), 1);
    first.send("\r");
    first.wait(SOON);
    assert_eq!(holders(4079), 1, "the other one uses it");
    let mut other = site.alice.ssh(Way::Direct, "hf-held", site.device.name());
    run(other.arg("true")).ok();
    second.send("\r");
    second.wait(SOON);
    wait_until(SOON, "the end of the PAM sessions", || holders(4079) == 0);
    // One that is ended on the device is not used any more.
    let _third = begin();
    kill_process(holding(4079)[0], Signal::KILL).unwrap();
    wait_until(SOON, "its end", || holders(4079) == 0);
    wait_until(SOON, "a session that opens one of its own", || {
        let _fourth = begin();
        holders(4079) == 1
    });
}

#[test]
fn a_password_that_must_be_changed_lets_only_root_in() {
    if !is_pam_possible() {
        return;
    }
    let device = accounts().must_change("hf-pi").device("kitchen-cam");
    let site = Site::with(device.flags(&["--login", "auto"]));
    for way in Way::BOTH {
        let mut ssh = site.alice.ssh(way, "hf-pi", site.device.name());
        let refused = run(ssh.arg("echo inside")).exits(255);
        let refused = refused.says("the password of hf-pi on the device must be changed first");
        assert_eq!(refused.out(), "", "{way:?}");
        let mut ssh = site.alice.ssh(way, "root", site.device.name());
        run(ssh.arg("true")).ok();
    }
}

/// Sets the variable as pam_systemd does, by a module that every PAM has.
#[test]
fn runtime_folder_is_the_one_that_pam_sets() {
    if !is_pam_possible() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("pam_env.conf");
    fs::write(&conf, "XDG_RUNTIME_DIR DEFAULT=/run/user/4001\n").unwrap();
    let rules = format!(
        "auth sufficient pam_rootok.so\naccount required pam_unix.so\nsession required pam_env.so conffile={}\n",
        conf.display()
    );
    for (mode, expected) in [("pam", "/run/user/4001\n"), ("bare", "\n")] {
        let device = accounts().pam_rules(&rules).device("kitchen-cam");
        let site = Site::with(device.flags(&["--login", mode]));
        for way in Way::BOTH {
            let shown = exec(&site, way, "echo $XDG_RUNTIME_DIR");
            assert_eq!(shown, expected, "{way:?} {mode}");
        }
    }
}

/// Accounts that are in no file of the device: the C library has them of a directory, as it would have LDAP's.
#[test]
fn account_of_a_directory_logs_in() {
    if !is_pam_possible() || !needs_program("cc", "Debian's package gcc") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (source, home) = (
        folder.path().join("directory.c"),
        folder.path().join("home"),
    );
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(&home).unwrap();
    chown(&home, Some(4005), Some(4005)).unwrap();
    fs::write(&source, include_str!("directory.c")).unwrap();
    let mut cc = command("cc");
    cc.args(["-shared", "-fPIC", "-o"]);
    cc.arg(folder.path().join("libnss_hftest.so.2"));
    run(cc.arg(format!("-DHOME=\"{}\"", home.display())).arg(source)).ok();
    for mode in ["pam", "bare"] {
        let device = accounts().directory("hftest", folder.path());
        let site = Site::with(device.device("kitchen-cam").flags(&["--login", mode]));
        let exec = |way: Way, login: &str| {
            let mut ssh = site.alice.ssh(way, login, site.device.name());
            run(ssh.arg("id -u; id -G; echo $USER $HOME; touch here"))
        };
        for way in Way::BOTH {
            let expected = format!("4005\n4005 4105\nhf-ldap {}\n", home.display());
            assert_eq!(exec(way, "hf-ldap").ok().out(), expected, "{way:?} {mode}");
            let gone = exec(way, "hf-gone").exits(255);
            gone.says("account \"hf-gone\" on kitchen-cam is locked or expired");
            // A directory makes no root.
            for none in ["hf-rooted", "hf-none"] {
                let refused = exec(way, none).exits(255);
                refused.says(&format!("kitchen-cam runs no account \"{none}\""));
            }
        }
        assert!(home.join("here").exists());
        fs::remove_file(home.join("here")).unwrap();
    }
}

#[test]
fn doctor_says_what_opens_the_sessions_and_what_to_do() {
    if !is_pam_possible() {
        return;
    }
    let site = Site::with(accounts().device("kitchen-cam").flags(&["--login", "auto"]));
    let doctor = |flags: &[&str]| run(&mut site.device.command(&[&["doctor"], flags].concat()));
    let shown = doctor(&[]).ok();
    assert!(shown.out().contains("PAM opens sessions, by "), "{shown}");
    let found = doctor(&["--json"]).ok();
    let found: serde_json::Value = serde_json::from_str(&found.out()).unwrap();
    let found = found.as_array().unwrap();
    let names: Vec<&str> = found
        .iter()
        .map(|found| found["check"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["service", "accounts", "spool", "clock"]);
    assert!(
        found
            .iter()
            .all(|found| found["level"] == "ok" && found["remedy"].is_null())
    );
    let absent = Device::joined(&site.relay, "hall-cam");
    let found = run(&mut absent.command(&["doctor"])).exits(1);
    assert!(
        found
            .out()
            .contains("make it one with `edge-agent install`"),
        "{found}"
    );
}
