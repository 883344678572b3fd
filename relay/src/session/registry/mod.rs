//! The registry of live sessions: who is where, what moved, and how to end it.

pub(crate) mod console;
pub(crate) mod destination;
pub(crate) mod drain;
pub(crate) mod heartbeat;
pub(crate) mod life;
pub(crate) mod publish;
#[cfg(test)]
mod simulation;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock};

use holdfast_protocol::ids::{Login, SessionId};
use tokio::sync::{Notify, watch};

use crate::access::decision::Authorized;
use crate::audit::{Actor, DeviceFacts};
use crate::model::role::Ability;
use crate::session::client::Client;
use crate::session::ending::Ending;
use crate::session::registry::console::ConsoleStream;
use crate::session::registry::destination::Destination;
use crate::session::registry::life::{Activity, Life};
use crate::store::SessionFacts;
use crate::sync::Mutex;

/// One live session.
#[derive(Debug)]
pub(crate) struct LiveSession {
    /// The state that its registry entries share: traffic and end.
    pub life: Arc<Life>,
    /// The authorization: user, device, account, ability and terms; when it ends by the clock is [`Life::cutoffs`]'s.
    pub authorized: Authorized,
    /// The device, as the audit log knows it.
    pub device: DeviceFacts,
    /// The beginning of the command, if it is one: from outside, so escape it.
    pub command: Option<String>,
    /// True if it has a terminal.
    pub terminal: bool,
    /// The destination, if it is a forward.
    pub destination: Option<Destination>,
    /// The other logins with the user id of its account, once the device has reported them.
    names: OnceLock<Vec<Login>>,
    /// The registry's [`Live::unjudged`].
    unjudged: Arc<AtomicBool>,
}

/// The facts of a session that the registry does not need, but its readers do.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// The actor that the audit log knows the operator as.
    pub actor: Actor,
    /// The device, as the audit log knows it.
    pub device: DeviceFacts,
    /// The beginning of the command, if it is one.
    pub command: Option<String>,
    /// True if it has a terminal.
    pub terminal: bool,
    /// The destination, if it is a forward.
    pub destination: Option<Destination>,
    /// The kind of activity that counts.
    pub activity: Activity,
}

/// All live sessions of this relay.
#[derive(Debug, Default)]
pub(crate) struct Live {
    sessions: Mutex<HashMap<SessionId, Arc<LiveSession>>>,
    consoles: Mutex<HashMap<SessionId, Arc<ConsoleStream>>>,
    count: watch::Sender<usize>,
    changed: Notify,
    /// True if names of an account have come that no change of access was judged by yet.
    unjudged: Arc<AtomicBool>,
}

/// A session's place in the registry, for as long as it lives.
#[derive(Debug)]
pub(crate) struct LiveGuard {
    registry: Arc<Live>,
    session: Arc<LiveSession>,
    ended: watch::Receiver<Option<Ending>>,
}

impl Live {
    /// Enters a session in the registry. From here on it can be ended: only what was decided on facts that
    /// are read after this, or that did not change, may start.
    #[must_use]
    pub(crate) fn enter(
        self: &Arc<Self>,
        id: SessionId,
        authorized: Authorized,
        about: About,
        client: &Client,
    ) -> LiveGuard {
        let About {
            actor,
            device,
            command,
            terminal,
            destination,
            activity,
        } = about;
        let cutoffs = authorized.terms().cutoffs.clone();
        let (life, ended) = Life::new(id, actor, client, activity, cutoffs);
        let session = Arc::new(LiveSession {
            life: Arc::new(life),
            authorized,
            device,
            command,
            terminal,
            destination,
            names: OnceLock::new(),
            unjudged: self.unjudged.clone(),
        });
        let mut sessions = self.lock();
        sessions.insert(id, session.clone());
        self.count.send_replace(sessions.len());
        drop(sessions);
        self.changed.notify_one();
        LiveGuard {
            registry: self.clone(),
            session,
            ended,
        }
    }

    /// Returns whether sessions have to be judged anew, because other names of their accounts have come. The answer is
    /// given once.
    pub(crate) fn take_unjudged(&self) -> bool {
        self.unjudged.swap(false, Ordering::AcqRel)
    }

    /// Notes that sessions could not be judged by the names of their accounts yet.
    pub(crate) fn set_unjudged(&self) {
        self.unjudged.store(true, Ordering::Release);
    }

