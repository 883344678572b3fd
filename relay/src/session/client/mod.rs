//! An operator's client, whichever front end it came by. Sessions, forwards and console commands belong to a client by
//! its identifier, not by an address; the front end gives it a way to be closed.

pub(crate) mod arrivals;
pub(crate) mod forwards;
pub(crate) mod lease;
pub(crate) mod target;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::access::idle::{IdleTimer, Step};
use crate::access::policy;
use crate::clock::{self, rest};
use crate::identity::Principal;
use crate::session::client::arrivals::Arrivals;
use crate::session::client::forwards::Forwards;
use crate::session::client::lease::Lease;
use crate::session::client::target::SshTarget;
use crate::session::ending::{Cause, Ending};
use crate::sync::Mutex;

/// Identifies a client for as long as this relay runs. What runs inside a client's jumps has the identifier of that
/// client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClientId(u64);

/// Closes a client's connection: what a front end provides.
pub(crate) trait CloseHandle: fmt::Debug + Send + Sync {
    /// Closes it with a sentence for the operator, and cuts it if that takes too long.
    fn close<'a>(&'a self, why: &'a str) -> BoxFuture<'a, ()>;
}

/// An operator's client. It is shared by its front end, the sessions on it, and the list of clients.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its identifier.
    pub(crate) id: ClientId,
    /// The operator's address.
    pub(crate) address: SocketAddr,
    /// The relay's address that they connected to.
    pub(crate) server: SocketAddr,
    principal: OnceLock<(Principal, SshTarget)>,
    handle: Arc<dyn CloseHandle>,
    /// Its slot of the user's quota; what runs inside a jump has none of its own.
    lease: Mutex<Option<Lease>>,
    /// The time at which it ends that has nothing to do, once that is known. A client shares it with what runs inside
    /// its jumps.
    idle: Arc<watch::Sender<Option<policy::Idle>>>,
    /// The number of sessions that run on it.
    busy: watch::Sender<usize>,
    /// True if it is over.
    over: watch::Sender<bool>,
    /// The reason why it is about to end, if it is. A client shares it with what runs inside its jumps.
    close_reason: Arc<OnceLock<Ending>>,
    /// The recording of its forwards.
    pub(crate) forwards: Forwards,
    /// Places for connections that come to its devices.
    pub(crate) arrivals: Arrivals,
}

/// Notes that something runs on a client, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Client>);

