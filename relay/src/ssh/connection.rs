//! One SSH connection, apart from the channels on it and from the client that sessions know: how it is spoken to, and
//! how it is cut.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use russh::Disconnect;
use russh::server::{Handle, Handler, RunningSession};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info};

use super::channels::tally::Tally;
use super::channels::{Channels, HandlerError};
use super::stream::Guard;
use crate::identity::Principal;
use crate::log_limit::{self, LimitedLine};
use crate::model::source::Source;
use crate::session::client::target::SshTarget;
use crate::session::client::{Client, ClientId, CloseHandle};
use crate::session::ending::Ending;
use crate::session::input::InputBudget;
use crate::ssh::limits::{DISCONNECT_GRACE, MAX_DESCRIPTION};

/// An SSH connection. It is shared by its handler and the channels on it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The operator's client, as sessions know it.
    pub(crate) client: Arc<Client>,
    closer: Arc<Closer>,
    /// The number of channels its client has. A connection shares it with what runs inside its jumps.
    pub(crate) tally: Tally,
    /// The budget of the channels inside its jumps together. Its own have another budget: what waits in a jump's
    /// channel becomes what waits inside, and must not wait for itself.
    pub(crate) inner_budget: InputBudget,
    is_inner: bool,
}

/// Closes an SSH connection: with a disconnect message, as soon as there is an SSH session to send it on.
#[derive(Debug)]
struct Closer {
    guard: Guard,
    handle: OnceLock<Handle>,
}

impl CloseHandle for Closer {
    fn close<'a>(&'a self, why: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Some(handle) = self.handle.get() {
                let mut text = why.to_owned();
                text.truncate(text.floor_char_boundary(MAX_DESCRIPTION));
                let said = handle.disconnect(Disconnect::ByApplication, text, String::new());
                let _ = timeout(DISCONNECT_GRACE, said).await;
                sleep(DISCONNECT_GRACE).await;
            }
            self.guard.cut();
        })
    }
}

impl Closer {
    fn new(guard: Guard) -> Arc<Self> {
        let handle = OnceLock::new();
        Arc::new(Self { guard, handle })
    }
}

impl Connection {
    /// Returns a connection that was just accepted.
    #[must_use]
    pub(crate) fn new(
        id: ClientId,
        address: SocketAddr,
        server: SocketAddr,
        guard: Guard,
    ) -> Arc<Self> {
        let closer = Closer::new(guard);
        Arc::new(Self {
            client: Client::new(id, address, server, closer.clone()),
            closer,
            tally: Tally::default(),
            inner_budget: InputBudget::default(),
            is_inner: false,
        })
    }

    /// Returns a connection inside a channel of another one: it was admitted with that one, and ends with it.
    #[must_use]
    pub(crate) fn inside(outer: &Self, guard: Guard) -> Arc<Self> {
        let closer = Closer::new(guard);
        Arc::new(Self {
            client: outer.client.inside(closer.clone()),
            closer,
            tally: outer.tally.clone(),
            inner_budget: outer.inner_budget.clone(),
            is_inner: true,
        })
    }

    /// Returns what cuts the TCP connection.
    #[must_use]
    pub(crate) fn guard(&self) -> &Guard {
        &self.closer.guard
    }

    /// Returns who proved to be at the other end, and what they asked for by the user name of that proof.
    #[must_use]
    pub(crate) fn principal(&self) -> Option<&(Principal, SshTarget)> {
        self.client.principal()
    }

    /// Notes the proof. The first one counts: SSH authenticates a connection once.
    pub(crate) fn set_principal(&self, principal: Principal, target: SshTarget) {
        self.client.set_principal(principal, target);
        self.closer.guard.set_authenticated();
    }

    /// Returns its channels, of which there are none yet.
    #[must_use]
    pub(crate) fn channels(&self) -> Channels {
        let budget = match self.is_inner {
            true => self.inner_budget.clone(),
            false => InputBudget::default(),
        };
        Channels::new(self.tally.share(self.is_inner), budget)
    }
}

/// Serves a connection whose handshake has begun to its end: with a deadline for the login, and an end for
/// one that has nothing to do.
pub(crate) async fn supervise<H: Handler<Error = HandlerError>>(
    connection: &Connection,
    mut session: RunningSession<H>,
    login_deadline: Instant,
    login_grace: Duration,
) -> Option<Ending> {
    let _ = connection.closer.handle.set(session.handle());
    let mut ending = None;
    let ended = tokio::select! {
        ended = &mut session => Some(ended),
        () = late(connection, login_deadline) => {
            let client = connection.client.address;
            if let Some(left_out) = log_limit::admits(LimitedLine::NoLogin, Source::of(client.ip())) {
                info!(%client, left_out, "no login within {} s", login_grace.as_secs());
            }
            connection.guard().cut();
            None
        }
        idle = connection.client.idled() => {
            if connection.client.begin_close(idle.clone()) {
                connection.client.close(&idle.why).await;
                ending = Some(idle);
            }
            None
        }
    };
    let ended: Result<(), HandlerError> = match ended {
        Some(ended) => ended,
        None => session.await,
    };
    connection.client.set_over();
    if let Err(error) = ended {
        debug!(client = %connection.client.address, %error, "SSH connection ended with an error");
    }
    ending
}

/// Resolves at the deadline, if no user is authenticated on this connection by then.
async fn late(connection: &Connection, deadline: Instant) {
    sleep_until(deadline).await;
    if connection.guard().is_authenticated() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use bytes::Bytes;

    use super::*;
    use crate::session::client::Clients;
    use crate::session::input::{Input, InputReceiver};
    use crate::session::limits::{CHANNEL_QUEUE, CONNECTION_QUEUE};

    static PACKET: [u8; 32 * 1024] = [0; 32 * 1024];

    /// Sends on channels of a connection that nothing is taken from, until it has to wait; returns the bytes that wait.
    async fn fill(connection: &Connection, unread: &mut Vec<InputReceiver>) -> usize {
        let channels = connection.channels();
        let mut bytes = 0;
        // As many as fill what all may have.
        for _ in 0..CONNECTION_QUEUE / CHANNEL_QUEUE + 1 {
            let (sender, receiver) = channels.queue();
            unread.push(receiver);
            let packet = || Input::Data(Bytes::from_static(&PACKET));
            while let Ok(pushed) = timeout(Duration::from_millis(1), sender.push(packet())).await {
                pushed.unwrap();
                bytes += PACKET.len();
            }
        }
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn jumps_share_one_budget_beside_that_of_the_outer() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 22));
        let id = Clients::default().new_id();
        let outer = Connection::new(id, address, address, Guard::default());
        let jumps = [(); 2].map(|()| Connection::inside(&outer, Guard::default()));
        let mut unread = Vec::new();
        let mut inside = 0;
        for jump in &jumps {
            inside += fill(jump, &mut unread).await;
        }
        assert!(inside <= CONNECTION_QUEUE, "{inside}");
        assert!(inside > CONNECTION_QUEUE - 2 * 1024 * 1024, "{inside}");
        // What waits in a jump's channel becomes what waits inside, and must not wait for itself.
        let own = fill(&outer, &mut unread).await;
        assert!(own > CONNECTION_QUEUE - 2 * 1024 * 1024, "{own}");
        // What is taken of one jump makes room for the other.
        drop(unread);
        let mut unread = Vec::new();
        assert!(fill(&jumps[1], &mut unread).await > CONNECTION_QUEUE - 2 * 1024 * 1024);
    }
}
