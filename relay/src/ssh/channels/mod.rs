//! The channels of one connection: what comes on each goes to what runs there, and a request starts it.

pub(crate) mod channel;
pub(crate) mod opener;
pub(crate) mod outlet;
pub(crate) mod tally;

use std::collections::HashMap;

use russh::ChannelId;
use russh::server::Session;
use thiserror::Error;
use tracing::info;

use crate::session::input::{
    self as queue, Input, InputBudget, InputReceiver, InputSender, PushError, QueueLevel, allowance,
};
use crate::session::limits::TRICKLE_WINDOW;
use crate::session::output::notice;
use crate::session::refusal::Refusal;
use crate::ssh::channels::channel::{ChannelState, Waiting};
use crate::ssh::channels::tally::WindowShare;
use crate::ssh::limits::{MAX_CHANNEL_SENTENCES, MAX_SHOWN_SENTENCE};

/// RFC 4254 section 5.2: `SSH_EXTENDED_DATA_STDERR`.
pub(crate) const STDERR: u32 = 1;

/// Ends a connection.
#[derive(Debug, Error)]
pub(crate) enum HandlerError {
    /// russh's own reason.
    #[error(transparent)]
    Ssh(#[from] russh::Error),
}

/// The channels of one connection.
#[derive(Debug)]
pub(crate) struct Channels {
    all: HashMap<ChannelId, ChannelState>,
    share: WindowShare,
    budget: InputBudget,
    /// The reason why requests of the connection were refused: their answers have no place for words, so the next
    /// session says it.
    unsaid: Vec<String>,
}

/// The purpose of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A session, or a jump.
    Session,
    /// A forward through a device: many, and each small.
    Forward,
}

impl Channels {
    /// Creates an empty table, of a connection with this share of its client's tally.
    #[must_use]
    pub(crate) fn new(share: WindowShare, budget: InputBudget) -> Self {
        Self {
            all: HashMap::new(),
            share,
            budget,
            unsaid: Vec::new(),
        }
    }

    /// Takes a place for a new one, and gives how many its client has besides; an error, a sentence, if there are too
    /// many for any user.
    ///
    /// # Errors
    /// A sentence why there is no room.
    pub(crate) fn count(&mut self, purpose: Purpose) -> Result<u32, Refusal> {
        self.all.retain(|_, channel| !channel.is_over());
        self.note();
        self.share.take(purpose)
    }

    /// Returns the number of channels that the client has, those that are over and not closed yet included.
    #[must_use]
    pub(crate) fn present(&self) -> u32 {
        self.share.others()
    }

    /// Notes in the client's tally how many there are.
    fn note(&mut self) {
        let forwards = self.all.values().filter(|channel| channel.forward).count();
        self.share.set(self.all.len() - forwards, forwards);
    }

    /// Returns a queue for a channel that is asked for.
    #[must_use]
    pub(crate) fn queue(&self) -> (InputSender, InputReceiver) {
        queue::queue(&self.budget)
    }

    /// Inserts a channel that is asked for: a session's, with what it waits for, or one that is served at once.
    pub(crate) fn insert(
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
        self.note();
    }

    /// Removes a channel that its client has closed. With its sender the queue ends, and what runs there sees it.
    pub(crate) fn close(&mut self, id: ChannelId) {
        self.all.remove(&id);
        self.note();
    }

    /// Returns a channel on which nothing was started yet.
    pub(crate) fn waiting(&mut self, id: ChannelId) -> Option<&mut Waiting> {
        self.all.get_mut(&id)?.waiting.as_mut()
    }

    /// Takes what a channel waits with, to start something there; `None` if something runs there already.
    pub(crate) fn take_waiting(&mut self, id: ChannelId) -> Option<Waiting> {
        self.all.get_mut(&id)?.waiting.take()
    }

