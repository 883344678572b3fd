//! The ways in which a session's observer is lost, beside its client's end: each with the forms in which people start
//! what is to go on.

use std::fs;
use std::path::Path;

use super::hangup::{GONE, Held, any_runs, numbers, read, role};
use crate::harness::{Device, Running, SOON, Site, Terminal, Way, own_login, run, wait_until};

/// An event by which the observer is lost.
#[derive(Clone, Copy, Debug)]
enum Loss {
    RelayStopped,
    RelayKilled,
    /// Another machine with the device's key takes its tunnel's place.
    TunnelReplaced,
    AgentStopped,
    AgentKilled,
}

impl Loss {
    #[track_caller]
    fn happen(self, site: &mut Site) -> Option<Device> {
        match self {
            Self::RelayStopped => site.relay.restart(),
            Self::RelayKilled => {
                site.relay.kill();
                site.relay.start_again();
            }
            Self::TunnelReplaced => {
                let mut other = Device::new("kitchen-cam");
                copy_state(&site.device, &other);
                other.run();
                return Some(other);
            }
            Self::AgentStopped => site.device.restart(&site.relay),
            Self::AgentKilled => {
                site.device.kill();
                site.device.run_online(&site.relay);
            }
        }
        None
    }
}

/// Gives `to` the key and membership of `from`.
fn copy_state(from: &Device, to: &Device) {
    run(crate::harness::command("cp")
        .arg("-a")
        .arg(from.state())
        .arg(to.state()))
    .ok();
    let _ = fs::remove_dir_all(to.state().join("spool"));
}

/// A command that leaves a note when it is under way. A terminal would lose what it says.
fn noted(line: &str, up: &Path) -> String {
    format!(": >{}; {line}", up.display())
}

/// Starts the forms, has the observer be lost, and looks what became of each.
fn goes_on(loss: Loss) {
    let mut site = Site::new();
    let folder = site.device.folder().to_owned();
    let up = |name: &str| folder.join(format!("{name}.up"));
    let quoted = |line: String| line.replace('\'', "'\\''");
    let held = ["plain", "nohup", "trap", "t-nohup", "t-trap"].map(|name| Held::new(&site, name));
    let [plain, nohup, trap, t_nohup, t_trap] = &held;
    let line = |held: &Held, name: &str| noted(&held.line(), &up(name));
    let lines = [
        line(plain, "plain"),
        format!("nohup sh -c '{}'", quoted(line(nohup, "nohup"))),
        format!("trap '' HUP; {}", line(trap, "trap")),
    ];
    let heeds = folder.join("heeds");
    let heeding = format!("trap 'echo hung up >{}; exit' HUP; ", heeds.display());
    let with_terminal = [
        format!(
            "exec nohup sh -c '{}' >/dev/null",
            quoted(line(t_nohup, "t-nohup"))
        ),
        format!("trap '' HUP; {}", line(t_trap, "t-trap")),
        heeding + &noted("sleep 60 & wait", &up("heeds")),
    ];
    let started = lines.map(|line| site.start(Way::Direct, &line));
    let terminals = with_terminal.map(|line| {
        let mut ssh = site.ssh(Way::Direct);
        Terminal::start(ssh.arg("-tt").arg(line), 80, 24)
    });
    for name in ["plain", "nohup", "trap", "t-nohup", "t-trap", "heeds"] {
        wait_until(SOON, name, || up(name).exists());
    }
    let _other = loss.happen(&mut site);
    for session in started {
        let _ = session.wait(SOON).exits(255);
    }
    for mut terminal in terminals {
        assert_eq!(terminal.wait(SOON).code(), Some(255), "{loss:?}");
    }
    for held in &held {
        held.finishes();
    }
    wait_until(SOON, "the hangup of a terminal", || {
        read(&heeds) == "hung up\n"
    });
}

#[test]
fn a_relay_that_stops_leaves_what_is_to_go_on() {
    goes_on(Loss::RelayStopped);
}

