//! `relay exec` and `relay cp` in a shell on the relay's machine. Who reads the state folder is no user, and nothing is
//! done on a device without a user: so this becomes the real `ssh`, which asks the running relay's console for the
//! same, and whose work it is follows from the key that it logs in with, as for every user.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use anyhow::{Context as _, bail};

use crate::bulk::limits::MAX_COPY;
use crate::clock::Timestamp;
use crate::commands::devices::cp;
use crate::commands::{AnyCommand, Bulk};
use crate::ssh::console::prefix;
use crate::state::{HOST_KEY_ALIAS, State};
use crate::store::Store;

pub(super) const EXEC_HELP: &str = "Examples:
  relay exec --on role=camera -- uptime
  relay exec --on 'role=camera,site!=lab' --login root --timeout 30s -- 'df -h / | tail -1'
  relay exec --on '*' --wait 1h --identity ~/.ssh/fleet -- sudo reboot

It runs as you, with your roles: `ssh` logs in at the running relay, and your key says which user you are. The command
gets no input and no terminal. Each line follows its device's name; in the end there is a table.
Exit status 0: all commands exited with 0. 1: some did not, or were refused. 2: usage. 255: `ssh` could not log in, or
its output was not read to the end.
From elsewhere: ssh -p 2222 relay.example.com exec --on role=camera -- uptime";

pub(super) const CP_HELP: &str = "Examples:
  relay cp motd --on role=camera:/etc/motd --login root
  relay cp tool --on 'role=camera,site!=lab:bin/tool' --mode 755 --wait 1h
  tar -cz conf | relay cp - --on '*:conf.tgz'

It runs as you, with your roles: `ssh` logs in at the running relay, and your key says which user you are. The file
goes to each device by sftp: your roles must allow `sftp` there. On a device there is the old file or the new one,
never half of it. A file that is replaced keeps its mode; a link is replaced, not followed. PATH begins behind the
first colon; without a slash in front it is in the home of the login.
Exit status 0: all devices have it. 1: some have not. 2: usage. 255: `ssh` could not log in.
From elsewhere: ssh -p 2222 relay.example.com cp - --on role=camera:/etc/motd <motd";

// How `ssh` logs in. No doc comment: clap would make it the text about the command that these are added to.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct SshArgs {
    /// A key of yours, besides those that ssh finds itself: its agent's, and in ~/.ssh
    #[arg(short, long, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// An option for ssh, as in ssh_config: -o IdentitiesOnly=yes
    #[arg(short = 'o', long = "ssh-option", value_name = "OPTION")]
    ssh_option: Vec<String>,
}

impl SshArgs {
    fn options(&self) -> Vec<OsString> {
        let keys = self.identity.iter();
        let keys = keys.flat_map(|file| ["-i".into(), file.clone().into_os_string()]);
        let options = self.ssh_option.iter();
        let options = options.flat_map(|option| ["-o".into(), option.into()]);
        keys.chain(options).collect()
    }
}

/// Becomes `ssh`, which does it: returns only if it cannot.
///
/// # Errors
/// A sentence: no relay serves, there is no such file, or no `ssh`.
pub(super) fn run(state: &State, command: &AnyCommand, args: &SshArgs) -> anyhow::Result<u8> {
    let command = SshCommand::of(command)?;
    let relay = serving(state)?;
    let terminal = command.terminal();
    let mut ssh = Process::new("ssh");
    ssh.args(match terminal {
        // Input that is no terminal's goes through one all the same, byte by byte.
        true if command.file.is_some() => &["-tt", "-o", "EscapeChar=none"][..],
        true => &["-t"],
        false => &["-T"],
    });
    // The first value of an option counts: neither what was typed nor a file of the user's takes these back.
    ssh.args(relay.options()).args(args.options());
    ssh.arg("--").arg(relay.host()).arg(&command.line);
    let typed = format!(
        "{} {}{}",
        prefix(&relay.public),
        shell_words::quote(&command.line),
        command.input
    );
    match (command.file, terminal) {
        (Some(file), _) => ssh.stdin(file),
        // For the key that interrupts.
        (None, true) => &mut ssh,
        (None, false) => ssh.stdin(Stdio::null()),
    };
    // Only a failure comes back: signals, streams and the exit status are the program's own from here on.
    let error = ssh.exec();
    if error.kind() == io::ErrorKind::NotFound {
        bail!("`ssh` is not installed: install it, or run on a machine that has it: `{typed}`");
    }
    Err(error).context("cannot run `ssh`")
}

/// The command for the console.
struct SshCommand {
    line: String,
    /// The standard input.
    file: Option<Stdio>,
    /// The same for a user who types the line in a shell.
    input: String,
    json: bool,
}

impl SshCommand {
    fn of(command: &AnyCommand) -> anyhow::Result<Self> {
        match command.bulk() {
            Some(Bulk::Exec(args)) => Ok(Self {
                line: args.at_console(),
                file: None,
                input: String::new(),
                json: args.json,
            }),
            Some(Bulk::Cp(args)) => Ok(Self {
                line: args.at_console(),
                file: Some(payload(args)?),
                input: match args.file.as_str() {
                    "-" => " <FILE".to_owned(),
                    file => format!(" <{}", shell_words::quote(file)),
                },
                json: args.json,
            }),
            None => bail!("this command does not run on a fleet"),
        }
    }

    /// Returns whether progress is drawn: where a user sees it, and nothing else gets what is written. A file that a
    /// user types is no reason to take their terminal's line editing away.
    fn terminal(&self) -> bool {
        let typed = io::stdin().is_terminal();
        let seen = io::stdout().is_terminal() && io::stderr().is_terminal();
        let input = match (&self.file, self.input.as_str()) {
            (None, _) => typed,
            (Some(_), " <FILE") => !typed,
            (Some(_), _) => true,
        };
        seen && input && !self.json
    }
}

