//! The service as each init system has it: the text of its file, and the commands that make the init look. Nothing is
//! read or written here.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use thiserror::Error;

use crate::service::upgrade::swap::UpgradePaths;
use crate::service::upgrade::watch;
use crate::tunnel::membership;

/// The inits that can keep the agent running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Init {
    /// Debian, Raspberry Pi OS, Fedora, most Yocto images
    Systemd,
    /// Alpine, Gentoo
    Openrc,
    /// OpenWrt
    Procd,
}

/// An argument that cannot be written into a service file.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} cannot be written into a service file: it has a line break or another control character"
)]
pub struct BadArgument(String);

/// A file of the service, on the device.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServiceFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) mode: u32,
}

/// The agent as a service of one init.
#[derive(Debug)]
pub(super) struct Service {
    init: Init,
    /// The place where the program is installed.
    pub(super) program: PathBuf,
    state: PathBuf,
    args: Vec<String>,
}

impl Service {
    pub(super) fn new(init: Init, state: &Path, run: &[String]) -> Self {
        let program = match init {
            // OpenWrt has no /usr/local.
            Init::Procd => "/usr/bin/edge-agent",
            Init::Systemd | Init::Openrc => "/usr/local/bin/edge-agent",
        };
        let state_arg = ["run".to_owned(), "--state".to_owned()];
        let args = state_arg
            .into_iter()
            .chain([state.display().to_string()])
            .chain(run.iter().cloned());
        Self {
            init,
            program: program.into(),
            state: state.to_owned(),
            args: args.collect(),
        }
    }

    /// Returns the files that the init reads.
    pub(super) fn files(&self) -> Result<Vec<ServiceFile>, BadArgument> {
        let bad = self
            .args
            .iter()
            .find(|arg| arg.chars().any(char::is_control));
        if let Some(bad) = bad {
            return Err(BadArgument(bad.clone()));
        }
        let file = |path: &str, text: String, mode: u32| ServiceFile {
            path: path.into(),
            text,
            mode,
        };
        Ok(match self.init {
            Init::Systemd => vec![file(UNIT, self.unit(), 0o644)],
            Init::Openrc => vec![file(SCRIPT, self.openrc(), 0o755)],
            Init::Procd => vec![
                file(SCRIPT, self.procd(), 0o755),
                file(KEEP, self.kept(), 0o644),
            ],
        })
    }

    /// Returns what makes the service start with the device, where the init cannot be asked to do it: links, with
    /// what they lead to.
    pub(super) fn links(&self) -> Vec<(PathBuf, PathBuf)> {
        let link = |path: &str, to: &str| (PathBuf::from(path), PathBuf::from(to));
        match self.init {
            Init::Systemd => vec![link(
                "/etc/systemd/system/multi-user.target.wants/edge-agent.service",
                UNIT,
            )],
            Init::Openrc => vec![link("/etc/runlevels/default/edge-agent", SCRIPT)],
            // START and STOP of the script, as `enable` makes them.
            Init::Procd => vec![
                link("/etc/rc.d/S95edge-agent", "../init.d/edge-agent"),
                link("/etc/rc.d/K10edge-agent", "../init.d/edge-agent"),
            ],
        }
    }

