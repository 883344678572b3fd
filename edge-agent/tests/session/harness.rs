//! A relay of one test: it opens streams to [`Sessions`] over QUIC and speaks their frames.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use edge_agent::runtime;
use edge_agent::session::{SessionConfig, Sessions};
use futures_lite::FutureExt as _;
use holdfast_protocol::codec::frame::{
    DataStream, FrameReader, Piece, SessionMessage, data_header,
};
use holdfast_protocol::ids::{Login, SessionId, UserName};
use holdfast_protocol::limits::MAX_DATA_FRAME;
use holdfast_protocol::session::{RelayEvent, RelaySession};
use holdfast_protocol::wire::{Exit, Open, Pty, SessionRefusal, WindowSize, Work};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

/// No test takes so long unless it hangs.
const TOO_LONG: Duration = Duration::from_secs(60);

/// Runs a test on the agent's executor.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let hangs = async {
        smol::Timer::after(TOO_LONG).await;
        panic!("the test hangs");
    };
    runtime::run(test.or(hangs));
}

/// A device and a relay that are connected.
pub(crate) struct Pair {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) relay: quinn::Connection,
    _endpoints: [quinn::Endpoint; 2],
}

impl Pair {
    pub(crate) async fn new() -> Self {
        Self::with(config()).await
    }

    pub(crate) async fn with(config: SessionConfig) -> Self {
        let (server, client) = endpoints();
        let address = server.local_addr().unwrap();
        let dialled = client.connect(address, "relay").unwrap();
        let accepted = async { server.accept().await.unwrap().await.unwrap() };
        let (device, relay) = futures_lite::future::zip(dialled, accepted).await;
        let (device, sessions) = (device.unwrap(), Sessions::new(config));
        let serving = Arc::clone(&sessions);
        runtime::spawn(async move {
            while let Ok((send, recv)) = device.accept_bi().await {
                runtime::spawn(Arc::clone(&serving).serve(send, recv)).detach();
            }
        })
        .detach();
        Self {
            sessions,
            relay,
            _endpoints: [server, client],
        }
    }

    /// Opens a stream and says `open` on it.
    pub(crate) async fn open(&self, open: Open) -> Client {
        let (send, recv) = self.relay.open_bi().await.unwrap();
        let mut client = Client {
            send,
            recv,
            reader: FrameReader::default(),
            session: RelaySession::default(),
            unread: Vec::new(),
        };
        client.say(SessionMessage::Open(open)).await;
        client
    }

    /// Runs a command without input to its end.
    pub(crate) async fn exec(&self, command: &str) -> Outcome {
        let mut client = self.open(exec(command)).await;
        client.say(SessionMessage::Eof).await;
        client.outcome().await
    }

    /// Resolves when `count` sessions live.
    pub(crate) async fn live(&self, count: u32) {
        loop {
            let changed = self.sessions.changed();
            if self.sessions.live() == count {
                return;
            }
            changed.await;
        }
    }
}

/// The operator's side of one session.
pub(crate) struct Client {
    pub(crate) send: quinn::SendStream,
    pub(crate) recv: quinn::RecvStream,
    reader: FrameReader,
    session: RelaySession,
    unread: Vec<u8>,
}

/// What came from the device.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Accepted,
    Refused(SessionRefusal),
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    OutputEnded,
    Exited(Exit),
    /// The stream ended in good order.
    Finished,
}

/// All that came from the device.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) refused: Option<SessionRefusal>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) exit: Option<Exit>,
}

impl Outcome {
    pub(crate) fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub(crate) fn stderr(&self) -> &str {
        std::str::from_utf8(&self.stderr).unwrap()
    }
}

impl Client {
    pub(crate) async fn say(&mut self, message: SessionMessage) {
        self.send
            .write_all(&message.encode().unwrap())
            .await
            .unwrap();
    }

    pub(crate) async fn write(&mut self, data: &[u8]) {
        for part in data.chunks(MAX_DATA_FRAME) {
            self.send
                .write_all(&data_header(DataStream::Stdin, part.len()))
                .await
                .unwrap();
            self.send.write_all(part).await.unwrap();
        }
    }

