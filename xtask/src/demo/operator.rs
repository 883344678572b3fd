//! The operator of a demonstration: the real `ssh`, with a configuration of its own.

use std::fs;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// The operator's side: an ssh configuration of its own, so that nothing of the user's is read or
/// written.
pub(super) struct Operator {
    config: PathBuf,
    login: String,
    ssh: SocketAddr,
}

impl Operator {
    /// Writes the configuration for the relay that listens there.
    pub(super) fn prepare(folder: &Path, key: &Path, ssh: SocketAddr) -> Result<Self> {
        let login = process::capture(Command::new("id").arg("-un"))?;
        let config = folder.join("ssh_config");
        let text = format!(
            "Host relay\n  HostName {host}\n  Port {port}\n\
             Host *\n  IdentityFile {key}\n  IdentitiesOnly yes\n  UserKnownHostsFile {known}\n  \
             GlobalKnownHostsFile none\n  StrictHostKeyChecking accept-new\n",
            host = ssh.ip(),
            port = ssh.port(),
            key = key.display(),
            known = folder.join("known_hosts").display(),
        );
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        Ok(Self {
            config,
            login: login.trim().to_owned(),
            ssh,
        })
    }

    /// Returns an `ssh` with a shell on the device, or with one command there.
    pub(super) fn session(&self, device: &str, once: Option<&str>) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.env_remove("LD_LIBRARY_PATH")
            .arg("-F")
            .arg(&self.config);
        // ssh wants `--` here, so that a command may begin with a dash.
        ssh.args(["--", &format!("{}+{device}@relay", self.login)]);
        ssh.args(once);
        ssh
    }

    /// Prints what else may be typed while the shell is open.
    pub(super) fn print_hints(&self, device: &str, session: &Command) {
        let Self { config, login, ssh } = self;
        let config = config.display();
        eprintln!(
            "\nThe relay listens on {ssh}. From another terminal, while this shell is open:\n\
             \n  direct    ssh -F {config} {login}+{device}@relay uptime\
             \n  jump      ssh -F {config} -J relay {login}@{device} uptime\
             \n  copy      scp -F {config} /etc/hostname {login}+{device}@relay:/tmp/\
             \n  console   ssh -F {config} relay devices\n"
        );
        if std::io::stdin().is_terminal() {
            eprintln!(
                "{}    (the demo ends with this shell)\n",
                process::render(session)
            );
        }
    }
}
