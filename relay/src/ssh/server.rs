//! The listener: accepts connections, bounds what has not authenticated, and knows all that live.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use russh::server::{Config, run_stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::attempts::Attempts;
use super::connection::{Connection, supervise};
use super::handler::Handler;
use super::stream::{Guard, GuardedStream};
use super::throttle::{Source, Throttle};
use crate::limits::{PENALTY_FAILED, PENALTY_NO_ATTEMPT};
use crate::serve::Relay;

/// The live SSH connections of this relay.
#[derive(Debug)]
pub struct Connections {
    all: Mutex<HashMap<u64, Arc<Connection>>>,
    count: watch::Sender<usize>,
    next: AtomicU64,
    throttle: Mutex<Throttle>,
    began: Instant,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            all: Mutex::default(),
            count: watch::Sender::default(),
            next: AtomicU64::new(0),
            throttle: Mutex::default(),
            began: Instant::now(),
        }
    }
}

impl Connections {
    /// Every live connection.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Connection>> {
        self.lock().values().cloned().collect()
    }

    /// Waits until no connection lives.
    pub async fn wait_empty(&self) {
        // The sender lives as long as we do: it cannot fail.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    fn enter(&self, connection: Arc<Connection>) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut all = self.lock();
        all.insert(id, connection);
        self.count.send_replace(all.len());
        id
    }

    fn leave(&self, id: u64) {
        let mut all = self.lock();
        all.remove(&id);
        self.count.send_replace(all.len());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Accepts connections for ever. Cancel it to stop accepting.
pub async fn run(relay: Arc<Relay>, listener: TcpListener, config: Arc<Config>) {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: the next attempt would fail at once, too.
                warn!(%error, "cannot accept an SSH connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let source = Source::of(client.ip());
        let connections = &relay.connections;
        let admitted = connections.throttle().admit(source, connections.now());
        if let Err(refused) = admitted {
            debug!(%client, %refused, "SSH connection refused");
            refuse(stream, &refused.to_string());
            continue;
        }
        tokio::spawn(serve(relay.clone(), stream, client, source, config.clone()));
    }
}

/// Says why in a line before the banner (RFC 4253 section 4.2), if the socket takes it at once.
fn refuse(stream: TcpStream, why: &str) {
    let _ = stream.try_write(format!("{why}\r\n").as_bytes());
}

async fn serve(
    relay: Arc<Relay>,
    stream: TcpStream,
    client: SocketAddr,
    source: Source,
    config: Arc<Config>,
) {
    let connections = &relay.connections;
    let guard = Guard::default();
    let server = stream.local_addr().unwrap_or(client);
    let connection = Connection::new(client, server, guard.clone());
    let id = connections.enter(connection.clone());

    let outcome = converse(&relay, &connection, stream, source, config).await;

    connections.leave(id);
    let authenticated = guard.is_authenticated();
    {
        let mut throttle = connections.throttle();
        throttle.ended(source, authenticated);
        match &outcome {
            _ if authenticated => {}
            Outcome::Failed(_) => throttle.penalise(source, PENALTY_FAILED, connections.now()),
            Outcome::NoAttempt => throttle.penalise(source, PENALTY_NO_ATTEMPT, connections.now()),
        }
    }
    debug!(%client, authenticated, "SSH connection closed");
    if let Some(lease) = connection.take_lease() {
        lease.release().await;
    }
    if let (Outcome::Failed(attempts), false) = (outcome, authenticated) {
        relay
            .audit
            .note_failure(source, attempts.failed(client))
            .await;
    }
}

/// What an unauthenticated connection came to.
enum Outcome {
    /// It offered something and it was not accepted.
    Failed(Arc<Attempts>),
    /// It did not even try.
    NoAttempt,
}

async fn converse(
    relay: &Arc<Relay>,
    connection: &Arc<Connection>,
    stream: TcpStream,
    source: Source,
    config: Arc<Config>,
) -> Outcome {
    if config.nodelay {
        let _ = stream.set_nodelay(true);
    }
    let grace = relay.login_grace;
    let deadline = tokio::time::Instant::now() + grace;
    let guarded = GuardedStream::new(stream, connection.guard.clone());
    let handler = Handler::outer(relay.clone(), connection.clone(), source);
    let attempts = handler.attempts();
    let began = timeout(grace, run_stream(config, guarded, handler)).await;
    if let Ok(Ok(session)) = began {
        let ending = supervise(connection, session, deadline, grace).await;
        if let Some(ending) = ending {
            relay.report.connection_ended(connection, &ending).await;
        }
    }
    if attempts.were_made() {
        Outcome::Failed(attempts)
    } else {
        Outcome::NoAttempt
    }
}

/// A source has authenticated.
pub(super) fn authenticated(relay: &Relay, source: Source) {
    relay.connections.throttle().authenticated(source);
}
