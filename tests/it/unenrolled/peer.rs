//! A QUIC client with a raw public key (RFC 7250) that says whatever it likes.

use std::net::{Ipv4Addr, SocketAddr};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::codec::control::{self, ControlReader};
use holdfast_protocol::limits::PEER_ALPN;
use holdfast_protocol::wire::{AgentMessage, CloseCode, Refusal, RelayMessage};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use tokio::time::timeout;

/// The time that the relay may take for what it does at once.
const SOON: Duration = Duration::from_secs(20);

/// The way in which the relay ended a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With this code.
    Closed(u32),
    /// TLS did not like it.
    Handshake,
}

pub(crate) struct Peer {
    connection: Connection,
    first: Option<Stream>,
    endpoint: Endpoint,
}

pub(crate) struct Stream {
    send: SendStream,
    receive: RecvStream,
    reader: ControlReader<RelayMessage>,
    rest: Vec<u8>,
}

impl Peer {
    /// Connects with the key of this seed, or with none.
    pub(crate) async fn dial(relay: SocketAddr, seed: Option<[u8; 32]>) -> Result<Self, Ended> {
        let mut endpoint = Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        endpoint.set_default_client_config(config(seed));
        let connecting = endpoint.connect(relay, "relay").unwrap();
        let connection = timeout(SOON, connecting).await.unwrap().map_err(ended)?;
        Ok(Self {
            connection,
            first: None,
            endpoint,
        })
    }

    /// Connects with the key of this seed as another relay does.
    pub(crate) async fn dial_as_relay(relay: SocketAddr, seed: [u8; 32]) -> Result<Self, Ended> {
        let mut endpoint = Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        let mut tls = raw_key::client(Some(raw_key::seeded_key(seed)));
        tls.alpn_protocols = vec![PEER_ALPN.to_vec()];
        let crypto = Arc::new(QuicClientConfig::try_from(tls).unwrap());
        endpoint.set_default_client_config(ClientConfig::new(crypto));
        let connecting = endpoint.connect(relay, "relay").unwrap();
        let connection = timeout(SOON, connecting).await.unwrap().map_err(ended)?;
        Ok(Self {
            connection,
            first: None,
            endpoint,
        })
    }

    /// The relay refuses with this, and closes.
    #[track_caller]
    pub(crate) fn is_refused(&mut self, refusal: Refusal) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let refused = RelayMessage::Refused(refusal);
            assert_eq!(self.next().await, Some(refused), "at {caller}");
            let closed = Ended::Closed(CloseCode::Done as u32);
            assert_eq!(self.ended().await, closed, "at {caller}");
        }
    }

    /// Sends a message on the first stream.
    pub(crate) async fn say(&mut self, message: &AgentMessage) {
        self.first().await.say(message).await;
    }

    /// Sends bytes there.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.first().await.write(bytes).await;
    }

    /// Says no more there.
    pub(crate) fn finish(&mut self) {
        if let Some(first) = &mut self.first {
            // It may be stopped already.
            let _ = first.send.finish();
        }
    }

    /// Returns what the relay says there; `None`: nothing more.
    pub(crate) async fn next(&mut self) -> Option<RelayMessage> {
        self.first().await.next().await
    }

    /// The same on a connection that may be gone before the stream is there.
    pub(crate) async fn next_if_open(&mut self) -> Option<RelayMessage> {
        if self.first.is_none() {
            let opened = self.connection.open_bi().await.ok()?;
            self.first = Some(Stream::of(opened));
        }
        self.next().await
    }

    /// One more stream, if the relay allows it within `wait`.
    pub(crate) async fn open_another(&self, wait: Duration) -> Option<Stream> {
        let opened = timeout(wait, self.connection.open_bi()).await.ok()?;
        Some(Stream::of(opened.unwrap()))
    }

    /// Returns whether the relay allows a stream in one direction within `wait`.
    pub(crate) async fn may_open_one_way(&self, wait: Duration) -> bool {
        timeout(wait, self.connection.open_uni()).await.is_ok()
    }

    /// Ends the connection with this reason, and waits until that is sent.
    pub(crate) async fn close(self, reason: &[u8]) {
        self.connection.close(0_u32.into(), reason);
        self.endpoint.wait_idle().await;
    }

    /// Returns how the relay ends the connection.
    pub(crate) async fn ended(&mut self) -> Ended {
        ended(timeout(SOON * 2, self.connection.closed()).await.unwrap())
    }

    async fn first(&mut self) -> &mut Stream {
        if self.first.is_none() {
            let opened = self.connection.open_bi().await.unwrap();
            self.first = Some(Stream::of(opened));
        }
        self.first.as_mut().unwrap()
    }
}

impl Stream {
    fn of((send, receive): (SendStream, RecvStream)) -> Self {
        Self {
            send,
            receive,
            reader: ControlReader::default(),
            rest: vec![],
        }
    }

    pub(crate) async fn say(&mut self, message: &AgentMessage) {
        self.write(&control::encode(message).unwrap()).await;
    }

    /// The relay may have ended it before: what counts is what it says of it.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = timeout(SOON, self.send.write_all(bytes)).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Option<RelayMessage> {
        loop {
            let mut input = self.rest.as_slice();
            let message = self.reader.read(&mut input).unwrap();
            let used = self.rest.len() - input.len();
            self.rest.drain(..used);
            if message.is_some() {
                return message;
            }
            let chunk = timeout(SOON * 2, self.receive.read_chunk(4096, true)).await;
            match chunk.expect("the relay neither answers nor ends it") {
                Ok(Some(chunk)) => self.rest.extend_from_slice(&chunk.bytes),
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

fn ended(error: ConnectionError) -> Ended {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            Ended::Closed(u32::try_from(close.error_code.into_inner()).unwrap())
        }
        ConnectionError::ConnectionClosed(_) | ConnectionError::TransportError(_) => {
            Ended::Handshake
        }
        other => panic!("{other}"),
    }
}

fn config(seed: Option<[u8; 32]>) -> ClientConfig {
    let tls = raw_key::client(seed.map(raw_key::seeded_key));
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}
