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
use super::queue::{self, Budget, Input, InputReceiver, InputSender, PushError};
use super::target::Target;
use crate::limits::{MAX_CHANNELS, MAX_FORWARDS, SSH_WINDOW};
use crate::serve::Relay;
use crate::session::sink::Sink;
use crate::session::start::Ask;

/// The channels of one connection.
#[derive(Debug, Default)]
pub struct Channels {
    all: HashMap<ChannelId, ChannelState>,
    budget: Budget,
}

/// What a channel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A session, or a jump.
    Session,
    /// A forward through a device: many, and each small.
    Forward,
}

impl Channels {
    /// How many there are besides a new one; an error, a sentence, if there are too many for any user.
    ///
    /// # Errors
    /// Why there is no room.
    pub fn count(&mut self, purpose: Purpose) -> Result<u32, String> {
        self.all.retain(|_, channel| !channel.is_over());
        let forwards = self.all.values().filter(|channel| channel.forward).count();
        let (of_kind, most, what) = match purpose {
            Purpose::Session => (self.all.len() - forwards, MAX_CHANNELS, "channels"),
            Purpose::Forward => (forwards, MAX_FORWARDS, "forwards"),
        };
        match u32::try_from(self.all.len()) {
            Ok(count) if of_kind < most => Ok(count),
            _ => Err(format!("too many {what} on one connection (max {most})")),
        }
    }

    /// How many there are, those that are over and not closed yet included.
    #[must_use]
    pub fn present(&self) -> u32 {
        u32::try_from(self.all.len()).unwrap_or(u32::MAX)
    }

    /// A queue for a channel that is asked for.
    #[must_use]
    pub fn queue(&self) -> (InputSender, InputReceiver) {
        queue::queue(&self.budget)
    }

    /// A channel is asked for: a session's, with what it waits for, or one that is served at once.
    pub fn insert(
        &mut self,
        id: ChannelId,
        purpose: Purpose,
        sender: InputSender,
        waiting: Option<Waiting>,
    ) {
        let state = ChannelState {
            sender,
            waiting,
            ended: false,
            forward: purpose == Purpose::Forward,
        };
        self.all.insert(id, state);
    }

    /// Its client has closed a channel. With its sender the queue ends, and what runs there sees it.
    pub fn close(&mut self, id: ChannelId) {
        self.all.remove(&id);
    }

    /// A channel on which nothing was started yet.
    pub fn waiting(&mut self, id: ChannelId) -> Option<&mut Waiting> {
        self.all.get_mut(&id)?.waiting.as_mut()
    }

    /// Up to how much window a channel's client may have now.
    #[must_use]
    pub fn window(&self, id: ChannelId) -> u32 {
        let state = self.all.get(&id);
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
                let is_forward = self.all.get(&id).is_some_and(|state| state.forward);
                // A forward has no place for words.
                if !is_forward {
                    let text = format!("[holdfast] closed: {stalled}\r\n");
                    session.extended_data(id, 1, text.into_bytes())?;
                }
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
        let waiting = self.all.get_mut(&id).and_then(|state| state.waiting.take());
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
                    agent: waiting.agent,
                    input: waiting.input,
                    outlet: Sink::Channel(outlet),
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
        let state = self.all.get_mut(&id)?;
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