    /// The next thing that the device says.
    pub(crate) async fn hear(&mut self) -> Heard {
        loop {
            let mut input = self.unread.as_slice();
            let piece = self.reader.read(&mut input).unwrap();
            let heard = piece.map(|piece| match piece {
                Piece::Data(stream, data) => {
                    self.session.handle_data(stream).unwrap();
                    match stream {
                        DataStream::Stdout => Heard::Stdout(data.to_vec()),
                        _ => Heard::Stderr(data.to_vec()),
                    }
                }
                Piece::Message(message) => match self.session.handle_message(message).unwrap() {
                    RelayEvent::Accepted => Heard::Accepted,
                    RelayEvent::Refused(why) => Heard::Refused(why),
                    RelayEvent::OutputEnded => Heard::OutputEnded,
                    RelayEvent::Exited(exit) => Heard::Exited(exit),
                },
            });
            let used = self.unread.len() - input.len();
            self.unread.drain(..used);
            if let Some(heard) = heard {
                return heard;
            }
            match self.recv.read_chunk(1 << 20, true).await.unwrap() {
                Some(chunk) => self.unread = chunk.bytes.into(),
                None => {
                    assert!(self.reader.is_between_frames());
                    return Heard::Finished;
                }
            }
        }
    }

    /// Hears everything to the end.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            match self.hear().await {
                Heard::Accepted | Heard::OutputEnded => {}
                Heard::Refused(why) => outcome.refused = Some(why),
                Heard::Stdout(data) => outcome.stdout.extend(data),
                Heard::Stderr(data) => outcome.stderr.extend(data),
                Heard::Exited(exit) => outcome.exit = Some(exit),
                Heard::Finished => return outcome,
            }
        }
    }

    /// Hears output until it holds `wanted`, and returns all of it.
    pub(crate) async fn until(&mut self, wanted: &str) -> String {
        let mut text = String::new();
        while !text.contains(wanted) {
            match self.hear().await {
                Heard::Accepted => {}
                Heard::Stdout(data) | Heard::Stderr(data) => {
                    text.push_str(&String::from_utf8_lossy(&data));
                }
                other => panic!("{other:?} after {text:?}, without {wanted:?}"),
            }
        }
        text
    }
}

/// The agent that was built with this test, as the helper.
pub(crate) fn config() -> SessionConfig {
    SessionConfig {
        program: PathBuf::from(env!("CARGO_BIN_EXE_edge-agent")),
        ..SessionConfig::default()
    }
}

/// The account that runs the test.
pub(crate) fn own_login() -> Login {
    let id = std::process::Command::new("id")
        .arg("-un")
        .output()
        .unwrap();
    Login::new(String::from_utf8(id.stdout).unwrap().trim()).unwrap()
}

pub(crate) fn open(work: Work) -> Open {
    Open {
        session: SessionId([7; 16]),
        user: UserName::new("alice").unwrap(),
        login: own_login(),
        work,
        pty: None,
        env: vec![],
        client: "203.0.113.9:50000".parse().unwrap(),
        server: "192.0.2.1:2222".parse().unwrap(),
    }
}

pub(crate) fn exec(command: &str) -> Open {
    open(Work::Exec(command.into()))
}

pub(crate) fn with_pty(open: Open) -> Open {
    let size = WindowSize::clamped(91, 27, 910, 540);
    // Echo is off: what a test reads is what the process wrote.
    let modes = vec![(53, 0), (72, 0)];
    Open {
        pty: Some(Pty {
            term: "xterm-256color".to_owned(),
            size,
            modes,
        }),
        ..open
    }
}

fn endpoints() -> (quinn::Endpoint, quinn::Endpoint) {
    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key =
        rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(TEST_KEY)).unwrap();
    let public = CertificateDer::from(key.public_key().unwrap().to_vec());
    let key = Arc::new(rustls::sign::CertifiedKey::new(vec![public], key));
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(
            rustls::server::AlwaysResolvesServerRawPublicKeys::new(key),
        ));
    let server =
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).unwrap()));
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey))
        .with_no_client_auth();
    let client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).unwrap()));
    let server = quinn::Endpoint::server(server, any).unwrap();
    let mut dialler = quinn::Endpoint::client(any).unwrap();
    dialler.set_default_client_config(client);
    (server, dialler)
}

/// A key of RFC 8410, section 10.3: known to everybody, so good for tests only.
const TEST_KEY: &[u8] = &[
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    0xd4, 0xee, 0x72, 0xdb, 0xf9, 0x13, 0x58, 0x4a, 0xd5, 0xb6, 0xd8, 0xf1, 0xf7, 0x69, 0xf8, 0xad,
    0x3a, 0xfe, 0x7c, 0x28, 0xcb, 0xf1, 0xd4, 0xfb, 0xe0, 0x97, 0xa8, 0x8f, 0x44, 0x75, 0x58, 0x42,
];

/// Who a relay is has no part in these tests.
#[derive(Debug)]
struct AnyKey;

impl ServerCertVerifier for AnyKey {
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
