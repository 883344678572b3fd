//! The end of a session, and what its operator reads of it: lines of our own, never in the data of a command.

use holdfast_protocol::ids::DeviceName;
use holdfast_protocol::limits::ON_DISCONNECT_MINOR;
use holdfast_protocol::session::SessionViolation;
use holdfast_protocol::wire::{CloseCode, Exit};
use quinn::{ConnectionError, VarInt};
use thiserror::Error;
use tokio::time::timeout;

use crate::limits::FINAL_STATUS_TIMEOUT;
use crate::model::request::ProcessRequest;
use crate::model::role::OnDisconnect;
use crate::session::output::Gone;
use crate::session::output::{Output, notice};
use crate::session::refusal::Refusal;
use crate::session::registry::{Ending, LiveSession};
use crate::session::stream::BrokenStream;

/// The exit status that OpenSSH's client gives for any failure of its own, and we for a session that did not happen or
/// was cut.
pub(crate) const FAILED: Exit = Exit::Status(255);

/// The close code of an agent that is replaced.
const UPGRADING: VarInt = VarInt::from_u32(CloseCode::Upgrading as u32);

/// The exit status that a shell gives for a command that is not there.
pub(crate) const NOT_FOUND: Exit = Exit::Status(127);

/// Returns whether this is what `scp -O` asks for, whose other half is a program of the device.
#[must_use]
pub(crate) fn runs_scp(work: &ProcessRequest) -> bool {
    let ProcessRequest::Exec(command) = work else {
        return false;
    };
    let mut words = command.split(|byte| *byte == b' ');
    words.next() == Some(b"scp") && words.any(|word| matches!(word, b"-t" | b"-f"))
}

/// Returns whether this starts the other half of `mosh`, which would wait for packets that no NAT lets through.
#[must_use]
pub(crate) fn runs_mosh(work: &ProcessRequest) -> bool {
    let ProcessRequest::Exec(command) = work else {
        return false;
    };
    let mut words = command.split(|byte| *byte == b' ');
    let program = words
        .next()
        .and_then(|path| path.rsplit(|byte| *byte == b'/').next());
    program == Some(b"mosh-server") && matches!(words.next(), Some(b"new" | b"'new'"))
}

/// The way a session ended.
#[derive(Debug, Error)]
pub(crate) enum End {
    /// Its process did.
    #[error("exited: {0:?}")]
    Exited(Exit),
    /// The device or the relay started nothing, for the reason in this sentence.
    #[error("{0}")]
    Refused(String),
    /// The device said nothing at all.
    #[error("{0}")]
    NoAnswer(String),
    /// The client is gone.
    #[error("the client went away")]
    ClientGone,
    /// The relay ended it.
    #[error("{}", .0.why)]
    Ordered(Ending),
    /// The device's agent closed the tunnel, to be replaced.
    #[error("the device's agent was upgraded")]
    Upgrading,
    /// The tunnel is gone.
    #[error("the device was lost: {0}")]
    DeviceLost(String),
    /// The device said what it may not.
    #[error("the device broke the protocol: {0}")]
    Protocol(String),
}

impl From<&ConnectionError> for End {
    fn from(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) if close.error_code == UPGRADING => {
                Self::Upgrading
            }
            _ => Self::DeviceLost(error.to_string()),
        }
    }
}

impl From<BrokenStream> for End {
    fn from(broken: BrokenStream) -> Self {
        match broken {
            BrokenStream::ClientGone => Self::ClientGone,
            BrokenStream::Tunnel(error) => Self::from(&error),
            BrokenStream::Stream(error) => Self::DeviceLost(error),
            BrokenStream::Protocol(error) => Self::Protocol(error),
        }
    }
}

impl From<SessionViolation> for End {
    fn from(violation: SessionViolation) -> Self {
        Self::Protocol(violation.to_string())
    }
}

impl End {
    /// Returns whether the stream to the device came to its end in good order.
    #[must_use]
    pub(crate) fn is_orderly(&self) -> bool {
        matches!(self, Self::Exited(_) | Self::Refused(_))
    }

    /// Returns whether the process is to stop, rather than only to lose its observer.
    #[must_use]
    pub(crate) fn is_order(&self) -> bool {
        match self {
            Self::Ordered(ending) => ending.cause.is_order(),
            Self::Exited(_) | Self::ClientGone | Self::Upgrading | Self::DeviceLost(_) => false,
            // The start was not observed, or what the process does is not to be trusted.
            Self::Refused(_) | Self::NoAnswer(_) | Self::Protocol(_) => true,
        }
    }

    /// Returns how the process ended; `None` if it did not by itself, or there was none.
    #[must_use]
    pub(crate) fn exit(&self) -> Option<Exit> {
        match self {
            Self::Exited(exit) => Some(*exit),
            _ => None,
        }
    }
}