    /// Returns every live session.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<Arc<LiveSession>> {
        self.lock().values().cloned().collect()
    }

    /// Returns every console command that streams.
    #[must_use]
    pub(crate) fn consoles(&self) -> Vec<Arc<ConsoleStream>> {
        self.lock_consoles().values().cloned().collect()
    }

    pub(crate) fn add_console(&self, stream: Arc<ConsoleStream>) {
        self.lock_consoles().insert(stream.id, stream);
        self.changed.notify_one();
    }

    pub(crate) fn remove_console(&self, id: SessionId) {
        self.lock_consoles().remove(&id);
        self.changed.notify_one();
    }

    /// Ends every console command that `which` picks, and gives what lives of them.
    pub(crate) fn end_consoles_where(
        &self,
        which: impl Fn(&ConsoleStream) -> bool,
        ending: &Ending,
    ) -> Vec<Arc<Life>> {
        let mut found = Vec::new();
        for stream in self.consoles() {
            if which(&stream) {
                stream.end(ending.clone());
                found.push(stream.life.clone());
            }
        }
        found
    }

    /// Ends every session that `which` picks, and gives them.
    pub(crate) fn end_where(
        &self,
        which: impl Fn(&LiveSession) -> bool,
        ending: &Ending,
    ) -> Vec<Arc<LiveSession>> {
        let all = self.all();
        let found: Vec<_> = all.into_iter().filter(|session| which(session)).collect();
        for session in &found {
            session.end(ending.clone());
        }
        found
    }

    /// Returns how many sessions live.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until no session lives.
    pub(crate) async fn wait_empty(&self) {
        // The sender lives in `self`, so the wait ends only when the count is zero.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Waits until a session began or ended since this was called last. One at a time may wait.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock_consoles(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<ConsoleStream>>> {
        self.consoles.lock()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<LiveSession>>> {
        self.sessions.lock()
    }
}

impl Deref for LiveSession {
    type Target = Life;

    fn deref(&self) -> &Life {
        &self.life
    }
}

impl LiveSession {
    /// Returns what is known of it from its beginning on.
    #[must_use]
    pub(crate) fn facts(&self) -> SessionFacts {
        let authorized = &self.authorized;
        SessionFacts {
            id: self.id,
            user: authorized.user().name.clone(),
            user_id: Some(authorized.user().id),
            device: authorized.device().id,
            device_name: authorized.device().name.clone(),
            login: authorized.login().clone(),
            kind: authorized.ability(),
            command: self.command.clone(),
            client: self.client,
            started: self.started,
            terminal: self.terminal,
        }
    }

    /// Returns whether it may go on as it was begun, by what is allowed now.
    #[must_use]
    pub(crate) fn may_go_on(&self, now: &Authorized) -> bool {
        // The device restricts a session to its terms at the start.
        let is_held = self.authorized.ability() == Ability::Sftp;
        let same_terms = !is_held || self.authorized.terms().sftp == now.terms().sftp;
        same_terms && !self.is_denied_by_name(now) && self.may_still_lead(now)
    }

    /// Notes the other logins with the user id of its account, as the device reports them. What changed since the
    /// session was authorized is judged by them soon.
    pub(crate) fn set_names(&self, names: Vec<Login>) {
        if !names.is_empty() && self.names.set(names).is_ok() {
            self.unjudged.store(true, Ordering::Release);
        }
    }

    /// Returns its login and all other names of the same account.
    pub(crate) fn logins(&self) -> impl Iterator<Item = &Login> {
        let others = self.names.get().into_iter().flatten();
        std::iter::once(self.authorized.login()).chain(others)
    }

    /// Returns whether the roles deny the account by another name now. A device that gets the denied logins with a
    /// session refuses it.
    fn is_denied_by_name(&self, now: &Authorized) -> bool {
        self.names.get().is_some_and(|names| {
            let denied = now.denied_logins();
            names.iter().any(|name| denied.contains(name))
        })
    }
}

impl LiveGuard {
    /// Returns the session.
    #[must_use]
    pub(crate) fn session(&self) -> &Arc<LiveSession> {
        &self.session
    }

    /// Resolves when the session is to end, with the reason.
    pub(crate) async fn ordered_to_end(&mut self) -> Ending {
        let ended = self.ended.wait_for(Option::is_some).await;
        match ended.map(|ending| ending.clone()) {
            Ok(Some(ending)) => ending,
            // The sender lives as long as the guard.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Notes that nothing moves between operator and device from now on.
    pub(crate) fn mark_drained(&self) {
        self.session.life.mark_drained();
    }
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.mark_drained();
        let mut sessions = self.registry.lock();
        sessions.remove(&self.session.id);
        self.registry.count.send_replace(sessions.len());
        drop(sessions);
        self.registry.changed.notify_one();
    }
}
