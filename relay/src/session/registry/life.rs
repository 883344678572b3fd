//! The life of anything on the live-session registry, be it a session, a forward or a console command that streams: its
//! owner, what moved, when it ends by the clock, and how it is ended.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use holdfast_protocol::ids::SessionId;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::access::policy::Cutoffs;
use crate::audit::Actor;
use crate::clock::{self, Timestamp};
use crate::session::client::{Client, ClientId};
use crate::session::ending::Ending;
use crate::store::Traffic;

/// The life of one of them.
#[derive(Debug)]
pub(crate) struct Life {
    /// Its identifier.
    pub id: SessionId,
    /// The actor that the audit log knows the operator as.
    pub actor: Actor,
    /// The operator's client.
    pub(crate) owner: ClientId,
    /// The operator's address.
    pub client: SocketAddr,
    /// The time of its start.
    pub started: Timestamp,
    /// The kind of activity that counts.
    pub activity: Activity,
    began: Instant,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// The last activity, in microseconds since `began`.
    active: AtomicU64,
    /// True if it is at work by itself, so that it is not idle whatever moves.
    works: AtomicBool,
    /// The time at which it ends by the clock, as the roles say now.
    cutoffs: watch::Sender<Cutoffs>,
    end: watch::Sender<Option<Ending>>,
    /// True if nothing moves any more.
    apart: watch::Sender<bool>,
}

/// The kind of activity that counts for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    /// The data that its client sends: at a terminal a person types, or is gone.
    Input,
    /// Bytes either way: without a terminal, what the client takes is what it asked for.
    Bytes,
    /// It is a command that ends by itself: as long as it runs, it is not idle.
    Running,
}

impl Life {
    /// Returns one that begins now.
    #[must_use]
    pub(crate) fn new(
        id: SessionId,
        actor: Actor,
        client: &Client,
        activity: Activity,
        cutoffs: Cutoffs,
    ) -> (Self, watch::Receiver<Option<Ending>>) {
        let (end, ended) = watch::channel(None);
        let life = Self {
            id,
            actor,
            owner: client.id,
            client: client.address,
            started: Timestamp::now(),
            activity,
            began: clock::instant(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            active: AtomicU64::new(0),
            works: AtomicBool::new(activity == Activity::Running),
            cutoffs: watch::Sender::new(cutoffs),
            end,
            apart: watch::Sender::new(false),
        };
        (life, ended)
    }

    /// Orders it to end. The first order decides the reason.
    pub(crate) fn end(&self, ending: Ending) {
        self.end.send_if_modified(|reason| {
            let first = reason.is_none();
            if first {
                *reason = Some(ending);
            }
            first
        });
    }

    /// Waits until nothing of it moves any more; false if that takes too long.
    pub(crate) async fn wait_drained(&self, deadline: Instant) -> bool {
        let mut apart = self.apart.subscribe();
        // The sender lives in `self`.
        let reached = apart.wait_for(|apart| *apart);
        timeout_at(deadline, reached).await.is_ok()
    }

    /// Notes that nothing of it moves from now on.
    pub(crate) fn mark_drained(&self) {
        self.apart.send_replace(true);
    }

    /// Returns what has moved so far.
    #[must_use]
    pub(crate) fn traffic(&self) -> Traffic {
        Traffic {
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            active: self.started.after(self.active()),
        }
    }

    /// Returns how long it has lived.
    #[must_use]
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Returns the last activity, as an age.
    #[must_use]
    pub(crate) fn active(&self) -> Duration {
        Duration::from_micros(self.active.load(Ordering::Relaxed))
    }

    /// Counts bytes that came from the operator.
    pub(crate) fn count_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes that were taken by the operator.
    pub(crate) fn count_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.activity != Activity::Input {
            self.touch();
        }
    }

    /// Returns when it ends by the clock: as it is now, and as it changes.
    #[must_use]
    pub(crate) fn cutoffs(&self) -> watch::Receiver<Cutoffs> {
        self.cutoffs.subscribe()
    }

    /// Sets the times at which it ends from now on.
    pub(crate) fn set_cutoffs(&self, cutoffs: Cutoffs) {
        change(&self.cutoffs, cutoffs);
    }

    /// Notes activity now.
    pub(crate) fn touch(&self) {
        let age = u64::try_from(self.age().as_micros()).unwrap_or(u64::MAX);
        self.active.fetch_max(age, Ordering::Relaxed);
    }

    /// Returns whether it is at work by itself.
    #[must_use]
    pub(crate) fn works(&self) -> bool {
        self.works.load(Ordering::Relaxed)
    }

    /// Notes that its client has ended its input: what runs without a terminal has all that it gets, and is at work.
    pub(crate) fn input_ended(&self) {
        if self.activity == Activity::Bytes {
            self.works.store(true, Ordering::Relaxed);
        }
    }
}

/// Tells a value to those who wait for another than it was.
fn change<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|old| {
        let changed = *old != value;
        *old = value;
        changed
    });
}
