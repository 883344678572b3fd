//! A device: it joins, keeps a tunnel and serves sessions as an agent does, except where its case lies.

pub mod forwards;
pub mod session;
pub mod tape;
pub mod tls;

mod honest;
mod upload;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edge_agent::os::state::StateDir;
use edge_agent::tunnel::identity::Identity;
use edge_agent::tunnel::membership::Membership;
use holdfast_protocol::codec::control::{self, ControlMessage, ControlReader};
use holdfast_protocol::limits::MINOR_VERSION;
use holdfast_protocol::wire::{AgentMessage, Beat, Hello, Intent, Open, RelayMessage, Welcome};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use self::forwards::ForwardLogs;
pub use self::honest::{GREETING, serve};
pub use self::session::{HeardFrames, HostileSession};
pub use self::tape::{Sealed, Tape};
use crate::{Outcome, check_target};

/// The time that the relay may take for what it does at once.
pub const SOON: Duration = Duration::from_secs(20);

/// The interval of the device's beats: short enough for any keepalive.
const BEAT: Duration = Duration::from_secs(5);

/// The run of a case, as a future.
pub type HostileRun = Pin<Box<dyn Future<Output = Result<Outcome>> + Send>>;

/// One misbehaviour of a device.
#[derive(Debug)]
pub struct DeviceCase {
    /// Its name on the command line.
    pub name: &'static str,
    /// One sentence.
    pub what: &'static str,
    /// The place of its lie.
    pub lie: Lie,
}

/// The place of a device's lie.
#[derive(Debug)]
pub enum Lie {
    /// Nowhere: every session is served in good order until the relay closes the tunnel.
    Never,
    /// Before its tunnel is established.
    Door(fn(Arc<Door>) -> HostileRun),
    /// On its tunnel, beside whatever sessions there are.
    Tunnel(fn(Arc<HostileDevice>) -> HostileRun),
    /// In the first session for which `on` holds; all others are served in good order.
    Session {
        /// Returns whether this is such a session.
        on: fn(&Open) -> bool,
        /// Its behaviour in such a session.
        play: fn(Arc<HostileDevice>, HostileSession) -> HostileRun,
    },
}

/// The options of a device's run.
#[derive(Clone, Debug)]
pub struct DeviceRun {
    /// Its state folder.
    pub state: PathBuf,
    /// The relay, if it is not the first one on the roster.
    pub relay: Option<SocketAddr>,
    /// The number of times that it misbehaves.
    pub count: u32,
    /// The time that the relay's reaction is waited for.
    pub within: Duration,
}

/// The data of a device before it has a tunnel.
pub struct Door {
    /// The options of its run.
    pub run: DeviceRun,
    /// The relay's address.
    pub relay: SocketAddr,
    /// Its key.
    pub identity: Identity,
    /// Its membership.
    pub membership: Membership,
}

/// A device with a tunnel.
pub struct HostileDevice {
    /// Its identity.
    pub door: Arc<Door>,
    /// Its tunnel.
    pub connection: Connection,
    /// The relay's welcome.
    pub welcome: Welcome,
    /// Its half of the control stream.
    pub control: Mutex<SendStream>,
    /// The recorded forwards that it has seen.
    pub forwards: ForwardLogs,
    _endpoint: Endpoint,
}

/// A stream of control messages, from our side.
pub struct ControlStream<T> {
    /// To the relay.
    pub send: SendStream,
    receive: RecvStream,
    reader: ControlReader<T>,
    rest: Vec<u8>,
}

/// Plays a case to its end.
///
/// # Errors
/// The case, the state folder or the address is unusable.
pub async fn play(case: &DeviceCase, run: DeviceRun) -> Result<Outcome> {
    let door = Arc::new(Door::open(run)?);
    match &case.lie {
        Lie::Door(play) => play(door).await,
        Lie::Tunnel(play) => {
            let device = HostileDevice::stand(door).await?;
            let serving = tokio::spawn(serve_all(device.clone()));
            let outcome = play(device).await;
            serving.abort();
            outcome
        }
        Lie::Never => {
            let device = HostileDevice::stand(door).await?;
            Ok(Outcome::Done(serve_all(device).await.to_string()))
        }
        Lie::Session { on, play } => {
            let device = HostileDevice::stand(door).await?;
            loop {
                let session = match device.accept().await {
                    Ok(session) => session,
                    Err(closed) => return Ok(Outcome::Refused(closed.to_string())),
                };
                if on(&session.open) {
                    let lying = play(device.clone(), session);
                    let serving = tokio::spawn(serve_all(device.clone()));
                    let outcome = lying.await;
                    serving.abort();
                    return outcome;
                }
                let _detached = tokio::spawn(honest::serve(device.clone(), session));
            }
        }
    }
}

