//! What was typed.

mod upgrade;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use holdfast_protocol::identity::release::ReleaseKey;
use holdfast_protocol::identity::token::Token;
use holdfast_protocol::ids::{DeviceName, LabelKey, LabelValue};
use holdfast_protocol::limits::{MAX_KEEPALIVE, MIN_KEEPALIVE, MIN_SPOOL_BYTES};
use holdfast_protocol::recording::spool::Sync;
use holdfast_protocol::recording::upload::{UploadConfig, UploadPolicy};
use thiserror::Error;

use crate::recording::RecorderConfig;
use crate::service::install::{Init, Install};
use crate::service::upgrade::{self_test, watch};
use crate::session::launch::login::LoginMode;
use crate::session::subsystem::SftpServer;
use crate::sftp::ARGUMENT;

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
        after_help = "Exits 1 if there is a problem; a warning leaves it 0. Run it as root, as the agent is.

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

/// `edge-agent run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub state: StateArg,
    /// Interval of keepalives on an idle tunnel; must be shorter than the NAT's UDP timeout
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = parse_keepalive)]
    pub keepalive: Duration,
    /// An environment variable that operators may set, beside LANG and LC_*; `*` matches anything
    #[arg(long = "accept-env", value_name = "PATTERN")]
    pub accept_env: Vec<String>,
    /// Server of sftp and scp: `internal`, or the absolute path of another sftp-server
    #[arg(long, value_name = "PATH", default_value = "internal", value_parser = parse_sftp_server)]
    pub sftp_server: SftpServer,
    /// Way to open login sessions
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    pub login: LoginMode,
    /// Run although not as root: every operator then is the agent's own account, and may copy the device's key
    #[arg(long)]
    pub allow_own_account: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub recording: RecordingArgs,
}

impl RunArgs {
    /// Refuses to serve sessions of the account that holds the device's key, unless that was asked for. `is_root` is
    /// whether the agent is root, and so serves accounts that are not its own.
    ///
    /// # Errors
    /// [`OwnAccount`].
    pub fn check_account(&self, is_root: bool) -> Result<(), OwnAccount> {
        match is_root || self.allow_own_account {
            true => Ok(()),
            false => Err(OwnAccount(self.state.state.clone())),
        }
    }
}

/// The agent is not root.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "the agent is not root, so that every operator would be its own account, and could copy the device's key from {} \
     and change its recordings: run it as root, or accept that with --allow-own-account", .0.display()
)]
pub struct OwnAccount(PathBuf);

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

/// The options of recordings.
#[derive(Debug, Args)]
pub struct RecordingArgs {
    /// Folder of the recordings that wait for the relay [default: the folder `spool` in the state folder]
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// Maximum size of the recordings that wait there
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_spool_size)]
    pub spool_max: u64,
    /// Free space of the file system that recordings leave alone [default: 16MiB, or a fourth of a small
    /// file system]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub spool_reserve: Option<u64>,
    /// Sync of recordings to the disk: with each write, when a segment is full, or never
    /// [default: block, and off in memory]
    #[arg(long, value_name = "WHEN")]
    pub sync: Option<SyncArg>,
    /// Upload policy of recordings: idle, always, manual, or 'window HH:MM-HH:MM' in UTC
    #[arg(long, value_name = "POLICY", default_value = "idle", value_parser = parse_policy)]
    pub upload: UploadPolicy,
    /// Maximum bytes of recordings per second
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub upload_rate: Option<u64>,
    /// Maximum bytes of recordings per day
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub upload_daily: Option<u64>,
}

impl RecordingArgs {
    /// Returns the configuration for an agent whose state is in `state`.
    #[must_use]
    pub fn config(&self, state: &Path) -> RecorderConfig {
        RecorderConfig {
            folder: self.spool.clone().unwrap_or_else(|| state.join("spool")),
            in_state: self.spool.is_none(),
            adopted: Some(RecorderConfig::adopted_in(state)),
            max_bytes: self.spool_max,
            reserve: self.spool_reserve,
            sync: self.sync.map(Sync::from),
            upload: UploadConfig {
                policy: self.upload,
                rate: self.upload_rate,
                daily: self.upload_daily,
            },
        }
    }
}

/// [`Sync`], as it is typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SyncArg {
    /// With each write
    Block,
    /// With each full segment
    Close,
    /// Never
    Off,
}

