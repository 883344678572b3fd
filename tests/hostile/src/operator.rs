//! An operator: SSH packet by packet, without any rule of a client.

pub mod raw;
pub mod sftp;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use self::raw::{CHANNEL_OPEN, CHANNEL_REQUEST, Raw, SshMessage};
use crate::{Outcome, check_target};

/// One misbehaviour of an operator.
#[derive(Debug)]
pub struct OperatorCase {
    /// Its name on the command line.
    pub name: &'static str,
    /// One sentence.
    pub what: &'static str,
    /// The case itself.
    pub run: fn(&OperatorTarget) -> Result<Outcome>,
}

/// The address and the user.
#[derive(Clone, Debug)]
pub struct OperatorTarget {
    /// The relay's SSH address.
    pub relay: SocketAddr,
    /// An Ed25519 private key.
    pub key: PathBuf,
    /// The SSH user name.
    pub user: String,
    /// The number of times that it misbehaves.
    pub count: u32,
    /// The time that the relay's reaction is waited for.
    pub within: Duration,
}

/// Plays a case to its end.
///
/// # Errors
/// The relay does not let the operator in.
pub async fn play(case: &OperatorCase, target: OperatorTarget) -> Result<Outcome> {
    check_target(target.relay)?;
    let run = case.run;
    tokio::task::spawn_blocking(move || run(&target)).await?
}

impl OperatorTarget {
    /// A connection that is logged in.
    ///
    /// # Errors
    /// The relay does not let it in.
    pub fn login(&self) -> Result<Raw> {
        let raw = Raw::try_login(self.relay, &self.key, &self.user);
        raw.with_context(|| format!("{} does not let {:?} in", self.relay, self.user))
    }
}

/// A session channel that is opened as number `ours`.
#[must_use]
pub fn open(ours: u32, window: u32, packet: u32) -> SshMessage {
    let open = SshMessage::new(CHANNEL_OPEN).string("session");
    open.number(ours).number(window).number(packet)
}

/// A request on a channel.
#[must_use]
pub fn request(theirs: u32, kind: &str, wants_reply: bool) -> SshMessage {
    let request = SshMessage::new(CHANNEL_REQUEST).number(theirs);
    request.string(kind).byte(wants_reply.into())
}
