//! The agent's command line: its commands and their arguments.

mod run;
mod upgrade;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use holdfast_protocol::identity::release::ReleaseKey;
use holdfast_protocol::identity::token::Token;
use holdfast_protocol::ids::{DeviceName, LabelKey, LabelValue};

use self::values::{parse_label, parse_token};
use crate::service::install::{Init, Install};
use crate::service::upgrade::{self_test, watch};
use crate::sftp::ARGUMENT;

pub use run::{OwnAccount, RecordingArgs, RunArgs, SyncArg};
pub use upgrade::{SelfTest, UpgradeArgs, WatchArgs};

/// Keeps a tunnel to a Holdfast relay open, so that operators reach this device with a stock ssh.
#[derive(Debug, Parser)]
#[command(
    name = "edge-agent",
    version,
    after_help = "Examples:
  edge-agent join hf1.relay.example.com:4433.7k3v… --name kitchen-cam
  edge-agent run
  edge-agent status --json"
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The agent's commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make this device a member of a fleet, with a token from `relay token create`
    #[command(after_help = "Run again on a member, it changes nothing and exits 0.

Examples:
  edge-agent join hf1.relay.example.com:4433.7k3v…
  edge-agent join TOKEN --name kitchen-cam --label role=camera --label site=berlin
  edge-agent join --release-key RWQ0ZvBD…     pins the key that new versions are signed with, also on a member")]
    Join(Join),
    /// Connect to the relay and keep the tunnel open
    #[command(after_help = "Examples:
  edge-agent run
  edge-agent run --state /mnt/data/edge-agent --keepalive 45s
  edge-agent run --accept-env 'GIT_*'
  edge-agent run --login bare
  edge-agent run --sftp-server /usr/lib/openssh/sftp-server
  edge-agent run --spool /mnt/data/spool --spool-max 256MiB --upload 'window 02:00-05:00'")]
    Run(RunArgs),
    /// Show whether the tunnel is up
    #[command(after_help = "Exits 0 when the tunnel is up, 1 otherwise.

Examples:
  edge-agent status
  edge-agent status --json")]
    Status(StatusArgs),
    /// Check this agent and show remedies
    #[command(
        after_help = "Exits 1 if there is a problem; a warning leaves it 0. Run it as the agent's account, which is root
unless `run` has --allow-own-account.

Examples:
  edge-agent doctor
  edge-agent doctor --json | jq -r '.[] | select(.level == \"problem\") | .remedy'"
    )]
    Doctor(StatusArgs),
    /// Upload the recordings that wait, whatever the upload policy says
    #[command(
        after_help = "Exits 0 when the running agent was asked; `edge-agent status` shows how far it is.

Examples:
  edge-agent upload"
    )]
    Upload(StateArg),
    /// Replace the running agent by a newer one that the pinned key signed
    #[command(
        after_help = "The new version tests itself against the relay before it takes the place of the old one, and is
rolled back when it gets no tunnel in time. Sessions end with a notice. Exits 0 when the new version is kept, or
runs already. The signature is minisign's: `minisign -S -s minisign.key -m FILE` writes FILE.minisig.

Examples:
  edge-agent upgrade /tmp/edge-agent
  edge-agent upgrade /tmp/edge-agent --trial 10m                   a modem that takes its time
  edge-agent upgrade /tmp/edge-agent-0.1.0 --allow-downgrade"
    )]
    Upgrade(UpgradeArgs),
    /// Make this program a service of the device's init, and start it
    #[command(
        after_help = "Run again, it changes only what differs. `join` comes first: without it the service waits.

Examples:
  edge-agent install
  edge-agent install --dry-run                                what it would write and run
  edge-agent install -- --keepalive 45s --spool /mnt/data/spool
  edge-agent install --state /etc/edge-agent                  OpenWrt, whose /var is in memory
  edge-agent install --root /mnt/card                         into a mounted image; nothing is started"
    )]
    Install(InstallArgs),
    /// Stop and remove the service that `install` made
    #[command(after_help = "Examples:
  edge-agent uninstall
  edge-agent uninstall --purge        also the device's key and the recordings that wait")]
    Uninstall(UninstallArgs),
    /// Serve SFTP on stdin and stdout, as the account that runs this: what `edge-agent run` starts for sftp
    /// and scp
    #[command(
        name = ARGUMENT,
        after_help = "Exits 0 when the client has ended. Paths are the account's, links are followed; within --root no
