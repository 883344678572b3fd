//! Joining a cluster: the side of the new relay. It dials a member as a device does, checks that the member is of the
//! cluster that the token names, and only then says the token's secret. The common keys come over that connection.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use holdfast_protocol::codec::control::{self, ControlReader};
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::identity::roster::SignedRoster;
use holdfast_protocol::identity::token::Token;
use holdfast_protocol::ids::{ClusterFingerprint, PublicKey};
use holdfast_protocol::limits::{DIAL_TIMEOUT, MINOR_VERSION};
use holdfast_protocol::tunnel::control::RelayOrder;
use holdfast_protocol::wire::{
    AgentMessage, EnrolRelay, Hello, Intent, Refusal, RelayGrant, RelayMessage,
};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use thiserror::Error;
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::clock::Timestamp;
use crate::state::{SigningKey, sha256, verifies};
use crate::tunnel::limits::{CONTROL_READ, ENROL_TIMEOUT, HANG_UP_TIMEOUT};
use crate::tunnel::tls::{self, PeerTls};

/// The reason why a relay did not join.
#[derive(Debug, Error)]
pub(crate) enum ClusterJoinError {
    /// The member could not be reached.
    #[error("the relay at {0} cannot be reached ({1})")]
    Dial(String, String),
    /// The peer at the token's address cannot prove to be of the token's cluster.
    #[error(
        "the relay at {0} is not of the cluster that the token names: no secret was sent. Check the address, or ask for a new token"
    )]
    WrongCluster(String),
    /// The member said no.
    #[error("{0}")]
    Refused(String),
    /// The member was lost in between, or broke the protocol.
    #[error("the relay at {0} did not finish the joining ({1}): try again with the same token")]
    Lost(String, String),
}

/// Joins with `token` as a relay with this tunnel key, which others reach by `public`.
///
/// # Errors
/// [`ClusterJoinError`].
pub(crate) async fn join(
    token: &Token,
    key: &SigningKey,
    public: &str,
) -> Result<RelayGrant, ClusterJoinError> {
    let address = &token.address;
    let dialled = timeout(DIAL_TIMEOUT, dial(address, key)).await;
    let dialled = dialled.unwrap_or_else(|_| Err("no answer: is UDP open to it?".to_owned()));
    let (endpoint, connection) =
        dialled.map_err(|why| ClusterJoinError::Dial(address.clone(), why))?;
    let asked = timeout(ENROL_TIMEOUT, ask(token, &connection, public)).await;
    connection.close(0_u32.into(), b"joined");
    let _ = timeout(ENROL_TIMEOUT, endpoint.wait_idle()).await;
    asked.unwrap_or_else(|_| {
        Err(ClusterJoinError::Lost(
            address.clone(),
            "no answer".to_owned(),
        ))
    })
}

/// Dials a relay as one that joins does, and hangs up. Returns the key that it proves to have.
///
/// # Errors
/// Why there is no connection, in words.
pub(crate) async fn key_at(address: &str) -> Result<Option<PublicKey>, String> {
    let key = SigningKey::random().map_err(|error| error.to_string())?;
    let (endpoint, connection) = dial(address, &key).await?;
    let proved = tls::peer_key(&connection);
    connection.close(0_u32.into(), b"");
    // Else the relay waits for what was to come.
    let _ = timeout(HANG_UP_TIMEOUT, endpoint.wait_idle()).await;
    Ok(proved)
}

