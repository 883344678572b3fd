//! The listener: accepts connections, bounds what has not authenticated, and knows all that live.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use russh::Disconnect;
use russh::server::{Config, run_stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::algorithms;
use super::connection::{Connection, supervise};
use super::handler::Handler;
use super::stream::{Guard, GuardedStream};
use super::throttle::{Refused, Throttle};
use crate::limits::{MAX_LINGERING_REFUSALS, PENALTY_FAILED, REFUSAL_LINGER};
use crate::model::source::Source;
use crate::serve::Relay;
use crate::ssh::login::attempts::Attempts;

/// The live SSH connections of this relay.
#[derive(Debug)]
pub(crate) struct Connections {
    all: Mutex<HashMap<u64, Arc<Connection>>>,
    count: watch::Sender<usize>,
    next: AtomicU64,
    throttle: Mutex<Throttle>,
    /// Permits for refused connections whose clients still read why.
    lingering: Arc<Semaphore>,
    began: Instant,
}

impl Connections {
    /// Creates an empty list. Sources in `exempt` never get a penalty.
    #[must_use]
    pub(crate) fn new(exempt: Vec<IpNet>) -> Self {
        Self {
            all: Mutex::default(),
            count: watch::Sender::default(),
            next: AtomicU64::new(0),
            throttle: Mutex::new(Throttle::new(exempt)),
            lingering: Arc::new(Semaphore::new(MAX_LINGERING_REFUSALS)),
            began: Instant::now(),
        }
    }

    /// Every live connection.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        self.lock().values().cloned().collect()
    }

    /// Waits until no connection lives.
    pub(crate) async fn wait_empty(&self) {
        // The sender lives as long as we do: it cannot fail.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Takes a connection into the books, for which the oldest of the same source that has not logged in may have to go.
    fn admit(&self, source: Source) -> Result<(), Refused> {
        let now = self.now();
        let admitted = self.throttle().admit(source, now);
        if admitted != Err(Refused::TooManyUnauthenticated) {
            return admitted;
        }
        let all = self.lock();
        let waits = all.iter().filter(|(_, connection)| {
            Source::of(connection.client.ip()) == source
                && !connection.guard.is_cut()
                && !connection.guard.is_authenticated()
        });
        let Some((_, oldest)) = waits.min_by_key(|(id, _)| **id) else {
            return admitted;
        };
        if !self.throttle().admit_instead(source, now) {
            return admitted;
        }
        oldest.guard.cut();
        Ok(())
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
pub(crate) async fn run(relay: Arc<Relay>, listener: TcpListener, config: Arc<Config>) {
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
        if let Err(refused) = connections.admit(source) {
            debug!(%client, %refused, "SSH connection refused");
            refuse(&connections.lingering, stream, &refused.to_string());
            continue;
        }
        tokio::spawn(serve(relay.clone(), stream, client, source, config.clone()));
    }
}

/// Says why, if the socket takes it at once: in a line before the version (RFC 4253 section 4.2), and in a disconnect
/// message behind it, because OpenSSH shows only that. The client has sent its version by then or is about to, and a
/// socket that is closed with something unread in it is reset, so it is kept open for a moment.
fn refuse(lingering: &Arc<Semaphore>, mut stream: TcpStream, why: &str) {
    let mut text = format!("{why}\r\n{}\r\n", algorithms::VERSION).into_bytes();
    text.extend(disconnect(why));
    let _ = stream.try_write(&text);
    if let Ok(permit) = lingering.clone().try_acquire_owned() {
        tokio::spawn(async move {
            let _ = stream.shutdown().await;
            let mut sink = [0; 1024];
            let drained = async { while matches!(stream.read(&mut sink).await, Ok(1..)) {} };
            let _ = timeout(REFUSAL_LINGER, drained).await;
            drop(permit);
        });
    }
}

/// A packet in the clear that holds `SSH_MSG_DISCONNECT` (RFC 4253 sections 6 and 11.1), as it may be sent before keys
/// are agreed on.
fn disconnect(why: &str) -> Vec<u8> {
    const SSH_MSG_DISCONNECT: u8 = 1;
    let reason = Disconnect::TooManyConnections as u32;
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut payload = vec![SSH_MSG_DISCONNECT];
    payload.extend(reason.to_be_bytes());
    payload.extend(length(why.as_bytes()));
    payload.extend(why.as_bytes());
    // The language.
    payload.extend([0; 4]);
    // The whole packet is a multiple of 8 bytes long, at least 4 of them padding.
    let padding = 4 + (8 - (payload.len() + 1 + 4 + 4) % 8) % 8;
    payload.extend(std::iter::repeat_n(0, padding));
    let mut packet = vec![0; 4];
    packet.push(u8::try_from(padding).unwrap_or(4));
    packet.extend(payload);
    let rest = length(&packet[4..]);
    packet[..4].copy_from_slice(&rest);
    packet
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

    let attempts = converse(&relay, &connection, stream, source, config).await;

    connections.leave(id);
    let authenticated = guard.is_authenticated();
    {
        let mut throttle = connections.throttle();
        throttle.ended(source, authenticated);
        // Keys that are refused and connections without an attempt prove nothing against a source that many share.
        if !authenticated && attempts.wrong_signatures() > 0 {
            throttle.penalise(source, PENALTY_FAILED, connections.now());
        }
    }
    debug!(%client, authenticated, "SSH connection closed");
    if let Some(lease) = connection.take_lease() {
        lease.release().await;
    }
    if attempts.were_made() && !authenticated {
        relay
            .audit
            .note_failure(source, attempts.failed(client))
            .await;
    }
}

/// Serves a connection to its end, and returns what its client offered as proof.
async fn converse(
    relay: &Arc<Relay>,
    connection: &Arc<Connection>,
    stream: TcpStream,
    source: Source,
    config: Arc<Config>,
) -> Arc<Attempts> {
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
    attempts
}

/// A source has authenticated.
pub(super) fn authenticated(relay: &Relay, source: Source) {
    let connections = &relay.connections;
    let now = connections.now();
    connections.throttle().authenticated(source, now);
}
