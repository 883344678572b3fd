//! The channels of one connection: what comes on each goes to what runs there, and a request starts it.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_protocol::wire::Work;
use russh::ChannelId;
use russh::server::Session;
use tracing::{debug, info};

use super::channel::{ChannelState, Opened, Waiting};
use super::connection::Connection;
use super::console;
use super::handler::HandlerError;
use super::outlet::Outlet;
use super::queue::{Input, InputSender, PushError};
use super::target::Target;
use crate::limits::{MAX_CHANNELS, SSH_WINDOW};
use crate::serve::Relay;
use crate::session::admission::Ask;

/// The channels of one connection.
#[derive(Debug, Default)]
pub struct Channels(HashMap<ChannelId, ChannelState>);

impl Channels {
    /// How many there are besides a new one; an error, a sentence, if there are too many for any user.
    ///
    /// # Errors
    /// Why there is no room.
    pub fn count(&mut self) -> Result<u32, String> {
        self.0.retain(|_, channel| !channel.is_over());
        match u32::try_from(self.0.len()) {
            Ok(count) if self.0.len() < MAX_CHANNELS => Ok(count),
            _ => Err(format!(
                "too many channels on one connection (max {MAX_CHANNELS})"
            )),
        }
    }

    /// A channel is asked for: a session's, or one that is served at once.
    pub fn insert(&mut self, id: ChannelId, sender: InputSender, waiting: Option<Waiting>) {
        let state = ChannelState {
            sender,
            waiting,
            ended: false,
        };
        self.0.insert(id, state);
    }

    /// Its client has closed a channel. With its sender the queue ends, and what runs there sees it.
    pub fn close(&mut self, id: ChannelId) {
        self.0.remove(&id);
    }

    /// A channel on which nothing was started yet.
    pub fn waiting(&mut self, id: ChannelId) -> Option<&mut Waiting> {
        self.0.get_mut(&id)?.waiting.as_mut()
    }

    /// Up to how much window a channel's client may have now.
    #[must_use]
    pub fn window(&self, id: ChannelId) -> u32 {
        let state = self.0.get(&id);
        state.map_or(SSH_WINDOW, |state| state.sender.window())
    }

    /// Hands input on; when the session has ended or stalled, the channel is closed.
    ///
    /// # Errors
    /// russh's.
    pub async fn hand_on(
        &mut self,
        id: ChannelId,
        input: Input,
        session: &mut Session,
    ) -> Result<(), HandlerError> {
        let Some(sender) = self.sender(id, &input) else {
            return Ok(());
        };
        match sender.push(input).await {
            // The session says its last words and closes the channel by itself.
            Ok(()) | Err(PushError::Ended) => {}
            Err(stalled @ PushError::Stalled) => {
                info!("channel closed: {stalled}");
                let text = format!("[holdfast] closed: {stalled}\r\n");
                session.extended_data(id, 1, text.into_bytes())?;
                session.close(id)?;
                self.close(id);
            }
        }
        Ok(())
    }

    /// Starts `work` on a channel, or says why not.
    ///
    /// # Errors
    /// russh's.
    pub fn start(
        &mut self,
        relay: &Arc<Relay>,
        connection: &Arc<Connection>,
        id: ChannelId,
        work: Work,
        session: &mut Session,
    ) -> Result<(), HandlerError> {
        let Some((principal, _)) = connection.principal().cloned() else {
            return Ok(());
        };
        let Some((work, original_command)) = principal.proof.grant().enforce(work) else {
            session.channel_failure(id)?;
            return Ok(());
        };
        let waiting = self.0.get_mut(&id).and_then(|state| state.waiting.take());
        let Some(waiting) = waiting else {
            // Something runs on this channel already: one request for it is allowed (RFC 4254, 6.5).
            session.channel_failure(id)?;
            return Ok(());
        };
        session.channel_success(id)?;
        let outlet = Outlet::new(waiting.write, session.handle());
        let (relay, busy) = (relay.clone(), connection.busy());
        match (waiting.opening.take(), waiting.target) {
            (Some(Opened::Device(way)), Target::Device(login, _)) => {
                let ask = Ask {
                    connection: connection.clone(),
                    way: *way,
                    login,
                    work,
                    original_command,
                    pty: waiting.pty,
                    env: waiting.env,
                    input: waiting.input,
                    outlet,
                };
                tokio::spawn(async move {
                    relay.start(ask).await;
                    drop(busy);
                });
            }
            (Some(Opened::Console), _) => {
                let (terminal, input) = (waiting.pty.is_some(), waiting.input);
                let connection = connection.clone();
                tokio::spawn(async move {
                    console::run(relay, &connection, principal, work, input, outlet, terminal)
                        .await;
                    drop(busy);
                });
            }
            // A channel is confirmed only after its opening is set.
            _ => debug!("a request on a channel that leads nowhere"),
        }
        Ok(())
    }

    fn sender(&mut self, id: ChannelId, input: &Input) -> Option<InputSender> {
        let state = self.0.get_mut(&id)?;
        // After its EOF a client has no more to say on a channel (RFC 4254 section 5.3); data of one that
        // says it all the same is dropped.
        if state.ended && matches!(input, Input::Data(_) | Input::Eof) {
            return None;
        }
        if matches!(input, Input::Eof) {
            state.ended = true;
        }
        Some(state.sender.clone())
    }
}