async fn dial(address: &str, key: &SigningKey) -> Result<(Endpoint, Connection), String> {
    let resolved = lookup_host(address).await.map_err(|error| {
        format!("its name is not found on this machine, which has to find it while it is a member, too: {error}")
    })?;
    let tls = PeerTls::new(key).and_then(|tls| tls.joining_config());
    let tls = tls.map_err(|error| error.to_string())?;
    let config = ClientConfig::new(Arc::new(tls));
    let mut last = "its name has no address".to_owned();
    for to in resolved {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let endpoint = Endpoint::client(any).map_err(|error| error.to_string())?;
        let connecting = endpoint.connect_with(config.clone(), to, "relay");
        match connecting.map_err(|error| error.to_string())?.await {
            Ok(connection) => return Ok((endpoint, connection)),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

async fn ask(
    token: &Token,
    connection: &Connection,
    public: &str,
) -> Result<RelayGrant, ClusterJoinError> {
    let address = &token.address;
    let lost = |why: String| ClusterJoinError::Lost(address.clone(), why);
    let (send, receive) = connection
        .open_bi()
        .await
        .map_err(|error| lost(error.to_string()))?;
    let mut stream = JoinStream {
        send,
        receive,
        reader: ControlReader::default(),
        order: RelayOrder::new(Intent::JoinRelay),
        rest: Vec::new(),
    };
    let hello = AgentMessage::Hello(Hello {
        minor: MINOR_VERSION,
        intent: Intent::JoinRelay,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        target: String::new(),
        keepalive_secs: 0,
        clock: Timestamp::of_machine().0 / 1_000_000,
        local_address: None,
    });
    let enrol = AgentMessage::EnrolRelay(EnrolRelay {
        secret: token.secret.clone(),
        public: public.to_owned(),
    });
    stream.send(&hello).await.map_err(lost)?;
    match stream.next().await.map_err(lost)? {
        RelayMessage::Identity(roster) if is_of(&token.fingerprint, connection, &roster) => {}
        RelayMessage::Identity(_) => return Err(ClusterJoinError::WrongCluster(address.clone())),
        other => return Err(refused(other).unwrap_or_else(|| lost("an unexpected message".into()))),
    }
    stream.send(&enrol).await.map_err(lost)?;
    match stream.next().await.map_err(lost)? {
        RelayMessage::EnrolledRelay(granted) => Ok(granted),
        other => Err(refused(other).unwrap_or_else(|| lost("an unexpected message".into()))),
    }
}

/// Returns whether the roster is signed by the cluster's key that the token names, and has the key which the member
/// proved in the handshake.
fn is_of(cluster: &ClusterFingerprint, connection: &Connection, roster: &SignedRoster) -> bool {
    let opened = roster.open(verifies);
    opened.is_ok_and(|roster| {
        let proved = tls::peer_key(connection);
        sha256(&roster.cluster.0) == cluster.0
            && roster.relays.iter().any(|relay| Some(relay.key) == proved)
    })
}

/// Returns the refusal in words, if it is one.
fn refused(message: RelayMessage) -> Option<ClusterJoinError> {
    let RelayMessage::Refused(why) = message else {
        return None;
    };
    Some(ClusterJoinError::Refused(match why {
        Refusal::TokenUnknown => {
            "the relay does not know this token: ask for a new one (`relay token create --relay`)"
                .to_owned()
        }
        Refusal::TokenExpired { ago_secs } => format!(
            "the token expired {ago_secs} s ago: ask for a new one (`relay token create --relay`)"
        ),
        Refusal::TokenUsedUp => {
            "the token is used up: ask for a new one (`relay token create --relay`)".to_owned()
        }
        Refusal::Protocol(why) => format!("the relay refused: {}", Escaped(&why)),
        Refusal::Version { .. } => "the relay is of another version".to_owned(),
        _ => "the relay cannot answer now: try again in a minute".to_owned(),
    }))
}

/// The control stream to the member.
struct JoinStream {
    send: SendStream,
    receive: RecvStream,
    reader: ControlReader<RelayMessage>,
    order: RelayOrder,
    rest: Vec<u8>,
}

impl JoinStream {
    async fn send(&mut self, message: &AgentMessage) -> Result<(), String> {
        let bytes = control::encode(message).map_err(|error| error.to_string())?;
        let sent = self.send.write_all(&bytes).await;
        sent.map_err(|error| error.to_string())
    }

    async fn next(&mut self) -> Result<RelayMessage, String> {
        loop {
            let mut input = self.rest.as_slice();
            let message = self.reader.read(&mut input);
            let message = message.map_err(|error| error.to_string())?;
            let used = self.rest.len() - input.len();
            self.rest.drain(..used);
            if let Some(message) = message {
                let due = self.order.handle(&message);
                return due
                    .map(|()| message)
                    .map_err(|_| "an unexpected message".to_owned());
            }
            match self.receive.read_chunk(CONTROL_READ, true).await {
                Ok(Some(chunk)) => self.rest.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err("it closed the stream".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}
