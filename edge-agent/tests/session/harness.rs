//! A relay of one test: it opens streams to [`AgentSessions`] over QUIC and speaks their frames.

pub(crate) mod device;
mod quic;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edge_agent::os::runtime;
use edge_agent::recording::{Recorder, RecorderConfig, RecordingDevice};
use edge_agent::session::{AgentSessions, SessionConfig};
use futures_lite::FutureExt as _;
use holdfast_protocol::codec::frame::{
    DataStream, FramePiece, FrameReader, SessionMessage, data_header,
};
use holdfast_protocol::ids::{DeviceId, DeviceName, SessionId, UserName};
use holdfast_protocol::limits::MAX_DATA_FRAME;
use holdfast_protocol::recording::seal::RecordingSecret;
use holdfast_protocol::session::{
    ForwardKind, ForwardReport, ProcessReport, RelayForward, RelayProcess, SessionViolation,
};
use holdfast_protocol::wire::{
    Exit, Incoming, Open, ProcessRequest, Pty, SessionRefusal, SessionRequest, SessionTerms,
    WindowSize,
};

use device::Device;

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
    pub(crate) device: Device,
    pub(crate) sessions: Arc<AgentSessions>,
    pub(crate) relay: quinn::Connection,
    /// The agent's end of the same connection.
    pub(crate) tunnel: quinn::Connection,
    _endpoints: [quinn::Endpoint; 2],
}

impl Pair {
    pub(crate) async fn new() -> Self {
        Self::with(Device::new(), |_| {}).await
    }

    pub(crate) async fn with(device: Device, change: impl Fn(&mut SessionConfig)) -> Self {
        Self::over(device, change, quinn::TransportConfig::default()).await
    }

    /// With recordings in a folder of the device, and as `config` says.
    pub(crate) async fn recorded(device: Device, config: impl Fn(&mut RecorderConfig)) -> Self {
        let recorder = recorder(&device, config);
        let transport = quinn::TransportConfig::default();
        Self::connect(device, |_| {}, transport, recorder).await
    }

    pub(crate) async fn over(
        device: Device,
        change: impl Fn(&mut SessionConfig),
        transport: quinn::TransportConfig,
    ) -> Self {
        let recorder = recorder(&device, |_| {});
        Self::connect(device, change, transport, recorder).await
    }

    async fn connect(
        device: Device,
        change: impl Fn(&mut SessionConfig),
        transport: quinn::TransportConfig,
        recorder: Arc<Recorder>,
    ) -> Self {
        let [server, client] = quic::endpoints(transport);
        let address = server.local_addr().unwrap();
        let dialled = client.connect(address, "relay").unwrap();
        let accepted = async { server.accept().await.unwrap().await.unwrap() };
        let (tunnel, relay) = futures_lite::future::zip(dialled, accepted).await;
        let tunnel = tunnel.unwrap();
        let mut config = device.config();
        change(&mut config);
        let sessions = AgentSessions::new(config, recorder);
        let serving = Arc::clone(&sessions);
        let accepting = tunnel.clone();
        runtime::spawn(async move {
            while let Ok((send, recv)) = accepting.accept_bi().await {
                runtime::spawn(Arc::clone(&serving).serve(send, recv)).detach();
            }
        })
        .detach();
        Self {
            device,
            sessions,
            relay,
            tunnel,
            _endpoints: [server, client],
        }
    }

    /// Opens a stream and says `open` on it.
    pub(crate) async fn open(&self, open: Open) -> Client {
        let (send, recv) = self.relay.open_bi().await.unwrap();
        let session = Machine::of(&open);
        let reader = FrameReader::default();
        let (voice, ear) = (
            Voice { send },
            EventReader {
                recv,
                reader,
                session,
                unread: Vec::new(),
            },
        );
        let mut client = Client { voice, ear };
        client.say(SessionMessage::Open(open)).await;
        client
    }

    /// Runs a command without input to its end.
    pub(crate) async fn exec(&self, command: &str) -> Outcome {
        self.to_end(exec(command)).await
    }

    /// Runs what `open` says, without input, to its end.
    pub(crate) async fn to_end(&self, open: Open) -> Outcome {
        let mut client = self.open(open).await;
        client.say(SessionMessage::Eof).await;
        client.outcome().await
    }

    /// Resolves when no forward is open.
    pub(crate) async fn no_forwards(&self) {
        loop {
            let changed = self.sessions.changed();
            if self.sessions.forwards() == 0 {
                return;
            }
            changed.await;
        }
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
    pub(crate) voice: Voice,
    pub(crate) ear: EventReader,
}

/// The writer of frames to the device.
pub(crate) struct Voice {
    pub(crate) send: quinn::SendStream,
}

/// The reader of frames from the device.
pub(crate) struct EventReader {
    pub(crate) recv: quinn::RecvStream,
    reader: FrameReader,
    session: Machine,
    unread: Vec<u8>,
}

/// The relay's machine of what was asked for.
enum Machine {
    Process(RelayProcess),
    Forward(RelayForward),
}

impl Machine {
    fn of(open: &Open) -> Self {
        match &open.request {
            SessionRequest::Process(_) => Self::Process(RelayProcess::new(open.terms.agent)),
            SessionRequest::Forward(request) => {
                Self::Forward(RelayForward::new(ForwardKind::of(request)))
            }
        }
    }

