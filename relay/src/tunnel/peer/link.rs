//! The links that this relay has dialled: one to each relay that has a device which an operator here wants.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use holdfast_protocol::ids::{DeviceId, Generation};
use holdfast_protocol::limits::PEER_MINOR_VERSION;
use holdfast_protocol::tunnel::congestion::quinn::lift_for_close;
use holdfast_protocol::wire::CloseCode;
use holdfast_protocol::wire::peer::{PeerHello, PeerMessage};
use quinn::{ClientConfig, ConnectError, Connection, ConnectionError, Endpoint};
use thiserror::Error;
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::message::{self, MessageError};
use super::transport;
use super::tunnel::{PeerTunnel, TunnelAnswer};
use crate::clock;
use crate::store::cluster::members::Located;
use crate::sync::Mutex;
use crate::tunnel::peer::limits::{MAX_PEER_REDIAL, PEER_DIAL_TIMEOUT, PEER_PROVEN, PEER_REDIAL};
use crate::tunnel::tls::PeerTls;

/// The reason why another relay cannot be reached. It is kept for those who ask again at once.
#[derive(Clone, Debug, Error)]
pub(crate) enum LinkError {
    /// Its address leads nowhere.
    #[error("its address {0} cannot be found")]
    Address(String),
    /// It cannot be dialled at all.
    #[error("it cannot be dialled: {0}")]
    Dial(String),
    /// It did not answer in time.
    #[error("it does not answer")]
    Silent,
    /// It does not take this relay for a member.
    #[error("it does not know this relay as a member of the cluster")]
    NoMember,
    /// The link was lost.
    #[error("the link to it was lost: {0}")]
    Lost(String),
}

impl LinkError {
    /// Returns what the operator is to do.
    #[must_use]
    pub(crate) const fn remedy(&self) -> &'static str {
        match self {
            Self::Address(_) => {
                "tell an admin: the `--public` of each relay has to be a name that the others find, too"
            }
            Self::Dial(_) | Self::NoMember => "tell an admin",
            Self::Silent | Self::Lost(_) => "try again in a moment",
        }
    }
}

/// The link to one relay, if there is one.
#[derive(Debug, Default)]
pub(super) struct Dialled {
    /// Held while it is dialled: others wait for the outcome.
    state: tokio::sync::Mutex<DialState>,
    /// The connections, for who closes them while they are in use: the newest, and those before it that are silent.
    connections: Mutex<Vec<Connection>>,
}

#[derive(Debug, Default)]
struct DialState {
    link: Option<Arc<PeerLink>>,
    failure: Option<DialFailure>,
}

/// A failed attempt, and when the next may be made.
#[derive(Debug)]
struct DialFailure {
    error: LinkError,
    delay: Duration,
    next: Instant,
}

/// A link, and the tunnels at its other end that are in use here.
#[derive(Debug)]
pub(super) struct PeerLink {
    connection: Connection,
    /// True if it has left a question without an answer. What passes on it goes on until its idle timeout.
    is_silent: AtomicBool,
    /// The time of the last answer.
    answered: Mutex<Instant>,
    tunnels: Mutex<HashMap<DeviceId, Weak<PeerTunnel>>>,
}

/// Dials other relays.
#[derive(Debug)]
pub(super) struct Dialler {
    pub(super) endpoint: Endpoint,
    pub(super) tls: PeerTls,
}

impl Dialled {
    /// Returns the link, which is dialled if there is none.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(super) async fn link(
        &self,
        dialler: &Dialler,
        to: &Located,
    ) -> Result<Arc<PeerLink>, LinkError> {
        let mut state = self.state.lock().await;
        if let Some(link) = state.link.as_ref().filter(|link| link.is_alive()) {
            return Ok(link.clone());
        }
        state.link = None;
        let delay = match &state.failure {
            Some(failure) if clock::instant() < failure.next => return Err(failure.error.clone()),
            Some(failure) => failure.delay.saturating_mul(2).min(MAX_PEER_REDIAL),
            None => PEER_REDIAL,
        };
        let dialled = timeout(PEER_DIAL_TIMEOUT, dialler.dial(to)).await;
        match dialled.unwrap_or(Err(LinkError::Silent)) {
            Ok(connection) => {
                info!(relay = %to.name, address = %connection.remote_address(), "linked to another relay");
                self.note(&connection);
                let link = Arc::new(PeerLink {
                    connection,
                    is_silent: AtomicBool::new(false),
                    answered: Mutex::new(clock::instant()),
                    tunnels: Mutex::default(),
                });
                (state.link, state.failure) = (Some(link.clone()), None);
                Ok(link)
            }
            Err(error) => {
                warn!(relay = %to.name, address = %to.tunnel_address, %error, "another relay cannot be reached");
                state.failure = Some(DialFailure {
                    error: error.clone(),
                    delay,
                    next: clock::instant() + delay,
                });
                Err(error)
            }
        }
    }

    /// Closes the link, and with it what passes on it.
    pub(super) fn close(&self, code: CloseCode, why: &str) {
        for connection in self.connections.lock().drain(..) {
            close(&connection, code, why);
        }
    }

    /// Returns whether there is a link.
    pub(super) fn is_linked(&self) -> bool {
        let connections = self.connections.lock();
        connections.iter().any(|link| link.close_reason().is_none())
    }

    fn note(&self, connection: &Connection) {
        let mut connections = self.connections.lock();
        connections.retain(|link| link.close_reason().is_none());
        connections.push(connection.clone());
    }
}

