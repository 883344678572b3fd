//! The listener: accepts connections, and bounds what has not authenticated.

use std::net::SocketAddr;
use std::sync::Arc;

use russh::Disconnect;
use russh::server::{Config, run_stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::algorithms;
use super::connection::{Connection, supervise};
use super::handler::Handler;
use super::stream::balancer::{self, NO_HEADER};
use super::stream::proxy_header::Origin;
use super::stream::{Guard, GuardedStream};
use super::throttle::ThrottleRefusal;
use crate::clock;
use crate::limits::ACCEPT_PAUSE;
use crate::model::source::Source;
use crate::ssh::Front;
use crate::ssh::limits::{PENALTY_FAILED, REFUSAL_LINGER};
use crate::ssh::login::attempts::Attempts;

/// Accepts connections for ever. Cancel it to stop accepting.
pub(crate) async fn run(front: Arc<Front>, listener: TcpListener, config: Arc<Config>) {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept an SSH connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let source = Source::of(client.ip());
        let is_balancer = front.balancers.contain(client.ip());
        // A place is taken before anything is read.
        let admitted = match is_balancer {
            true => front.connections.throttle().admit_without_header(source),
            false => front.connections.admit(source),
        };
        if let Err(refused) = admitted {
            turn_away(&front, stream, client, &refused);
            continue;
        }
        let (front, config) = (front.clone(), config.clone());
        if is_balancer {
            tokio::spawn(serve_balanced(front, stream, client, config));
        } else {
            let server = stream.local_addr().unwrap_or(client);
            tokio::spawn(serve(front, stream, (client, server), None, config));
        }
    }
}

/// Serves a connection from a load balancer to its end: whose it is, its header says, and that address is the client's
/// from then on.
async fn serve_balanced(
    front: Arc<Front>,
    mut stream: TcpStream,
    from: SocketAddr,
    config: Arc<Config>,
) {
    let header = balancer::header(&mut stream).await;
    let connections = &front.connections;
    connections.throttle().header_awaited(Source::of(from.ip()));
    let (client, server) = match header {
        Ok(Origin::Client { client, server }) => (client, server),
        Ok(Origin::Balancer) => (from, stream.local_addr().unwrap_or(from)),
        Err(why) => {
            balancer::log_missing(from, &why);
            return refuse(&connections.lingering, stream, NO_HEADER);
        }
    };
    match connections.admit(Source::of(client.ip())) {
        Ok(()) => serve(front, stream, (client, server), Some(from), config).await,
        Err(refused) => turn_away(&front, stream, client, &refused),
    }
}

/// Refuses a connection for which there is no place.
fn turn_away(front: &Front, stream: TcpStream, client: SocketAddr, refused: &ThrottleRefusal) {
    debug!(%client, %refused, "SSH connection refused");
    refuse(&front.connections.lingering, stream, &refused.to_string());
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

/// Returns a packet in the clear that holds `SSH_MSG_DISCONNECT` (RFC 4253 sections 6 and 11.1), as it may be sent
/// before keys are agreed on.
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
    front: Arc<Front>,
    stream: TcpStream,
    (client, server): (SocketAddr, SocketAddr),
    balancer: Option<SocketAddr>,
    config: Arc<Config>,
) {
    let source = Source::of(client.ip());
    let connections = &front.connections;
    let guard = Guard::default();
    let clients = &front.sessions.clients;
    let id = clients.new_id();
    let connection = Connection::new(id, client, server, guard.clone());
    connections.lock().insert(id, (source, guard.clone()));
    clients.enter(connection.client.clone());

    let attempts = converse(&front, &connection, stream, source, config).await;

    connections.lock().remove(&id);
    clients.leave(id);
    if guard.has_proxy_header() {
        balancer::log_unexpected(client, balancer);
    }
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
    if let Some(lease) = connection.client.take_lease() {
        lease.release().await;
    }
    if attempts.were_made() && !authenticated {
        front
            .audit
            .note_failure(source, attempts.failed(client))
            .await;
    }
}

/// Serves a connection to its end, and returns what its client offered as proof.
async fn converse(
    front: &Arc<Front>,
    connection: &Arc<Connection>,
    stream: TcpStream,
    source: Source,
    config: Arc<Config>,
) -> Arc<Attempts> {
    if config.nodelay {
        let _ = stream.set_nodelay(true);
    }
    let grace = front.login_grace;
    let deadline = clock::instant() + grace;
    let guarded = GuardedStream::new(stream, connection.guard().clone());
    let handler = Handler::outer(front.clone(), connection.clone(), source);
    let attempts = handler.attempts();
    let began = timeout(grace, run_stream(config, guarded, handler)).await;
    if let Ok(Ok(session)) = began {
        let ending = supervise(connection, session, deadline, grace).await;
        if let Some(ending) = ending {
            front
                .sessions
                .report
                .connection_ended(&connection.client, &ending)
                .await;
        }
    }
    attempts
}
