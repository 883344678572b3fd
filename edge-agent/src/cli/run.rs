//! The arguments of `edge-agent run`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use holdfast_protocol::recording::spool::Sync;
use holdfast_protocol::recording::upload::{UploadConfig, UploadPolicy};
use thiserror::Error;

use super::StateArg;
use super::values::{
    parse_keepalive, parse_policy, parse_sftp_server, parse_size, parse_spool_size,
};
use crate::recording::RecorderConfig;
use crate::session::launch::login::LoginMode;
use crate::session::subsystem::SftpServer;

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
