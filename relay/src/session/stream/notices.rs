//! Notices for the operator of a session that ends, or does not begin: lines of our own, never in the data of a
//! command.

use holdfast_protocol::ids::DeviceName;
use tokio::time::timeout;

use crate::limits::FINAL_STATUS_TIMEOUT;
use crate::session::ending::{End, Ending};
use crate::session::output::{Gone, Output, notice};
use crate::session::refusal::Refusal;

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