path leads out of the folder, whatever links and `..` it holds.

Examples:
  sftp -D 'edge-agent internal-sftp'
  sftp -D 'edge-agent internal-sftp --read-only --root /srv/media'"
    )]
    InternalSftp(SftpArgs),
    /// Check whether this program can reach the relay while another version runs
    #[command(name = self_test::ARGUMENT, hide = true)]
    SelfTest(SelfTest),
    /// Count a start of the version on trial, before it is made
    #[command(name = watch::GUARD, hide = true)]
    Guard(StateArg),
    /// Restore the previous version if the one on trial fails
    #[command(name = watch::WATCH, hide = true)]
    Watch(WatchArgs),
}

/// The init system and the root folder.
#[derive(Debug, Args)]
pub struct InstallArg {
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub state: StateArg,
    /// Mount point of the device's root file system
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// The init system [default: the one that is found]
    #[arg(long, value_name = "INIT")]
    pub init: Option<Init>,
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `edge-agent install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub at: InstallArg,
    /// The program to install [default: this one]
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Flags for `edge-agent run`
    #[arg(last = true, value_name = "RUN-FLAG")]
    pub run: Vec<String>,
}

/// `edge-agent uninstall`.
#[derive(Debug, Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub at: InstallArg,
    /// Remove the state folder as well: the device must join again
    #[arg(long)]
    pub purge: bool,
}

impl InstallArg {
    /// Returns the installation that is asked for, of this program if no other is named; `run` is what the service's
    /// `edge-agent run` gets.
    #[must_use]
    pub fn with(self, program: Option<PathBuf>, run: Vec<String>) -> Install {
        Install {
            program,
            root: self.root,
            init: self.init,
            state: self.state.state,
            run,
        }
    }
}

impl InstallArgs {
    /// Checks whether the service could start with these flags: a mistake is better seen now than in the log of a
    /// device that does not come back.
    ///
    /// # Errors
    /// What clap has against them.
    pub fn check_run(&self) -> Result<(), clap::Error> {
        let words = ["edge-agent", "run"].map(str::to_owned).into_iter();
        Cli::try_parse_from(words.chain(self.run.iter().cloned())).map(drop)
    }
}

/// The state folder, with the agent's key and membership.
#[derive(Debug, Args)]
pub struct StateArg {
    /// The agent's state folder: its key and its membership
    #[arg(long, value_name = "DIR", default_value = "/var/lib/edge-agent")]
    pub state: PathBuf,
}

/// `edge-agent join`.
#[derive(Debug, Args)]
pub struct Join {
    /// The token that `relay token create` printed
    #[arg(value_name = "TOKEN", value_parser = parse_token, required_unless_present = "release_key")]
    pub token: Option<Token>,
    /// The key that new versions are signed with, instead of the one that the relay sends: the line of
    /// minisign.pub that begins with RW
    #[arg(long, value_name = "KEY")]
    pub release_key: Option<ReleaseKey>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub state: StateArg,
    /// The device's name in the fleet [default: the relay picks one]
    #[arg(long, value_name = "NAME")]
    pub name: Option<DeviceName>,
    /// A label; may be given more than once. The token's labels win over these
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<(LabelKey, LabelValue)>,
}

/// `edge-agent internal-sftp`.
#[derive(Debug, Args)]
pub struct SftpArgs {
    /// Refuse whatever would change a file, a folder or an attribute
    #[arg(long)]
    pub read_only: bool,
    /// The folder that is shown as the whole file system (needs Linux 5.6)
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

/// `edge-agent status` and `edge-agent doctor`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub state: StateArg,
    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn own_account_is_served_only_where_that_was_asked_for() {
        let run = |flags: &[&str]| {
            let words = ["edge-agent", "run"].iter().chain(flags);
            match Cli::try_parse_from(words).unwrap().command {
                Command::Run(run) => run,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(run(&[]).check_account(true), Ok(()));
        let refused = run(&[]).check_account(false).unwrap_err().to_string();
        assert!(refused.contains("/var/lib/edge-agent and"), "{refused}");
        assert!(refused.ends_with("--allow-own-account"), "{refused}");
        assert_eq!(run(&["--allow-own-account"]).check_account(false), Ok(()));
    }
}