#[test]
fn a_relay_that_is_killed_leaves_what_is_to_go_on() {
    goes_on(Loss::RelayKilled);
}

#[test]
fn a_tunnel_that_is_lost_leaves_what_is_to_go_on() {
    goes_on(Loss::TunnelReplaced);
}

#[test]
fn an_agent_that_stops_leaves_what_is_to_go_on() {
    goes_on(Loss::AgentStopped);
}

#[test]
fn an_agent_that_is_killed_leaves_what_is_to_go_on() {
    goes_on(Loss::AgentKilled);
}

/// Covers the losses that the device alone notices.
#[test]
fn a_roles_choice_holds_when_the_relay_or_its_tunnel_is_lost() {
    for loss in [Loss::RelayKilled, Loss::TunnelReplaced, Loss::AgentStopped] {
        kills(loss);
    }
    for loss in [Loss::RelayKilled, Loss::TunnelReplaced] {
        leaves_with_its_terminal(loss);
        hangs_up(loss);
    }
}

#[track_caller]
fn kills(loss: Loss) {
    let mut site = Site::new();
    let bob = role(&site, "on_disconnect = 'kill'");
    let note = site.device.folder().join("note");
    let heeds = format!(
        "trap 'echo hung up >{}; exit' HUP; sleep 600 & echo $$ $!; wait",
        note.display()
    );
    let stubborn = "trap '' HUP TERM INT; (while :; do sleep 1; done) & echo $$ $!; wait; wait";
    let nohup = format!("nohup sh -c '{}'", stubborn.replace('\'', "'\\''"));
    let started = [heeds.as_str(), stubborn, &nohup].map(|line| {
        let session = Running::start(bob.ssh(Way::Direct, &own_login(), "kitchen-cam").arg(line));
        session.wait_out("\n");
        let ids = numbers(&session.out());
        assert!(any_runs(&ids), "{ids:?}");
        (session, ids)
    });
    let _other = loss.happen(&mut site);
    for (session, ids) in started {
        let _ = session.wait(SOON).exits(255);
        wait_until(GONE, &format!("{loss:?}: the end of the group"), || {
            !any_runs(&ids)
        });
    }
    assert_eq!(read(&note), "hung up\n", "{loss:?}");
}

#[track_caller]
fn leaves_with_its_terminal(loss: Loss) {
    let mut site = Site::new();
    let bob = role(&site, "on_disconnect = 'leave'");
    let held = Held::new(&site, "left");
    let up = site.device.folder().join("up");
    // It ends by the first HUP, and by the first byte that it cannot write.
    let line = held.line().replace("do sleep", "do echo tick; sleep");
    let mut ssh = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
    let mut terminal = Terminal::start(ssh.arg("-tt").arg(noted(&line, &up)), 80, 24);
    wait_until(SOON, "its beginning", || up.exists());
    let _other = loss.happen(&mut site);
    assert_eq!(terminal.wait(SOON).code(), Some(255), "{loss:?}");
    held.finishes();
}

#[track_caller]
fn hangs_up(loss: Loss) {
    let mut site = Site::new();
    let bob = role(&site, "on_disconnect = 'hup'");
    let without = Held::new(&site, "without");
    let mut ssh = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
    let session = Running::start(ssh.arg(without.line()));
    session.wait_out("ready");
    let heeds = site.device.folder().join("heeds");
    let up = site.device.folder().join("up");
    let line = format!("trap 'echo hung up >{}; exit' HUP; ", heeds.display());
    let mut ssh = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
    let line = line + &noted("sleep 60 & wait", &up);
    let mut terminal = Terminal::start(ssh.arg("-tt").arg(line), 80, 24);
    wait_until(SOON, "its beginning", || up.exists());
    let _other = loss.happen(&mut site);
    assert_eq!(terminal.wait(SOON).code(), Some(255), "{loss:?}");
    let _ = session.wait(SOON).exits(255);
    wait_until(SOON, "the hangup", || read(&heeds) == "hung up\n");
    without.finishes();
}
