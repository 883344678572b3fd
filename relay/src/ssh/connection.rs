//! What one SSH connection is, apart from the channels on it: its ends, its principal, its slot, and how
//! it ends.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use russh::Disconnect;
use russh::server::{Handle, RunningSession};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info};

use super::channels::Channels;
use super::handler::{Handler, HandlerError};
use super::stream::Guard;
use crate::access::idle::{IdleTimer, Step};
use crate::access::policy;
use crate::identity::Principal;
use crate::limits::{DISCONNECT_GRACE, MAX_DESCRIPTION};
use crate::log_limit::{self, Line};
use crate::model::source::Source;
use crate::session::admission::lease::Lease;
use crate::session::forward::arrivals::Arrivals;
use crate::session::forward::log::Forwards;
use crate::session::input::Budget;
use crate::session::process::timeouts::rest;
use crate::session::registry::{Cause, Ending, change};
use crate::session::target::Target;
use crate::ssh::channels::tally::Tally;

/// An SSH connection. It is shared by its handler, the sessions on it, and the list of connections.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The operator's address.
    pub client: SocketAddr,
    /// The relay's address that they connected to.
    pub server: SocketAddr,
    /// Cuts the TCP connection.
    pub guard: Guard,
    principal: OnceLock<(Principal, Target)>,
    handle: OnceLock<Handle>,
    /// Its slot of the user's quota; what runs inside a jump has none of its own.
    lease: Mutex<Option<Lease>>,
    /// When it ends that has nothing to do, once that is known. A connection shares it with what runs inside its
    /// jumps.
    idle: Arc<watch::Sender<Option<policy::Idle>>>,
    /// How much runs on it.
    busy: watch::Sender<usize>,
    /// Whether it is over.
    over: watch::Sender<bool>,
    /// Why it is about to end, if it is. A connection shares it with what runs inside its jumps.
    close_reason: Arc<OnceLock<Ending>>,
    /// What its forwards are recorded in.
    pub forwards: Forwards,
    /// Places for connections that come to its devices.
    pub arrivals: Arrivals,
    /// How many channels its client has. A connection shares it with what runs inside its jumps.
    pub tally: Tally,
    /// What the channels inside its jumps may hold together. Its own have another budget: what waits in a jump's channel
    /// becomes what waits inside, and must not wait for itself.
    pub inner_budget: Budget,
    is_inner: bool,
}

/// Something runs on a connection, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Connection>);

impl Connection {
    /// A connection that was just accepted.
    #[must_use]
    pub(crate) fn new(client: SocketAddr, server: SocketAddr, guard: Guard) -> Arc<Self> {
        Arc::new(Self {
            client,
            server,
            guard,
            principal: OnceLock::new(),
            handle: OnceLock::new(),
            lease: Mutex::default(),
            idle: Arc::default(),
            busy: watch::Sender::default(),
            over: watch::Sender::default(),
            close_reason: Arc::default(),
            forwards: Forwards::default(),
            arrivals: Arrivals::default(),
            tally: Tally::default(),
            inner_budget: Budget::default(),
            is_inner: false,
        })
    }

    /// A connection inside a channel of another one: it was admitted with that one, and ends with it.
    #[must_use]
    pub(crate) fn inside(outer: &Self, guard: Guard) -> Arc<Self> {
        Arc::new(Self {
            client: outer.client,
            server: outer.server,
            guard,
            principal: OnceLock::new(),
            handle: OnceLock::new(),
            lease: Mutex::default(),
            idle: outer.idle.clone(),
            busy: watch::Sender::default(),
            over: watch::Sender::default(),
            close_reason: outer.close_reason.clone(),
            forwards: Forwards::default(),
            arrivals: outer.arrivals.inside(),
            tally: outer.tally.clone(),
            inner_budget: outer.inner_budget.clone(),
            is_inner: true,
        })
    }

    /// Who proved to be at the other end, and what they asked for by the user name of that proof.
    #[must_use]
    pub(crate) fn principal(&self) -> Option<&(Principal, Target)> {
        self.principal.get()
    }

    /// Notes the proof. The first stands: SSH authenticates a connection once.
    pub(crate) fn set_principal(&self, principal: Principal, target: Target) {
        let _ = self.principal.set((principal, target));
        self.guard.set_authenticated();
    }

    /// Its channels, of which there are none yet.
    #[must_use]
    pub(crate) fn channels(&self) -> Channels {
        let budget = match self.is_inner {
            true => self.inner_budget.clone(),
            false => Budget::default(),
        };
        Channels::new(self.tally.share(self.is_inner), budget)
    }

    /// Notes how to speak to russh.
    pub(crate) fn set_handle(&self, handle: Handle) {
        let _ = self.handle.set(handle);
    }