    /// Returns the folder of OpenRC's runlevels, into each of which an administrator may have put it.
    pub(super) fn runlevels(&self) -> Option<&'static Path> {
        (self.init == Init::Openrc).then(|| Path::new("/etc/runlevels"))
    }

    /// Returns the commands that enable and start it; `changed`: it may run as it was before; `known`: the init had a
    /// file of it before.
    pub(super) fn start(&self, changed: bool, known: bool) -> Vec<Vec<String>> {
        let start = if changed { "restart" } else { "start" };
        match self.init {
            Init::Systemd => commands(&[
                &["systemctl", "daemon-reload"],
                &["systemctl", "enable", "--quiet", "edge-agent.service"],
                &["systemctl", start, "edge-agent.service"],
            ]),
            Init::Openrc => commands(&[
                &["rc-update", "--quiet", "add", "edge-agent", "default"],
                // A service that runs already is no failure for `--ifstopped`.
                if changed {
                    &["rc-service", "edge-agent", "restart"]
                } else {
                    &["rc-service", "--ifstopped", "edge-agent", "start"]
                },
            ]),
            // What procd has never heard of it cannot stop, and it reports that during the installation.
            Init::Procd => commands(&[
                &[SCRIPT, "enable"],
                &[SCRIPT, if known { start } else { "start" }],
            ]),
        }
    }

    /// Returns the commands that stop and disable it, as far as that is more than to remove its links.
    pub(super) fn stop(&self) -> Vec<Vec<String>> {
        match self.init {
            Init::Systemd => commands(&[&[
                "systemctl",
                "disable",
                "--quiet",
                "--now",
                "edge-agent.service",
            ]]),
            // Not `rc-update --all delete`, which fails when it is not in all of the runlevels: see `runlevels`.
            Init::Openrc => commands(&[&["rc-service", "--ifstarted", "edge-agent", "stop"]]),
            Init::Procd => commands(&[&[SCRIPT, "stop"], &[SCRIPT, "disable"]]),
        }
    }

    /// Returns the commands after which the init has forgotten it.
    pub(super) fn forget(&self) -> Vec<Vec<String>> {
        match self.init {
            Init::Systemd => commands(&[&["systemctl", "daemon-reload"]]),
            Init::Openrc | Init::Procd => Vec::new(),
        }
    }

    fn unit(&self) -> String {
        let program = self.program.display().to_string();
        let words = |words: Vec<&String>| {
            let words: Vec<String> = words.into_iter().map(|word| systemd_word(word)).collect();
            words.join(" ")
        };
        let guard = self.guard();
        UNIT_TEXT
            .replace(
                "@MEMBERSHIP@",
                &systemd_path(&self.state.join(membership::FILE).display().to_string()),
            )
            .replace("@GUARD@", &words(guard.iter().collect()))
            .replace(
                "@COMMAND@",
                &words([&program].into_iter().chain(&self.args).collect()),
            )
    }

    fn openrc(&self) -> String {
        format!(
            "\
#!/sbin/openrc-run
# Written by `edge-agent install`, which overwrites it.

description=\"Holdfast agent: reach this device with ssh through its relay\"
supervisor=supervise-daemon
command={program}
command_args=\"{args}\"
# It is never given up.
respawn_delay=1
respawn_max=0
output_logger=\"logger -t edge-agent\"
error_logger=\"logger -t edge-agent\"

depend() {{
    use net logger
}}

# While a new version is on trial (`edge-agent upgrade`), the one before watches over it.
start_pre() {{
    [ ! -x {previous} ] || {guard}
    return 0
}}
",
            program = shell_word(&self.program.display().to_string()),
            previous = shell_word(&self.previous().display().to_string()),
            guard = shell_words(&self.guard()),
            // supervise-daemon's arguments go through `eval`: quoted for it, and then for the script.
            args = in_double_quotes(&self.shell_args()),
        )
    }

    fn procd(&self) -> String {
        format!(
            "\
#!/bin/sh /etc/rc.common
# Written by `edge-agent install`, which overwrites it.

START=95
STOP=10
USE_PROCD=1

start_service() {{
    # While a new version is on trial (`edge-agent upgrade`), the one before watches over it.
    [ ! -x {previous} ] || {guard}
    procd_open_instance
    procd_set_param command {program} {args}
    # Started again one second after each end, and never given up.
    procd_set_param respawn 3600 1 0
    procd_set_param limits nofile=\"4096 524288\"
    procd_set_param stdout 1
    procd_set_param stderr 1
    procd_close_instance
}}
",
            program = shell_word(&self.program.display().to_string()),
            previous = shell_word(&self.previous().display().to_string()),
            guard = shell_words(&self.guard()),
            args = self.shell_args(),
        )
    }

    /// Returns what `sysupgrade` has to keep for the agent to come back with the next firmware: all that is installed,
    /// this list too, and the state.
    fn kept(&self) -> String {
        let mut kept = vec![self.program.clone(), self.previous(), SCRIPT.into()];
        kept.extend(self.links().into_iter().map(|(path, _)| path));
        kept.extend([KEEP.into(), self.state.clone()]);
        let lines = kept
            .iter()
            .map(|path| keep_pattern(&path.display().to_string()) + "\n");
        lines.collect()
    }

    fn shell_args(&self) -> String {
        shell_words(&self.args)
    }

    /// Returns where an upgrade keeps the program before.
    pub(super) fn previous(&self) -> PathBuf {
        let places = UpgradePaths {
            program: self.program.clone(),
            state: self.state.clone(),
        };
        places.previous()
    }

    /// Returns the command that is run before each start, if the previous program is there.
    fn guard(&self) -> [String; 4] {
        [
            self.previous().display().to_string(),
            watch::GUARD.to_owned(),
            "--state".to_owned(),
            self.state.display().to_string(),
        ]
    }
}

/// The name of the action in OpenRC and procd.
pub(super) const NAME: &str = "edge-agent";

/// The unit, without the command line and without where the membership is.
const UNIT_TEXT: &str = include_str!("edge-agent.service");
const UNIT: &str = "/etc/systemd/system/edge-agent.service";
const SCRIPT: &str = "/etc/init.d/edge-agent";
const KEEP: &str = "/lib/upgrade/keep.d/edge-agent";

fn commands(lines: &[&[&str]]) -> Vec<Vec<String>> {
    let owned = |line: &&[&str]| line.iter().map(|&word| word.to_owned()).collect();
    lines.iter().map(owned).collect()
}

/// Returns one word of `ExecStart=`, as in systemd.service(5), "Command lines".
fn systemd_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' | '$' => quoted.extend([c, c]),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Returns a path as the value of a setting: the rest of the line, where `%` begins a specifier.
fn systemd_path(path: &str) -> String {
    path.replace('%', "%%")
}

/// Returns one word for a POSIX shell.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Returns a path in a keep list, whose lines a shell splits into words and expands: what would be taken for more than
/// itself becomes the wildcard for one character.
fn keep_pattern(path: &str) -> String {
    let special = |c: char| c.is_whitespace() || "*[]\\#".contains(c);
    path.replace(special, "?")
}

fn shell_words(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
    words.join(" ")
}

/// Escapes text between the double quotes of a POSIX shell.
fn in_double_quotes(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if "\"\\$`".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests;