    fn handle_data(&mut self, stream: DataStream) -> Result<(), SessionViolation> {
        match self {
            Self::Process(process) => process.handle_data(stream),
            Self::Forward(forward) => forward.handle_data(stream),
        }
    }

    fn handle_message(&mut self, message: SessionMessage) -> Result<Heard, SessionViolation> {
        Ok(match self {
            Self::Process(process) => match process.handle_message(message)? {
                ProcessReport::Accepted => Heard::Accepted,
                ProcessReport::Refused(why) => Heard::Refused(why),
                ProcessReport::OutputEnded => Heard::OutputEnded,
                ProcessReport::Exited(exit) => Heard::Exited(exit),
                ProcessReport::Incoming(incoming) => Heard::Incoming(incoming),
                ProcessReport::Names(_) => Heard::Names,
            },
            Self::Forward(forward) => match forward.handle_message(message)? {
                ForwardReport::Accepted => Heard::Accepted,
                ForwardReport::Refused(why) => Heard::Refused(why),
                ForwardReport::OutputEnded => Heard::OutputEnded,
                ForwardReport::Exited(exit) => Heard::Exited(exit),
                ForwardReport::Address(address) => Heard::Address(address),
                ForwardReport::Incoming(incoming) => Heard::Incoming(incoming),
                ForwardReport::Names(_) => Heard::Names,
            },
        })
    }
}

/// A frame or event from the device.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Accepted,
    Refused(SessionRefusal),
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    OutputEnded,
    Exited(Exit),
    Address(SocketAddr),
    Incoming(Incoming),
    Names,
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
        self.voice.say(message).await;
    }

    pub(crate) async fn write(&mut self, data: &[u8]) {
        self.voice.write(data).await;
    }

    pub(crate) async fn hear(&mut self) -> Heard {
        self.ear.hear().await
    }

    pub(crate) async fn outcome(&mut self) -> Outcome {
        self.ear.outcome().await
    }

    /// Hears output, at least something, until it holds `wanted`, and returns all of it.
    pub(crate) async fn until(&mut self, wanted: &str) -> String {
        let mut text = String::new();
        while text.is_empty() || !text.contains(wanted) {
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

    /// Goes away as a relay does that has lost its client.
    pub(crate) fn vanish(mut self) {
        self.voice.send.reset(0_u32.into()).unwrap();
        self.ear.recv.stop(0_u32.into()).unwrap();
    }
}

impl Voice {
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
}

impl EventReader {
    /// The next thing that the device says.
    pub(crate) async fn hear(&mut self) -> Heard {
        loop {
            let mut input = self.unread.as_slice();
            let piece = self.reader.read(&mut input).unwrap();
            let heard = piece.map(|piece| match piece {
                FramePiece::Data(stream, data) => {
                    self.session.handle_data(stream).unwrap();
                    match stream {
                        DataStream::Stdout => Heard::Stdout(data.to_vec()),
                        _ => Heard::Stderr(data.to_vec()),
                    }
                }
                FramePiece::Message(message) => self.session.handle_message(message).unwrap(),
            });
            let used = self.unread.len() - input.len();
            self.unread.drain(..used);
            // Which they are depends on the accounts of the machine that runs the test.
            if let Some(heard) = heard.filter(|heard| *heard != Heard::Names) {
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
                Heard::Accepted
                | Heard::OutputEnded
                | Heard::Address(_)
                | Heard::Incoming(_)
                | Heard::Names => {}
                Heard::Refused(why) => outcome.refused = Some(why),
                Heard::Stdout(data) => outcome.stdout.extend(data),
                Heard::Stderr(data) => outcome.stderr.extend(data),
                Heard::Exited(exit) => outcome.exit = Some(exit),
                Heard::Finished => return outcome,
            }
        }
    }
}

/// Returns the key that opens the recordings of a test.
pub(crate) fn secret() -> RecordingSecret {
    RecordingSecret::from_seed(&[6; 32])
}

fn recorder(device: &Device, change: impl Fn(&mut RecorderConfig)) -> Arc<Recorder> {
    let mut config = RecorderConfig::new(device.path("spool"));
    change(&mut config);
    let device = RecordingDevice {
        id: DeviceId([4; 16]),
        name: DeviceName::new("kitchen-cam").unwrap(),
        key: Some(secret().public()),
    };
    Recorder::open(&config, device)
}

pub(crate) fn open(request: impl Into<SessionRequest>) -> Open {
    Open {
        session: SessionId([7; 16]),
        user: UserName::new("alice").unwrap(),
        login: device::login(),
        request: request.into(),
        pty: None,
        env: vec![],
        client: "203.0.113.9:50000".parse().unwrap(),
        server: "192.0.2.1:2222".parse().unwrap(),
        original_command: None,
        recording: None,
        terms: SessionTerms::default(),
        forward_log: None,
    }
}

pub(crate) fn exec(command: &str) -> Open {
    open(ProcessRequest::Exec(command.into()))
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