    /// It may stand: with this slot, and as long as it is not idle.
    pub(crate) fn admitted(&self, lease: Lease, idle: policy::Idle) {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease);
        // What a change of access has told it in the meantime is newer.
        self.idle.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(idle);
            first
        });
    }

    /// It ends so from now on, if nothing runs on it.
    pub(crate) fn set_idle(&self, idle: policy::Idle) {
        change(&self.idle, Some(idle));
    }

    /// Takes its slot, to give it back.
    #[must_use]
    pub(crate) fn take_lease(&self) -> Option<Lease> {
        let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        lease.take()
    }

    /// Notes that something runs on it, until the value is dropped.
    #[must_use]
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.send_modify(|count| *count += 1);
        Busy(self.clone())
    }

    /// It is about to end, for this reason: nothing more begins on it. False if that was known.
    #[must_use]
    pub(crate) fn begin_close(&self, ending: Ending) -> bool {
        self.close_reason.set(ending).is_ok()
    }

    /// Why it is about to end, if it is.
    #[must_use]
    pub(crate) fn close_reason(&self) -> Option<&Ending> {
        self.close_reason.get()
    }

    /// Resolves when it is over.
    pub(crate) async fn over(&self) {
        // The sender lives in `self`.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Waits until its client has gone by itself, but no longer than `within`. OpenSSH's shows what its
    /// sessions said last only if it may: a disconnect throws away what it has not shown yet.
    pub(crate) async fn wait_over(&self, within: Duration) {
        let mut over = self.over.subscribe();
        let _ = timeout(within, over.wait_for(|over| *over)).await;
    }

    /// Ends the connection with a sentence, and cuts it if that takes too long.
    pub(crate) async fn end(&self, why: &str) {
        if let Some(handle) = self.handle.get() {
            let mut text = why.to_owned();
            text.truncate(text.floor_char_boundary(MAX_DESCRIPTION));
            let said = handle.disconnect(Disconnect::ByApplication, text, String::new());
            let _ = timeout(DISCONNECT_GRACE, said).await;
            sleep(DISCONNECT_GRACE).await;
        }
        self.guard.cut();
    }

    /// Resolves when nothing has run on it for as long as its user's idle timeout.
    async fn idled(&self) -> Ending {
        let mut terms = self.idle.subscribe();
        let known = terms.wait_for(Option::is_some).await;
        let Some(idle) = known.ok().and_then(|idle| idle.clone()) else {
            // The sender lives in `self`.
            return std::future::pending().await;
        };
        let mut timer = IdleTimer::new(&idle);
        let began = Instant::now();
        let mut busy = self.busy.subscribe();
        loop {
            let is_busy = *busy.borrow_and_update() > 0;
            let now = began.elapsed();
            if is_busy {
                timer.activity(now);
            }
            let until = match timer.poll(now) {
                _ if is_busy => None,
                Step::Never => None,
                Step::Wait(until) => Some(until.saturating_sub(now)),
                // Nobody is there to be warned.
                Step::Warn => continue,
                Step::Close => {
                    let (cause, why) = (Cause::Idle, timer.reason());
                    return Ending { cause, why };
                }
            };
            tokio::select! {
                () = rest(until) => {}
                Ok(()) = busy.changed() => timer.activity(began.elapsed()),
                Ok(()) = terms.changed() => {
                    if let Some(idle) = &*terms.borrow_and_update() {
                        timer.change(idle, began.elapsed());
                    }
                }
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0
            .busy
            .send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Serves a connection whose handshake has begun to its end: with a deadline for the login, and an end for
/// one that has nothing to do.
pub(crate) async fn supervise(
    connection: &Connection,
    mut session: RunningSession<Handler>,
    login_deadline: Instant,
    login_grace: Duration,
) -> Option<Ending> {
    connection.set_handle(session.handle());
    let mut ending = None;
    let ended = tokio::select! {
        ended = &mut session => Some(ended),
        () = late(connection, login_deadline) => {
            let client = connection.client;
            if let Some(left_out) = log_limit::admits(Line::NoLogin, Source::of(client.ip())) {
                info!(%client, left_out, "no login within {} s", login_grace.as_secs());
            }
            connection.guard.cut();
            None
        }
        idle = connection.idled() => {
            if connection.begin_close(idle.clone()) {
                connection.end(&idle.why).await;
                ending = Some(idle);
            }
            None
        }
    };
    let ended: Result<(), HandlerError> = match ended {
        Some(ended) => ended,
        None => session.await,
    };
    connection.over.send_replace(true);
    if let Err(error) = ended {
        debug!(client = %connection.client, %error, "SSH connection ended with an error");
    }
    ending
}

/// Resolves at the deadline, if nobody has logged in by then.
async fn late(connection: &Connection, deadline: Instant) {
    sleep_until(deadline).await;
    if connection.guard.is_authenticated() {
        std::future::pending::<()>().await;
    }
}