impl Client {
    /// Returns a client that has just connected.
    #[must_use]
    pub(crate) fn new(
        id: ClientId,
        address: SocketAddr,
        server: SocketAddr,
        handle: Arc<dyn CloseHandle>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            address,
            server,
            principal: OnceLock::new(),
            handle,
            lease: Mutex::default(),
            idle: Arc::default(),
            busy: watch::Sender::default(),
            over: watch::Sender::default(),
            close_reason: Arc::default(),
            forwards: Forwards::default(),
            arrivals: Arrivals::default(),
        })
    }

    /// Returns a client inside a jump of this one: it was admitted with this one, and ends with it.
    #[must_use]
    pub(crate) fn inside(&self, handle: Arc<dyn CloseHandle>) -> Arc<Self> {
        Arc::new(Self {
            id: self.id,
            address: self.address,
            server: self.server,
            principal: OnceLock::new(),
            handle,
            lease: Mutex::default(),
            idle: self.idle.clone(),
            busy: watch::Sender::default(),
            over: watch::Sender::default(),
            close_reason: self.close_reason.clone(),
            forwards: Forwards::default(),
            arrivals: self.arrivals.inside(),
        })
    }

    /// Returns who proved to be at the other end, and what they asked for by the user name of that proof.
    #[must_use]
    pub(crate) fn principal(&self) -> Option<&(Principal, SshTarget)> {
        self.principal.get()
    }

    /// Notes the proof. The first one counts: a client authenticates once.
    pub(crate) fn set_principal(&self, principal: Principal, target: SshTarget) {
        let _ = self.principal.set((principal, target));
    }

    /// Notes that it may stay: with this slot, and as long as it is not idle.
    pub(crate) fn admitted(&self, lease: Lease, idle: policy::Idle) {
        *self.lease.lock() = Some(lease);
        // What a change of access has set in the meantime is newer.
        self.idle.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(idle);
            first
        });
    }

    /// Sets when it ends if nothing runs on it.
    pub(crate) fn set_idle(&self, idle: policy::Idle) {
        let idle = Some(idle);
        self.idle.send_if_modified(|known| {
            let changed = *known != idle;
            *known = idle;
            changed
        });
    }

    /// Takes its slot, to give it back.
    #[must_use]
    pub(crate) fn take_lease(&self) -> Option<Lease> {
        let mut lease = self.lease.lock();
        lease.take()
    }

    /// Notes that something runs on it, until the value is dropped.
    #[must_use]
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.send_modify(|count| *count += 1);
        Busy(self.clone())
    }

    /// Notes that it is about to end, for this reason: nothing more begins on it. False if that was known.
    #[must_use]
    pub(crate) fn begin_close(&self, ending: Ending) -> bool {
        self.close_reason.set(ending).is_ok()
    }

    /// Returns why it is about to end, if it is.
    #[must_use]
    pub(crate) fn close_reason(&self) -> Option<&Ending> {
        self.close_reason.get()
    }

    /// Notes that it is over.
    pub(crate) fn set_over(&self) {
        self.over.send_replace(true);
    }

    /// Resolves when it is over.
    pub(crate) async fn over(&self) {
        // The sender lives in `self`.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Waits until it has gone by itself, but no longer than `within`. OpenSSH shows what its sessions said last only
    /// if it may: a disconnect throws away what it has not shown yet.
    pub(crate) async fn wait_over(&self, within: Duration) {
        let _ = timeout(within, self.over()).await;
    }

    /// Closes it with a sentence, and cuts it if that takes too long.
    pub(crate) async fn close(&self, why: &str) {
        self.handle.close(why).await;
    }

    /// Resolves when nothing has run on it for as long as its user's idle timeout.
    pub(crate) async fn idled(&self) -> Ending {
        let mut terms = self.idle.subscribe();
        let known = terms.wait_for(Option::is_some).await;
        let Some(idle) = known.ok().and_then(|idle| idle.clone()) else {
            // The sender lives in `self`.
            return std::future::pending().await;
        };
        let mut timer = IdleTimer::new(&idle);
        let began = clock::instant();
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
                // There is no session on which a warning could be shown.
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

#[cfg(test)]
impl Client {
    /// Returns a client with this address, which no front end serves.
    pub(crate) fn for_test(address: SocketAddr) -> Arc<Self> {
        #[derive(Debug)]
        struct NoFront;
        impl CloseHandle for NoFront {
            fn close<'a>(&'a self, _why: &'a str) -> BoxFuture<'a, ()> {
                Box::pin(async {})
            }
        }
        Self::new(ClientId(0), address, address, Arc::new(NoFront))
    }
}

/// The clients that are connected to this relay. What runs inside a jump is listed with the client around it.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    all: Mutex<BTreeMap<ClientId, Arc<Client>>>,
    count: watch::Sender<usize>,
    next: AtomicU64,
}

impl Clients {
    /// Returns an identifier that no other client of this run has.
    #[must_use]
    pub(crate) fn new_id(&self) -> ClientId {
        ClientId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Adds a client.
    pub(crate) fn enter(&self, client: Arc<Client>) {
        let mut all = self.lock();
        all.insert(client.id, client);
        self.count.send_replace(all.len());
    }

    /// Removes a client.
    pub(crate) fn leave(&self, id: ClientId) {
        let mut all = self.lock();
        all.remove(&id);
        self.count.send_replace(all.len());
    }

    /// Returns every client.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    /// Waits until no client is connected.
    pub(crate) async fn wait_empty(&self) {
        // The sender lives as long as we do: it cannot fail.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClientId, Arc<Client>>> {
        self.all.lock()
    }
}