    /// Takes the sentences that wait for the next session.
    pub(crate) fn take_unsaid(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unsaid)
    }

    /// Returns how much window a channel's client may have now at most, and the other channel of its connection that
    /// needs some next.
    #[must_use]
    pub(crate) fn window(&self, id: ChannelId) -> u32 {
        let level = |state: &ChannelState| state.sender.level();
        let own = self.all.get(&id).map_or(QueueLevel::Low, level);
        let others = self.all.iter().filter(|(other, _)| **other != id);
        let others = others.map(|(_, state)| level(state)).max();
        allowance(own, others.unwrap_or(QueueLevel::Low))
    }

    /// Hands input on; when the session has ended or stalled, the channel is closed.
    ///
    /// # Errors
    /// russh's.
    pub(crate) async fn hand_on(
        &mut self,
        id: ChannelId,
        input: Input,
        session: &mut Session,
    ) -> Result<(), HandlerError> {
        let Some(sender) = self.sender(id, &input) else {
            return Ok(());
        };
        // As with sshd: there is no process yet that a signal could be for.
        let is_early = self.waiting(id).is_some();
        if is_early && matches!(input, Input::Signal(_) | Input::StdoutClosed) {
            return Ok(());
        }
        let is_data = matches!(input, Input::Data(_));
        match sender.push(input).await {
            Ok(()) if is_data => self.pace(id, &sender, session).await?,
            // The session sends its final status and closes the channel by itself.
            Ok(()) | Err(PushError::Ended) => {}
            Err(stalled @ PushError::Stalled) => self.give_up(id, stalled, session)?,
        }
        Ok(())
    }

    /// Waits at the pace of a trickle: for its own queue, or a neighbour's that is full. One that has been so for a
    /// minute is given up, so that its neighbours get their windows again.
    async fn pace(
        &mut self,
        id: ChannelId,
        sender: &InputSender,
        session: &mut Session,
    ) -> Result<(), HandlerError> {
        if session.sender_window_size(id) > TRICKLE_WINDOW as usize {
            return Ok(());
        }
        if sender.level() >= QueueLevel::Loaded {
            sender.pause().await;
            return Ok(());
        }
        let others = self.all.iter().filter(|(other, _)| **other != id);
        let full = others.filter(|(_, state)| state.sender.level() == QueueLevel::Full);
        let Some((other, state)) = full.max_by_key(|(_, state)| state.sender.is_stalled()) else {
            return Ok(());
        };
        let (other, sender) = (*other, state.sender.clone());
        if sender.is_stalled() {
            return self.give_up(other, PushError::Stalled, session);
        }
        sender.pause().await;
        Ok(())
    }

    fn give_up(
        &mut self,
        id: ChannelId,
        stalled: PushError,
        session: &mut Session,
    ) -> Result<(), HandlerError> {
        info!("channel closed: {stalled}");
        let is_forward = self.all.get(&id).is_some_and(|state| state.forward);
        // A forward has no place for words.
        if !is_forward {
            session.extended_data(
                id,
                STDERR,
                notice(&format!("closed: {stalled}"), "\r\n").into_bytes(),
            )?;
        }
        session.close(id)?;
        self.close(id);
        Ok(())
    }

    /// Writes a sentence to the stderr of a channel on which nothing runs yet: OpenSSH at `LogLevel ERROR` shows
    /// nothing else of a refusal.
    ///
    /// # Errors
    /// russh's.
    pub(crate) fn say(
        &mut self,
        id: ChannelId,
        sentence: &str,
        session: &mut Session,
    ) -> Result<(), HandlerError> {
        if self.waiting(id).is_some_and(Waiting::may_say) {
            session.extended_data(id, STDERR, notice(sentence, "\r\n").into_bytes())?;
        }
        Ok(())
    }

    /// Keeps a sentence about the connection for its next session.
    pub(crate) fn say_later(&mut self, sentence: &str) {
        if self.unsaid.len() < MAX_CHANNEL_SENTENCES {
            self.unsaid
                .push(sentence.chars().take(MAX_SHOWN_SENTENCE).collect());
        }
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