impl From<SyncArg> for Sync {
    fn from(arg: SyncArg) -> Self {
        match arg {
            SyncArg::Block => Self::Block,
            SyncArg::Close => Self::Close,
            SyncArg::Off => Self::Off,
        }
    }
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

fn parse_token(text: &str) -> Result<Token, holdfast_protocol::identity::token::TokenError> {
    text.trim().parse()
}

fn parse_label(text: &str) -> Result<(LabelKey, LabelValue), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("a label is KEY=VALUE, such as role=camera")?;
    let key = LabelKey::new(key).map_err(|error| error.to_string())?;
    let value = LabelValue::new(value).map_err(|error| error.to_string())?;
    Ok((key, value))
}

fn parse_sftp_server(text: &str) -> Result<SftpServer, String> {
    match text {
        "internal" => Ok(SftpServer::Internal),
        _ if text.starts_with('/') => Ok(SftpServer::Device(text.to_owned())),
        _ => Err("it is internal, or an absolute path".to_owned()),
    }
}

fn parse_keepalive(text: &str) -> Result<Duration, String> {
    let seconds = text
        .strip_suffix('s')
        .unwrap_or(text)
        .parse()
        .map(Duration::from_secs);
    match seconds {
        Ok(time) if (MIN_KEEPALIVE..=MAX_KEEPALIVE).contains(&time) => Ok(time),
        _ => Err(format!(
            "a keepalive is {} to {} seconds, such as 25s",
            MIN_KEEPALIVE.as_secs(),
            MAX_KEEPALIVE.as_secs()
        )),
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..) {
        Some("" | "B") => 0,
        Some("KiB") => 10,
        Some("MiB") => 20,
        Some("GiB") => 30,
        _ => return Err("a size is a number and B, KiB, MiB or GiB, such as 64MiB".to_owned()),
    };
    let number = digits.parse::<u64>().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "a size is a number and B, KiB, MiB or GiB, such as 64MiB".to_owned())
}

fn parse_spool_size(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        size if size >= MIN_SPOOL_BYTES => Ok(size),
        _ => Err(format!(
            "a spool holds at least {}MiB",
            MIN_SPOOL_BYTES >> 20
        )),
    }
}

fn parse_policy(text: &str) -> Result<UploadPolicy, String> {
    let wrong = || {
        "an upload policy is idle, always, manual or a window such as 'window 02:00-05:00'"
            .to_owned()
    };
    match text {
        "idle" => Ok(UploadPolicy::Idle),
        "always" => Ok(UploadPolicy::Always),
        "manual" => Ok(UploadPolicy::Manual),
        _ => {
            let window = text.strip_prefix("window ").ok_or_else(wrong)?;
            let (from, to) = window.trim().split_once('-').ok_or_else(wrong)?;
            let from = minute(from).ok_or_else(wrong)?;
            let to = minute(to).ok_or_else(wrong)?;
            Ok(UploadPolicy::Window { from, to })
        }
    }
}

/// Returns the minute of the day of `HH:MM`.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let (hour, minute) = (two(hour)?, two(minute)?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
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

    #[test]
    fn a_keepalive_stays_in_its_bounds() {
        assert_eq!(parse_keepalive("25s"), Ok(Duration::from_secs(25)));
        assert_eq!(parse_keepalive("5"), Ok(Duration::from_secs(5)));
        for bad in ["", "4s", "121s", "1m", "-1"] {
            assert!(parse_keepalive(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_windows_are_read_as_they_are_meant() {
        for (text, size) in [("0", 0), ("512B", 512), ("3KiB", 3072), ("64MiB", 64 << 20)] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for bad in [
            "",
            "MiB",
            "-1",
            "64 MiB",
            "64MB",
            "1.5GiB",
            "99999999999999GiB",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert!(parse_spool_size("1MiB").is_err());
        let night = UploadPolicy::Window {
            from: 23 * 60 + 5,
            to: 5 * 60,
        };
        assert_eq!(parse_policy("window 23:05-05:00"), Ok(night));
        for bad in [
            "",
            "window",
            "window 24:00-05:00",
            "window 2:00-05:00",
            "window 02:60-05:00",
        ] {
            assert!(parse_policy(bad).is_err(), "{bad}");
        }
    }
}
