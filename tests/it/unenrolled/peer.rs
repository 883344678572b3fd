//! A QUIC client with a raw public key (RFC 7250) that says whatever it likes.

use std::net::{Ipv4Addr, SocketAddr};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::codec::control::{self, ControlReader};
use holdfast_protocol::limits::ALPN;
use holdfast_protocol::wire::{AgentMessage, CloseCode, Refusal, RelayMessage};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::time::timeout;

/// How long the relay may take for what it does at once.
const SOON: Duration = Duration::from_secs(20);

/// How a connection was ended by the relay.
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

    /// What the relay says there; `None`: nothing more.
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

    /// Whether the relay allows a stream in one direction within `wait`.
    pub(crate) async fn may_open_one_way(&self, wait: Duration) -> bool {
        timeout(wait, self.connection.open_uni()).await.is_ok()
    }

    /// Ends the connection with this reason, and waits until that is sent.
    pub(crate) async fn close(self, reason: &[u8]) {
        self.connection.close(0_u32.into(), reason);
        self.endpoint.wait_idle().await;
    }

    /// How the relay ends the connection.
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
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyRelay));
    let mut tls = match seed {
        None => builder.with_no_client_auth(),
        Some(seed) => {
            // RFC 8410, section 7: PKCS #8 around the seed.
            let mut pkcs8 =
                b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
            pkcs8.extend(seed);
            let key = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).unwrap();
            let public = CertificateDer::from(key.public_key().unwrap().to_vec());
            let key = Arc::new(CertifiedKey::new(vec![public], key));
            builder.with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)))
        }
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

/// Who the relay is has no part in these tests.
#[derive(Debug)]
struct AnyRelay;

impl ServerCertVerifier for AnyRelay {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