fn payload(args: &cp::Args) -> anyhow::Result<Stdio> {
    if args.file == "-" {
        return Ok(Stdio::inherit());
    }
    let path = Path::new(&args.file);
    let cannot = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let found = file.metadata().with_context(cannot)?;
    if found.is_dir() {
        bail!("{} is a folder: `cp` takes one file", path.display());
    }
    // Rather than when most of it is there.
    if found.len() > MAX_COPY {
        let most = MAX_COPY >> 20;
        bail!(
            "{} is larger than {most} MiB, the maximum of `cp`",
            path.display()
        );
    }
    Ok(file.into())
}

/// The relay that serves from the state folder.
struct Serving {
    /// The name that it has elsewhere: `ssh` takes what its configuration says of this name.
    public: String,
    /// The address on this machine, whatever that name leads to.
    local: SocketAddr,
    known_hosts: String,
}

fn serving(state: &State) -> anyhow::Result<Serving> {
    let dir = state.dir.display();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let (lives, public, bound) = runtime.block_on(async {
        let store = Store::open_existing(state.database()).await?;
        let runs = store.member_runs().await?;
        let run = runs.get(&state.member);
        let lives = run.is_some_and(|run| run.lives(Timestamp::now()));
        let member = store.member(state.member).await?;
        store.close().await;
        let (public, bound) = member.map_or((None, None), |it| (it.ssh_address, it.bound_ssh));
        anyhow::Ok((lives, public, bound))
    })?;
    if !lives {
        bail!(
            "no relay serves from {dir}, and only a running one reaches devices: start `relay serve --state {dir}`"
        );
    }
    let (Some(public), Some(bound), true) = (public, bound, state.known_hosts().exists()) else {
        bail!("the relay that serves from {dir} is of an earlier version: restart it");
    };
    Ok(Serving {
        public,
        local: reached_here(bound),
        known_hosts: for_ssh(&state.known_hosts())?,
    })
}

/// Returns where a listener on `bound` is reached on its own machine.
fn reached_here(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

/// Returns a path as a value in `ssh_config`.
fn for_ssh(path: &Path) -> anyhow::Result<String> {
    let whole = path.canonicalize();
    let whole = whole.with_context(|| format!("cannot find {}", path.display()))?;
    // What `ssh` would replace, or take for the end of the value.
    let odd = |c: char| c.is_control() || ['"', '\\', '$', '%'].contains(&c);
    match whole.to_str().filter(|text| !text.contains(odd)) {
        Some(text) => Ok(format!("\"{text}\"")),
        None => bail!(
            "a path with such characters cannot be passed to ssh: {}",
            whole.display()
        ),
    }
}

impl Serving {
    /// Returns the options that make it this relay and no other, reached here, by a connection for this alone.
    fn options(&self) -> Vec<String> {
        let options = [
            format!("HostName={}", self.local.ip()),
            format!("Port={}", self.local.port()),
            format!("HostKeyAlias={HOST_KEY_ALIAS}"),
            format!("UserKnownHostsFile={}", self.known_hosts),
            "GlobalKnownHostsFile=/dev/null".into(),
            "StrictHostKeyChecking=yes".into(),
            "HostKeyAlgorithms=ssh-ed25519".into(),
            "VerifyHostKeyDNS=no".into(),
            "UpdateHostKeys=no".into(),
            "CanonicalizeHostname=no".into(),
            "ProxyJump=none".into(),
            "ProxyCommand=none".into(),
            // Whose key the connection of another `ssh` was made with is not known.
            "ControlPath=none".into(),
            "ControlMaster=no".into(),
            "RemoteCommand=none".into(),
            "ClearAllForwardings=yes".into(),
            "ForwardAgent=no".into(),
            "ForwardX11=no".into(),
            // A name with a `+` in it would name a device.
            "User=relay".into(),
        ];
        options
            .into_iter()
            .flat_map(|option| ["-o".to_owned(), option])
            .collect()
    }

    fn host(&self) -> &str {
        let host = self.public.rsplit_once(':');
        host.map_or(self.public.as_str(), |(host, _)| host)
            .trim_matches(['[', ']'])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_commands_are_about_is_said_at_this_door_too() {
        let mut tree = crate::entry::cli::command();
        for (name, about) in [
            ("exec", "Run a command on many"),
            ("cp", "Put a file onto many"),
        ] {
            let command = tree.find_subcommand_mut(name).unwrap();
            let help = command.render_help().to_string();
            assert!(
                help.starts_with(about) && help.contains("--identity"),
                "{help}"
            );
            assert!(help.contains("Examples:\n  relay "), "{help}");
        }
    }

    #[test]
    fn a_listener_is_reached_on_its_own_machine() {
        let table = [
            ("0.0.0.0:2222", "127.0.0.1:2222"),
            ("[::]:22", "[::1]:22"),
            ("192.0.2.7:2222", "192.0.2.7:2222"),
        ];
        for (bound, reached) in table {
            assert_eq!(reached_here(bound.parse().unwrap()).to_string(), reached);
        }
    }

    #[test]
    fn a_path_that_ssh_would_read_otherwise_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (name, good) in [
            ("a b~'", true),
            ("a%d", false),
            ("${HOME}", false),
            ("a\"", false),
            ("a\n", false),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            assert_eq!(for_ssh(&path).is_ok(), good, "{name}");
        }
    }
}
