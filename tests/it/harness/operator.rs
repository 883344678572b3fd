//! An operator: a key that the relay knows, and OpenSSH's programs with a configuration of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Output, Relay, command, run};

/// The two ways to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `ssh LOGIN+DEVICE@relay`.
    Direct,
    /// `ssh LOGIN@DEVICE.fleet`, through `ProxyJump`.
    Jump,
}

impl Way {
    pub(crate) const BOTH: [Self; 2] = [Self::Direct, Self::Jump];

    /// Returns what `ssh` is to connect to, `LOGIN` and all.
    pub(crate) fn destination(self, login: &str, device: &str) -> String {
        match self {
            Self::Direct => format!("{login}+{device}@relay"),
            Self::Jump => format!("{login}@{device}.fleet"),
        }
    }
}

/// The kinds of key that an operator may have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyKind {
    Ed25519,
    Ecdsa256,
    Ecdsa384,
    Ecdsa521,
    Rsa3072,
}

impl KeyKind {
    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Ed25519 => ["-t", "ed25519", "-a", "1"],
            Self::Ecdsa256 => ["-t", "ecdsa", "-b", "256"],
            Self::Ecdsa384 => ["-t", "ecdsa", "-b", "384"],
            Self::Ecdsa521 => ["-t", "ecdsa", "-b", "521"],
            Self::Rsa3072 => ["-t", "rsa", "-b", "3072"],
        }
    }
}

pub(crate) struct User {
    name: String,
    folder: PathBuf,
}

impl User {
    /// Makes a key, adds the user to the relay, and writes their ssh configuration.
    #[track_caller]
    pub(crate) fn add(relay: &Relay, name: &str, kind: KeyKind, roles: &[&str]) -> Self {
        let user = Self::stranger(relay, name, kind);
        let key = user.key().with_extension("pub");
        let mut add = relay.command(&["user", "add", name, "--key"]);
        add.arg(key);
        for role in roles {
            add.args(["--role", role]);
        }
        run(&mut add).ok();
        user
    }

    /// A person with a key and a configuration whom the relay does not know.
    #[track_caller]
    pub(crate) fn stranger(relay: &Relay, name: &str, kind: KeyKind) -> Self {
        let folder = relay.folder().join(format!("user-{name}"));
        fs::create_dir(&folder).unwrap();
        let user = Self {
            name: name.to_owned(),
            folder,
        };
        make_key(&user.key(), kind);
        user.configure(relay, &["relay"]);
        user
    }

    /// Writes the configuration and known_hosts. Host keys are checked strictly: the relay's own against
    /// the line that it prints, those of devices against the line of its certificate authority alone.
    /// `names` are further hosts to be reached by the jump; `*.fleet` is always.
    #[track_caller]
    pub(crate) fn configure(&self, relay: &Relay, names: &[&str]) {
        let known = relay.admin(&["ssh-config", "--known-hosts"]).ok().out();
        fs::write(self.folder.join("known_hosts"), known).unwrap();
        let jump_names: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| *name != "relay")
            .collect();
        let text = format!(
            "Host relay\n  HostName {host}\n  Port {port}\n\
             Host *.fleet {names}\n  ProxyJump relay\n\
             Host *\n  IdentityFile {key}\n  IdentitiesOnly yes\n  UserKnownHostsFile {known}\n  \
             GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n  BatchMode yes\n",
            host = relay.ssh().ip(),
            port = relay.ssh().port(),
            names = jump_names.join(" "),
            key = self.key().display(),
            known = self.folder.join("known_hosts").display(),
        );
        fs::write(self.config(), text).unwrap();
    }

    /// `ssh` to an account of a device. More options and the command may follow.
    pub(crate) fn ssh(&self, way: Way, login: &str, device: &str) -> Command {
        let mut ssh = self.tool("ssh");
        ssh.arg(way.destination(login, device));
        ssh
    }

    /// Runs one command on a device, as the account that runs the tests.
    #[track_caller]
    pub(crate) fn exec(&self, way: Way, device: &str, line: &str) -> Output {
        run(self.ssh(way, &super::own_login(), device).arg(line))
    }

    /// `ssh relay`: the console. Its command may follow.
    pub(crate) fn console(&self) -> Command {
        let mut ssh = self.tool("ssh");
        ssh.arg("relay");
        ssh
    }

    /// `ssh`, `scp` or `sftp` with the user's configuration, and nothing else yet.
    pub(crate) fn tool(&self, program: &str) -> Command {
        let mut tool = command(program);
        tool.arg("-F").arg(self.config());
        tool
    }

    /// `rsync` that goes by the user's `ssh`.
    pub(crate) fn rsync(&self) -> Command {
        let mut rsync = command("rsync");
        rsync
            .arg("-e")
            .arg(format!("ssh -F {}", self.config().display()));
        rsync
    }

    /// Their name at the relay.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Their private key; `.pub` is beside it.
    pub(crate) fn key(&self) -> PathBuf {
        self.folder.join("key")
    }

    /// Their ssh configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("ssh_config")
    }

    /// A folder for whatever belongs to them; it goes with the relay.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Makes a key pair without a passphrase.
#[track_caller]
pub(crate) fn make_key(path: &Path, kind: KeyKind) {
    let mut keygen = command("ssh-keygen");
    keygen
        .args(["-q", "-N", "", "-C", "holdfast-test"])
        .args(kind.arguments());
    run(keygen.arg("-f").arg(path)).ok();
}
