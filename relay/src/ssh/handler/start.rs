//! The start of what a channel was opened for.

use std::sync::Arc;

use russh::ChannelId;
use russh::server::Session;
use tracing::debug;

use super::Handler;
use crate::model::request::ProcessRequest;
use crate::session::admission::Opened;
use crate::session::client::target::SshTarget;
use crate::session::output::notice;
use crate::session::process::start::ProcessAsk;
use crate::ssh::channels::outlet::Outlet;
use crate::ssh::channels::{HandlerError, STDERR};
use crate::ssh::console::ConsoleCall;

impl Handler {
    /// Starts `work` on a channel, or says why not.
    ///
    /// # Errors
    /// russh's.
    pub(super) fn start(
        &mut self,
        id: ChannelId,
        work: ProcessRequest,
        session: &mut Session,
    ) -> Result<(), HandlerError> {
        let Some((principal, _)) = self.connection.principal().cloned() else {
            return Ok(());
        };
        let Some((work, original_command)) = principal.proof.grant().enforce(work) else {
            let sentence = "your certificate forces a command, and the one asked for is too long to be handed to it";
            self.channels.say(id, sentence, session)?;
            session.channel_failure(id)?;
            return Ok(());
        };
        let Some(waiting) = self.channels.take_waiting(id) else {
            // Something runs on this channel already: one request for it is allowed (RFC 4254, 6.5).
            session.channel_failure(id)?;
            return Ok(());
        };
        session.channel_success(id)?;
        for sentence in self.channels.take_unsaid() {
            session.extended_data(id, STDERR, notice(&sentence, "\r\n").into_bytes())?;
        }
        let outlet = Outlet::new(waiting.write, session.handle());
        let (front, connection) = (self.front.clone(), self.connection.clone());
        let busy = connection.client.busy();
        match (waiting.opening.take(), waiting.target) {
            (Some(Opened::Device(way)), SshTarget::Device(login, _)) => {
                let ask = ProcessAsk {
                    client: connection.client.clone(),
                    way: *way,
                    login,
                    work,
                    original_command,
                    pty: waiting.pty,
                    env: waiting.env,
                    agent: waiting.agent,
                    entered: None,
                    input: waiting.input,
                    outlet: Arc::new(outlet),
                };
                tokio::spawn(async move {
                    front.sessions.start(ask).await;
                    drop(busy);
                });
            }
            (Some(Opened::Console), _) => {
                let call = ConsoleCall {
                    connection,
                    principal,
                    work,
                    input: waiting.input,
                    outlet,
                    terminal: waiting.pty.map(|pty| pty.size),
                };
                let run = front.console.run(front.clone(), call);
                tokio::spawn(async move {
                    run.await;
                    drop(busy);
                });
            }
            // A channel is confirmed only after its opening is set.
            _ => debug!("a request on a channel that leads nowhere"),
        }
        Ok(())
    }
}
