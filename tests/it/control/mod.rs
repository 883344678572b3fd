//! Sessions have quotas and longest durations, and can be ended.

mod console;
mod idle;
mod kills;
mod locks;
mod quotas;
mod selects;
mod streams;

use crate::harness::{Relay, Running, User, Way, own_login, run};

/// Puts a role into force that may use shells, commands and sftp everywhere; `more` goes into its table.
#[track_caller]
pub(crate) fn role(relay: &Relay, name: &str, more: &str) {
    let rule = "allow = { labels = { \"*\" = \"*\" }, logins = [\"*\"], \
                abilities = [\"shell\", \"exec\", \"sftp\"] }";
    apply(relay, &format!("[roles.{name}]\n{rule}\n{more}\n"));
}

#[track_caller]
fn apply(relay: &Relay, policy: &str) {
    let file = relay.folder().join("policy.toml");
    std::fs::write(&file, policy).unwrap();
    run(relay.command(&["apply", "-f"]).arg(&file)).ok();
}

/// Starts a command on the device `kitchen-cam` and waits until it has said `started`.
#[track_caller]
fn started(user: &User, way: Way, line: &str) -> Running {
    started_on(user, way, "kitchen-cam", line)
}

#[track_caller]
fn started_on(user: &User, way: Way, device: &str, line: &str) -> Running {
    let mut ssh = user.ssh(way, &own_login(), device);
    let session = Running::start(ssh.arg(format!("echo started; {line}")));
    session.wait_out("started");
    session
}

/// The rows of the audit log of one kind of event and user.
#[track_caller]
fn audited(relay: &Relay, event: &str, user: &str) -> Vec<serde_json::Value> {
    let output = relay.admin(&["audit", "--json", "--event", event, "--user", user]);
    let lines = output.ok().out();
    let row = |line: &str| serde_json::from_str(line).unwrap();
    lines.lines().map(row).collect()
}