impl PeerLink {
    fn is_alive(&self) -> bool {
        self.connection.close_reason().is_none() && !self.is_silent.load(Ordering::Relaxed)
    }

    /// Returns a tunnel at the other end; `None` if it is not there. The other relay has answered a moment ago.
    ///
    /// # Errors
    /// [`LinkError`]: then the link is not used any more for what begins.
    pub(super) async fn tunnel(
        &self,
        device: DeviceId,
        generation: Generation,
    ) -> Result<Option<Arc<PeerTunnel>>, LinkError> {
        let known = self.tunnels.lock().get(&device).and_then(Weak::upgrade);
        let known = known.filter(|known| known.is_usable(generation));
        if let Some(known) = &known
            && self.answered.lock().elapsed() < PEER_PROVEN
        {
            return Ok(Some(known.clone()));
        }
        let asked = PeerTunnel::ask(&self.connection, device, generation).await;
        let failed = match asked {
            Ok(Some(TunnelAnswer::Tunnel(tunnel))) => {
                *self.answered.lock() = clock::instant();
                if known.is_some() {
                    return Ok(known);
                }
                let mut tunnels = self.tunnels.lock();
                tunnels.retain(|_, tunnel| tunnel.strong_count() > 0);
                tunnels.insert(device, Arc::downgrade(&tunnel));
                return Ok(Some(tunnel));
            }
            Ok(Some(TunnelAnswer::NotHere)) => return Ok(None),
            Ok(None) => LinkError::Silent,
            Err(error) => LinkError::Lost(error.to_string()),
        };
        self.is_silent.store(true, Ordering::Relaxed);
        Err(failed)
    }
}

impl Dialler {
    async fn dial(&self, to: &Located) -> Result<Connection, LinkError> {
        let address = self.address(&to.tunnel_address).await?;
        let dial = |error: String| LinkError::Dial(error);
        let crypto = self.tls.client_config(to.tunnel_key);
        let crypto = crypto.map_err(|error| dial(error.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport::dialled()));
        let connecting = self.endpoint.connect_with(config, address, "holdfast");
        let connecting = connecting.map_err(|error: ConnectError| dial(error.to_string()))?;
        let connection = connecting.await.map_err(lost)?;
        greet(&connection).await.map_err(|error| match error {
            MessageError::Link(error) => lost(error),
            error => LinkError::Lost(error.to_string()),
        })?;
        Ok(connection)
    }

    /// Returns the first address of a host that the tunnel's socket can send to.
    async fn address(&self, host: &str) -> Result<SocketAddr, LinkError> {
        let unknown = || LinkError::Address(host.to_owned());
        let own = self.endpoint.local_addr().map_err(|_| unknown())?;
        let mut found = lookup_host(host).await.map_err(|_| unknown())?;
        found
            .find(|address| own.is_ipv6() || address.is_ipv4())
            .ok_or_else(unknown)
    }
}

/// Says hello, and waits for the welcome.
async fn greet(connection: &Connection) -> Result<(), MessageError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let hello = PeerMessage::Hello(PeerHello {
        minor: PEER_MINOR_VERSION,
    });
    message::send(&mut send, &hello).await?;
    match message::receive(&mut receive).await? {
        PeerMessage::Welcome(_) => Ok(()),
        _ => Err(MessageError::OutOfPlace),
    }
}

fn lost(error: ConnectionError) -> LinkError {
    let no_member = quinn::VarInt::from_u32(CloseCode::NoMember as u32);
    match error {
        ConnectionError::ApplicationClosed(close) if close.error_code == no_member => {
            LinkError::NoMember
        }
        ConnectionError::TimedOut => LinkError::Silent,
        error => LinkError::Lost(error.to_string()),
    }
}

/// Closes a link.
pub(super) fn close(connection: &Connection, code: CloseCode, why: &str) {
    lift_for_close(connection.congestion_state());
    connection.close((code as u32).into(), why.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_that_is_not_found_is_no_matter_of_a_moment() {
        let unknown = LinkError::Address("relay2.invalid:4433".to_owned());
        assert_eq!(
            unknown.to_string(),
            "its address relay2.invalid:4433 cannot be found"
        );
        assert!(
            unknown.remedy().contains("`--public`"),
            "{}",
            unknown.remedy()
        );
        assert_eq!(LinkError::Silent.remedy(), "try again in a moment");
    }
}