/// Serves every session in good order, until the tunnel is lost.
pub async fn serve_all(device: Arc<HostileDevice>) -> ConnectionError {
    loop {
        match device.accept().await {
            Ok(session) => drop(tokio::spawn(honest::serve(device.clone(), session))),
            Err(closed) => return closed,
        }
    }
}

impl Door {
    /// Reads a state folder.
    ///
    /// # Errors
    /// It is none that `edge-agent join` made, or names a relay that is not near.
    pub fn open(run: DeviceRun) -> Result<Self> {
        let state = existing(&run.state)?;
        let identity = Identity::load(&state)?;
        let identity = identity.with_context(|| not_joined(&run.state))?;
        let membership = Membership::load(&state)?.with_context(|| not_joined(&run.state))?;
        let relay = match run.relay {
            Some(relay) => relay,
            None => {
                let first = membership.roster().relays.first();
                let named = first.map(|relay| relay.address.clone()).unwrap_or_default();
                std::net::ToSocketAddrs::to_socket_addrs(&named)
                    .ok()
                    .and_then(|mut found| found.next())
                    .with_context(|| format!("cannot find the relay's address {named:?}"))?
            }
        };
        check_target(relay)?;
        Ok(Self {
            run,
            relay,
            identity,
            membership,
        })
    }

    /// Connects with the device's key.
    ///
    /// # Errors
    /// The handshake failed.
    pub async fn dial(&self) -> Result<(Endpoint, Connection)> {
        let key = self.identity.certified_key(&tls::provider())?;
        tls::dial(self.relay, Some(key)).await
    }

    /// A `Hello` as an agent says it.
    #[must_use]
    pub fn hello(&self, intent: Intent) -> Hello {
        Hello {
            minor: MINOR_VERSION,
            intent,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            target: "hostile".to_owned(),
            keepalive_secs: 25,
            clock: tape::wall_clock() / 1_000_000,
            local_address: None,
        }
    }
}

fn existing(path: &Path) -> Result<StateDir> {
    if !path.is_dir() {
        bail!("{}", not_joined(path));
    }
    Ok(StateDir::create_or_open(path)?)
}

fn not_joined(path: &Path) -> String {
    let path = path.display();
    format!(
        "{path} is not a state folder that joined: run `edge-agent join TOKEN --state {path}` first"
    )
}

impl HostileDevice {
    /// Keeps a tunnel.
    ///
    /// # Errors
    /// The relay does not welcome it.
    pub async fn stand(door: Arc<Door>) -> Result<Arc<Self>> {
        let (endpoint, connection) = door.dial().await?;
        let mut stream = ControlStream::open(&connection).await?;
        stream
            .say(&AgentMessage::Hello(door.hello(Intent::Run)))
            .await?;
        let welcome = match stream.next().await {
            Some(RelayMessage::Welcome(welcome)) => welcome,
            Some(other) => bail!("the relay answered {other:?} instead of a welcome"),
            None => bail!("the relay closed the connection instead of a welcome"),
        };
        let ControlStream {
            send,
            receive,
            reader,
            rest,
        } = stream;
        let device = Arc::new(Self {
            door,
            connection,
            welcome,
            control: Mutex::new(send),
            forwards: ForwardLogs::default(),
            _endpoint: endpoint,
        });
        let _detached = tokio::spawn(beat(Arc::downgrade(&device)));
        let _detached = tokio::spawn(read_on(receive, reader, rest));
        println!("online as {}", device.name());
        Ok(device)
    }

    /// Its name in the fleet.
    #[must_use]
    pub fn name(&self) -> &str {
        self.welcome.membership.name.as_str()
    }