/// The state of a process that did not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    /// It goes on, without its input.
    Left,
    /// Its terminal was hung up: what ignores HUP goes on.
    HungUp,
    /// It got HUP, and KILL if it did not end.
    Killed,
}

impl Process {
    /// Returns what the device does with a session's process; `None` if it has ended by itself.
    #[must_use]
    pub(crate) fn of(
        end: &End,
        session: &LiveSession,
        (terminal, minor): (bool, u16),
    ) -> Option<Self> {
        if matches!(end, End::Exited(_)) {
            return None;
        }
        let on_disconnect = session.authorized.terms().on_disconnect;
        // An older device cannot tell the loss of an observer from an order.
        let is_lost = !end.is_order() && minor >= ON_DISCONNECT_MINOR;
        Some(match on_disconnect {
            OnDisconnect::Leave if is_lost => Self::Left,
            OnDisconnect::Hup if is_lost && terminal => Self::HungUp,
            OnDisconnect::Hup if is_lost => Self::Left,
            OnDisconnect::Leave | OnDisconnect::Hup | OnDisconnect::Kill => Self::Killed,
        })
    }

    /// Returns its word in the log.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::HungUp => "hung-up",
            Self::Killed => "killed",
        }
    }
}

/// Says lines of our own on one channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notices<'a> {
    /// The output to the operator.
    pub outlet: &'a dyn Output,
    /// True if the channel has a terminal.
    pub terminal: bool,
}

impl Notices<'_> {
    /// Writes a line on the terminal, or on stderr where there is none. A client that does not read gets nothing,
    /// and must not hold up the rest.
    pub(crate) async fn say(&self, text: &str) {
        let _ = timeout(FINAL_STATUS_TIMEOUT, self.try_say(text)).await;
    }

    /// Sends the final status of a session: why it ended, and the exit status. The channel stays open. Says whether
    /// the client took them.
    pub(crate) async fn send_final_status(&self, end: &End, device: &DeviceName) -> bool {
        if matches!(end, End::ClientGone) {
            return true;
        }
        let words = async {
            match end {
                End::ClientGone | End::Exited(_) => {}
                End::Refused(sentence) | End::NoAnswer(sentence) => {
                    self.outlet.notice(sentence, "\r\n").await?;
                }
                End::Ordered(Ending { why, .. }) => self.try_say(&format!("closed: {why}")).await?,
                End::Upgrading => {
                    let text =
                        format!("closed: the agent on {device} starts again as another version");
                    self.try_say(&text).await?;
                }
                End::DeviceLost(_) => {
                    let text = format!("closed: the tunnel to {device} was lost");
                    self.try_say(&text).await?;
                }
                End::Protocol(_) => {
                    let text =
                        format!("closed: {device} broke the protocol (is its agent too new?)");
                    self.try_say(&text).await?;
                }
            }
            self.outlet.exit(end.exit()).await?;
            self.outlet.eof().await
        };
        timeout(FINAL_STATUS_TIMEOUT, words).await.is_ok()
    }

    async fn try_say(&self, text: &str) -> Result<(), Gone> {
        if self.terminal {
            let text = format!("\r\n{}", notice(text, "\r\n"));
            self.outlet.stdout(text.into()).await
        } else {
            self.outlet.notice(text, "\n").await
        }
    }
}

/// Says why nothing starts on a channel, and closes it.
pub(crate) async fn refuse(outlet: &dyn Output, refusal: &Refusal) {
    let words = async {
        outlet.notice(&refusal.to_string(), "\r\n").await?;
        outlet.exit(None).await?;
        outlet.eof().await
    };
    let _ = timeout(FINAL_STATUS_TIMEOUT, words).await;
    outlet.close().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_mosh_runs_is_taken_for_mosh() {
        let runs = |line: &str| runs_mosh(&ProcessRequest::Exec(line.into()));
        assert!(runs("mosh-server new -s") && runs("/opt/bin/mosh-server 'new' '-c' '8'"));
        for no in [
            "mosh-server",
            "mosh-server --version",
            "echo mosh-server new",
            "mosh new",
            "",
        ] {
            assert!(!runs(no), "{no}");
        }
    }

    #[test]
    fn only_what_scp_runs_is_taken_for_scp() {
        let runs = |line: &str| runs_scp(&ProcessRequest::Exec(line.into()));
        for yes in ["scp -t /tmp/x", "scp -r -p -d -t -- a b", "scp -v -f ~/x"] {
            assert!(runs(yes), "{yes}");
        }
        for no in [
            "scp a b",
            "scpx -t a",
            "scp",
            "",
            "echo scp -t a",
            "scp-t a",
        ] {
            assert!(!runs(no), "{no}");
        }
        assert!(!runs_scp(&ProcessRequest::Shell));
        assert!(!runs_scp(&ProcessRequest::Subsystem("scp -t".into())));
    }
}
