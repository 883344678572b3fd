//! The requests on a session's channel, before it starts anything.

use holdfast_protocol::limits::{MAX_COMMAND, MAX_SUBSYSTEM};
use holdfast_protocol::wire::WindowSize;
use russh::ChannelId;
use russh::server::Session;

use super::Handler;
use crate::model::request::ProcessRequest;
use crate::ssh::channels::HandlerError;
use crate::ssh::channels::channel::RequestRefusal;

impl Handler {
    /// Takes a terminal for what is started on the channel.
    ///
    /// # Errors
    /// russh's.
    pub(super) fn set_pty(
        &mut self,
        channel: ChannelId,
        term: &str,
        size: WindowSize,
        modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), HandlerError> {
        let permitted = self
            .connection
            .principal()
            .is_some_and(|(principal, _)| principal.proof.grant().pty);
        let set = match self.channels.waiting(channel) {
            None => Err(RequestRefusal::Started),
            Some(_) if !permitted => Err(RequestRefusal::NoTerminalPermitted),
            Some(waiting) => waiting.set_pty(term, size, modes),
        };
        match set {
            Ok(()) => session.channel_success(channel)?,
            Err(refusal) => {
                self.channels.say(channel, &refusal.to_string(), session)?;
                session.channel_failure(channel)?;
            }
        }
        Ok(())
    }

    /// Takes a variable of the environment for it.
    ///
    /// # Errors
    /// russh's.
    pub(super) async fn set_env(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), HandlerError> {
        let waiting = self.channels.waiting(channel);
        let set = waiting.map(|waiting| waiting.set_env(name, value));
        if let Some(Ok(())) = set {
            session.channel_success(channel)?;
            return Ok(());
        }
        if let Some(Err(refusal)) = set {
            self.channels.say(channel, &refusal.to_string(), session)?;
        }
        self.front
            .sessions
            .report
            .env_rejected(&self.connection.client, name)
            .await;
        session.channel_failure(channel)?;
        Ok(())
    }

    /// Starts a command.
    ///
    /// # Errors
    /// russh's.
    pub(super) fn exec(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), HandlerError> {
        if command.len() > MAX_COMMAND {
            let length = command.len();
            let sentence = format!("the command has {length} bytes; the maximum is {MAX_COMMAND}");
            self.channels.say(channel, &sentence, session)?;
            session.channel_failure(channel)?;
            return Ok(());
        }
        self.start(channel, ProcessRequest::Exec(command.to_vec()), session)
    }

    /// Starts a subsystem.
    ///
    /// # Errors
    /// russh's.
    pub(super) fn subsystem(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), HandlerError> {
        if name.len() > MAX_SUBSYSTEM {
            let length = name.len();
            let sentence =
                format!("the subsystem's name has {length} bytes; the maximum is {MAX_SUBSYSTEM}");
            self.channels.say(channel, &sentence, session)?;
            session.channel_failure(channel)?;
            return Ok(());
        }
        self.start(channel, ProcessRequest::Subsystem(name.to_owned()), session)
    }
}