    /// Returns the number of times that the case misbehaves.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.door.run.count
    }

    /// The next session that the relay opens.
    ///
    /// # Errors
    /// The tunnel is gone.
    pub async fn accept(&self) -> Result<HostileSession, ConnectionError> {
        loop {
            let (send, receive) = self.connection.accept_bi().await?;
            if let Some(session) = HostileSession::begin(send, receive).await {
                return Ok(session);
            }
        }
    }

    /// Says something on the control stream.
    ///
    /// # Errors
    /// The relay does not take it.
    pub async fn say(&self, message: &AgentMessage) -> Result<()> {
        let bytes = control::encode(message)?;
        self.control.lock().await.write_all(&bytes).await?;
        Ok(())
    }

    /// Sends bytes on the control stream.
    ///
    /// # Errors
    /// The relay does not take them.
    pub async fn write(&self, bytes: &[u8]) -> Result<()> {
        self.control.lock().await.write_all(bytes).await?;
        Ok(())
    }

    /// Returns what becomes of the tunnel: refused if the relay closes it in time.
    pub async fn verdict(&self, what: &str) -> Outcome {
        match timeout(self.door.run.within, self.connection.closed()).await {
            Ok(closed) => Outcome::Refused(closed.to_string()),
            Err(_) => Outcome::Done(format!("{what}; the tunnel is still open")),
        }
    }
}

async fn beat(device: std::sync::Weak<HostileDevice>) {
    while let Some(device) = device.upgrade() {
        let beat = AgentMessage::Beat(Beat { echo: false });
        if device.say(&beat).await.is_err() {
            return;
        }
        drop(device);
        sleep(BEAT).await;
    }
}

/// Reads what the relay says, so that its window never fills.
async fn read_on(receive: RecvStream, mut reader: ControlReader<RelayMessage>, mut rest: Vec<u8>) {
    let mut receive = receive;
    while next_message(&mut receive, &mut reader, &mut rest)
        .await
        .is_some()
    {}
}

impl<T: ControlMessage> ControlStream<T> {
    /// Opens one more stream of control messages.
    ///
    /// # Errors
    /// The connection is gone, or the relay allows no more streams.
    pub async fn open(connection: &Connection) -> Result<Self> {
        let opened = timeout(SOON, connection.open_bi()).await;
        let (send, receive) = opened.context("the relay allows no more streams")??;
        Ok(Self {
            send,
            receive,
            reader: ControlReader::default(),
            rest: vec![],
        })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The relay does not take it.
    pub async fn say<M: ControlMessage>(&mut self, message: &M) -> Result<()> {
        self.send.write_all(&control::encode(message)?).await?;
        Ok(())
    }

    /// Returns what the relay says; `None`: nothing more.
    pub async fn next(&mut self) -> Option<T> {
        next_message(&mut self.receive, &mut self.reader, &mut self.rest).await
    }

    /// Its two halves, for a case that writes and reads at once.
    #[must_use]
    pub fn split(self) -> (SendStream, Answers<T>) {
        let answers = Answers {
            receive: self.receive,
            reader: self.reader,
            rest: self.rest,
        };
        (self.send, answers)
    }
}

/// The relay's half of a stream of control messages.
pub struct Answers<T> {
    receive: RecvStream,
    reader: ControlReader<T>,
    rest: Vec<u8>,
}

impl<T: ControlMessage> Answers<T> {
    /// Returns what the relay says; `None`: nothing more.
    pub async fn next(&mut self) -> Option<T> {
        next_message(&mut self.receive, &mut self.reader, &mut self.rest).await
    }
}

async fn next_message<T: ControlMessage>(
    receive: &mut RecvStream,
    reader: &mut ControlReader<T>,
    rest: &mut Vec<u8>,
) -> Option<T> {
    loop {
        let mut input = rest.as_slice();
        let message = reader.read(&mut input).ok()?;
        let used = rest.len() - input.len();
        rest.drain(..used);
        if message.is_some() {
            return message;
        }
        let chunk = receive.read_chunk(4096, true).await.ok()??;
        rest.extend_from_slice(&chunk.bytes);
    }
}
