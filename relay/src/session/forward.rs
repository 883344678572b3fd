//! A forward: a connection that the device dials, spliced with an operator's channel.
//!
//! It is decided on as a session is, stands on the board and in the audit log, and has no words of its own: what
//! there is to say is said when the channel is refused, never in the data.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::forward::PathPolicy;
use holdfast_protocol::ids::{DeviceName, Login, SessionId};
use holdfast_protocol::limits::{
    FORWARD_MINOR, MAX_FORWARD_HOST, MAX_SOCKET_PATH, PATH_MINOR, TERMS_MINOR,
};
use holdfast_protocol::wire::{
    Connect, Incoming, Listen, Open, SessionTerms, SocketPath, Take, Work,
};
use quinn::{RecvStream, SendStream, VarInt};
use russh::ChannelOpenFailure;
use russh::server::ChannelOpenHandle;
use thiserror::Error;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::live::{Ending, LiveGuard, LiveSession};
use super::patience;
use crate::access::decision::Authorized;
use crate::access::policy::Ability;
use crate::limits::START_TIMEOUT;
use crate::serve::Relay;
use crate::ssh::connection::Connection;
use crate::ssh::outlet::Outlet;
use crate::ssh::queue::InputReceiver;
use crate::tunnel::registry::Tunnel;

pub mod agent;
pub mod reverse;
mod splice;
pub mod told;

use splice::Splice;
use told::Told;

/// What an operator asks for.
pub struct Ask {
    /// The way there.
    pub through: Through,
    /// Where to.
    pub to: Destination,
    /// Opens the channel, or refuses it.
    pub reply: ChannelOpenHandle,
    /// From the operator.
    pub input: InputReceiver,
    /// To the operator.
    pub outlet: Outlet,
}

/// The way that a forward goes.
pub struct Through {
    /// On which connection.
    pub connection: Arc<Connection>,
    /// Under which account.
    pub login: Login,
    /// Through which device.
    pub device: DeviceName,
    /// The channels that the connection has besides.
    pub channels: u32,
}

/// Where a forward leads, or comes from.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Which of the two.
    pub direction: Direction,
    /// As the operator wrote it.
    pub place: Place,
    /// What the device has dialled or listens on, or who has come to it, as soon as it says so.
    pub address: Arc<OnceLock<SocketAddr>>,
}

/// A place on a device or beyond it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A TCP port of a host.
    Port(String, u16),
    /// A Unix socket.
    Path(String),
    /// The operator's SSH agent.
    Agent,
}

impl Place {
    /// What its use needs.
    const fn ability(&self) -> Ability {
        match self {
            Self::Port(..) | Self::Path(_) => Ability::Forward,
            Self::Agent => Ability::AgentForward,
        }
    }

    /// What stands for its host in the log.
    #[must_use]
    pub fn host(&self) -> &str {
        match self {
            Self::Port(host, _) => host,
            Self::Path(path) => path,
            Self::Agent => "ssh-agent",
        }
    }

    /// Its port; a Unix socket has none, and 0 stands for that.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Port(_, port) => *port,
            Self::Path(_) | Self::Agent => 0,
        }
    }
}

/// Which way a forward is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device dials.
    Out,
    /// The device listens.
    Listen,
    /// Somebody has come to where it listens.
    In {
        /// The session of the port.
        listener: SessionId,
        /// Which of its connections.
        number: u32,
        /// What the port is bound to; `None` of a Unix socket.
        bound: Option<SocketAddr>,
    },
}

impl Direction {
    /// Its word in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Listen => "listen",
            Self::In { .. } => "in",
        }
    }
}

/// How a forward ended.
#[derive(Debug, Error)]
pub enum ForwardEnd {
    /// Both ends have said all.
    #[error("closed")]
    Closed,
    /// Its target broke it off.
    #[error("the target broke the connection off")]
    BrokenOff,
    /// The operator's client broke it off.
    #[error("the client broke the connection off")]
    ClientGone,
    /// The relay ended it.
    #[error("{}", .0.why)]
    Told(Ending),
    /// A rule forbids it.
    #[error("{0}")]
    Prohibited(String),
    /// The device could not make it.
    #[error("{0}")]
    Failed(String),
    /// The tunnel is gone.
    #[error("the device was lost: {0}")]
    DeviceLost(String),
    /// The device said what it may not.
    #[error("the device broke the protocol: {0}")]
    Protocol(String),
}

impl Destination {
    /// From what a client asks for; an error is a sentence for it.
    ///
    /// # Errors
    /// It is no address of a TCP port.
    pub fn new(host: &str, port: u32) -> Result<Self, String> {
        let number = u16::try_from(port).ok().filter(|port| *port != 0);
        let port = number.ok_or_else(|| format!("there is no port {port}"))?;
        Self::with(Direction::Out, host, port)
    }

    /// A port of the device; 0 is any that is free.
    ///
    /// # Errors
    /// The host is longer than any.
    pub fn listening(host: &str, port: u16) -> Result<Self, String> {
        Self::with(Direction::Listen, host, port)
    }

    /// A connection that has come to this port, which `listener` has.
    fn coming(&self, listener: SessionId, Incoming { number, peer }: Incoming) -> Option<Self> {
        let (place, bound, address) = match &self.place {
            Place::Port(host, _) => {
                let bound = *self.address.get()?;
                let place = Place::Port(host.clone(), bound.port());
                (place, Some(bound), OnceLock::from(peer))
            }
            Place::Path(_) | Place::Agent => (self.place.clone(), None, OnceLock::new()),
        };
        let direction = Direction::In {
            listener,
            number,
            bound,
        };
        Some(Self {
            direction,
            place,
            address: Arc::new(address),
        })
    }

    /// A Unix socket of the device: one that is there, or one to listen on.
    ///
    /// # Errors
    /// It is no path that a socket can have.
    pub fn path(direction: Direction, path: &str) -> Result<Self, String> {
        if !path.starts_with('/') || path.contains('\0') || path.len() > MAX_SOCKET_PATH {
            return Err(format!(
                "a Unix socket is named by an absolute path of at most {MAX_SOCKET_PATH} bytes"
            ));
        }
        Ok(Self {
            direction,
            place: Place::Path(path.to_owned()),
            address: Arc::default(),
        })
    }

    fn with(direction: Direction, host: &str, port: u16) -> Result<Self, String> {
        if host.len() > MAX_FORWARD_HOST {
            return Err(format!("a host has at most {MAX_FORWARD_HOST} bytes"));
        }
        Ok(Self {
            direction,
            place: Place::Port(host.to_owned(), port),
            address: Arc::default(),
        })
    }

    /// What the device is asked for.
    fn work(&self, authorized: &Authorized) -> Work {
        match (self.direction, self.place.clone()) {
            // Whoever made it gave no such direction.
            (Direction::Out | Direction::Listen, Place::Agent) => Work::ConnectPath(SocketPath {
                path: String::new(),
                policy: PathPolicy {
                    allow: Some(Vec::new()),
                },
            }),
            (Direction::Out, Place::Port(host, port)) => Work::Connect(Connect {
                host,
                port,
                policy: authorized.may_connect(),
            }),
            (Direction::Listen, Place::Port(host, port)) => Work::Listen(Listen {
                host,
                port,
                policy: authorized.may_listen(),
            }),
            (Direction::Out, Place::Path(path)) => Work::ConnectPath(SocketPath {
                path,
                policy: authorized.may_connect_paths(),
            }),
            (Direction::Listen, Place::Path(path)) => Work::ListenPath(SocketPath {
                path,
                policy: authorized.may_listen_paths(),
            }),
            (
                Direction::In {
                    listener, number, ..
                },
                _,
            ) => Work::Take(Take { listener, number }),
        }
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Port(host, port) if host.contains(':') => {
                write!(f, "[{}]:{port}", Escaped(host))
            }
            Place::Port(host, port) => write!(f, "{}:{port}", Escaped(host)),
            place @ (Place::Path(_) | Place::Agent) => write!(f, "{}", Escaped(place.host())),
        }
    }
}

/// A forward that was admitted.
struct Begun {
    live: LiveGuard,
    open: Open,
    tunnel: Arc<Tunnel>,
    /// The version of access that it was decided on.
    version: i64,
    /// Where it is recorded.
    told: Told,
}

/// The two halves of a stream to a device, from the moment that there is one.
type Wire = Option<(SendStream, RecvStream)>;

impl Relay {
    /// Serves a forward to its end, or says why there is none.
    pub async fn forward(self: &Arc<Self>, ask: Ask) {
        let Ask {
            through,
            to,
            reply,
            input,
            outlet,
        } = ask;
        match self.admit_forward(&through, &to).await {
            Ok(begun) => {
                let connection = &through.connection;
                self.carry_on(begun, connection, &to, Some(reply), input, outlet)
                    .await;
            }
            Err(sentence) => {
                let (connection, place) = (&through.connection, &to.place);
                let report = &self.report;
                report.forward_refused(connection, place, &sentence).await;
                reply.reject(prohibited(sentence)).await;
            }
        }
    }

    /// Serves a forward that was admitted. With a `reply` its channel is opened when the device has dialled; without,
    /// it stands.
    async fn carry_on(
        &self,
        begun: Begun,
        connection: &Connection,
        to: &Destination,
        reply: Option<ChannelOpenHandle>,
        mut input: InputReceiver,
        outlet: Outlet,
    ) {
        let Begun {
            mut live,
            open,
            tunnel,
            version,
            told,
        } = begun;
        let _count = tunnel.count_forward();
        let session = live.session().clone();
        let mut wire = None;
        let mut splice = Splice {
            relay: self,
            connection,
            session: &session,
            to,
            version,
            telling: told.telling(),
            reply,
            opened: CancellationToken::new(),
            outlet: &outlet,
        };
        let end = tokio::select! {
            // As with a session: who was told to end before the beginning asks nothing of the device.
            biased;
            ending = live.told_to_end() => ForwardEnd::Told(ending),
            end = told.cut() => end,
            end = carry(&mut wire, open, &tunnel, &mut input, &mut splice) => end,
            ending = patience::idle(&session, None) => ForwardEnd::Told(ending),
        };
        let (opened, reply) = (splice.opened.is_cancelled(), splice.reply.take());
        if let Some((send, receive)) = wire {
            leave(&end, send, receive);
        }
        live.set_apart();
        told.note(&end);
        self.report.forward_end(&session, to, opened, &end).await;
        drop(live);
        match reply {
            Some(reply) => reply.reject(failure(&end)).await,
            None => outlet.close().await,
        }
    }

    /// Decides whether a forward may be, and puts it onto the board.
    async fn admit_forward(
        self: &Arc<Self>,
        through: &Through,
        to: &Destination,
    ) -> Result<Begun, String> {
        let Through {
            connection,
            login,
            device,
            channels,
        } = through;
        self.report.admits()?;
        let (principal, _) = connection.principal().ok_or("nobody has logged in")?;
        let (grant, ability) = (principal.proof.grant(), to.place.ability());
        let permitted = match to.place {
            Place::Agent => grant.agent_forwarding,
            Place::Port(..) | Place::Path(_) => grant.port_forwarding,
        };
        if !permitted {
            let what = ability.noun();
            return Err(format!("your certificate does not permit {what}"));
        }
        let way = self.find_way(connection, login, device, *channels).await?;
        let authorized = way.authorize(login, ability)?;
        let bounded = authorized.may_connect().is_bounded()
            && authorized.may_listen().is_bounded()
            && authorized.may_connect_paths().is_bounded()
            && authorized.may_listen_paths().is_bounded();
        if !bounded {
            return Err(format!(
                "the roles of user \"{}\" name more addresses or paths between them than a forward can carry: tell an admin",
                authorized.user().name
            ));
        }
        let (needs, what) = match to.place {
            Place::Port(..) => (FORWARD_MINOR, "forward"),
            Place::Path(_) => (PATH_MINOR, "forward Unix sockets"),
            Place::Agent => (TERMS_MINOR, "forward SSH agents"),
        };
        if way.tunnel.minor < needs {
            return Err(format!(
                "the agent on {} is too old to {what}: update it",
                authorized.device().name
            ));
        }
        let open = Open {
            session: Self::new_session_id()?,
            user: authorized.user().name.clone(),
            login: login.clone(),
            work: to.work(&authorized),
            pty: None,
            env: Vec::new(),
            client: connection.client,
            server: connection.server,
            original_command: None,
            recording: None,
            terms: SessionTerms::default(),
            told: None,
        };
        // First onto the board, then the check.
        let live = self.enter_forward(&open, authorized, &way.tunnel, principal, to);
        self.check(connection, live.session(), way.version).await?;
        let told = self.tell_forward(connection, live.session(), &way.tunnel);
        let told = told.await?;
        let open = Open {
            told: told.told_in(),
            ..open
        };
        Ok(Begun {
            live,
            told,
            open,
            tunnel: way.tunnel,
            version: way.version,
        })
    }
}

/// Opens the stream and moves bytes both ways until it is over. The stream stays in `wire`.
async fn carry(
    wire: &mut Wire,
    open: Open,
    tunnel: &Tunnel,
    input: &mut InputReceiver,
    splice: &mut Splice<'_>,
) -> ForwardEnd {
    let Ok(frame) = SessionMessage::Open(open).encode() else {
        return ForwardEnd::Prohibited("the request is longer than the device takes".into());
    };
    let streams = match timeout(START_TIMEOUT, tunnel.connection.open_bi()).await {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => return ForwardEnd::DeviceLost(error.to_string()),
        Err(_) => {
            return ForwardEnd::Failed("the device bears no more forwards on this tunnel".into());
        }
    };
    let (send, receive) = wire.insert(streams);
    if let Err(error) = send.write_chunk(frame.into()).await {
        return ForwardEnd::DeviceLost(error.to_string());
    }
    splice.run(send, receive, input, tunnel).await
}

/// Leaves the stream so that the device knows: finished after an exit, reset in every other case, which makes
/// the device break its connection off.
fn leave(end: &ForwardEnd, mut send: SendStream, mut receive: RecvStream) {
    match end {
        ForwardEnd::Closed | ForwardEnd::BrokenOff | ForwardEnd::Failed(_) => {
            let _ = send.finish();
        }
        _ => {
            let _ = send.reset(VarInt::from_u32(0));
            let _ = receive.stop(VarInt::from_u32(0));
        }
    }
}

/// What a client hears whose channel is not opened.
fn failure(end: &ForwardEnd) -> ChannelOpenFailure {
    match end {
        ForwardEnd::Prohibited(sentence) => prohibited(sentence.clone()),
        ForwardEnd::Told(ending) => prohibited(ending.why.clone()),
        // RFC 4254 section 5.1: SSH_OPEN_CONNECT_FAILED.
        other => ChannelOpenFailure::Other {
            code: 2,
            reason: other.to_string(),
        },
    }
}

/// RFC 4254 section 5.1: `SSH_OPEN_ADMINISTRATIVELY_PROHIBITED`, with a sentence of ours as description.
#[must_use]
pub fn prohibited(reason: String) -> ChannelOpenFailure {
    ChannelOpenFailure::Other { code: 1, reason }
}

impl LiveSession {
    /// Whether where a forward leads is still where it may lead, by what is allowed now.
    #[must_use]
    pub fn may_still_lead(&self, now: &Authorized) -> bool {
        let Some(to) = &self.destination else {
            return true;
        };
        let (known, began) = (to.address.get(), &self.authorized);
        match (to.direction, &to.place) {
            (Direction::Out, Place::Port(host, _)) => {
                known.is_none_or(|address| now.may_connect().permits(host, *address))
            }
            (Direction::Listen, Place::Port(host, _)) => {
                known.is_none_or(|bound| now.may_listen().permits_listening(host, *bound))
            }
            (Direction::In { bound, .. }, Place::Port(host, _)) => {
                bound.is_none_or(|bound| now.may_listen().permits_listening(host, bound))
            }
            // What a path really is, the device alone knows: it goes on under the same rules.
            (Direction::Out, Place::Path(_)) => {
                now.may_connect_paths() == began.may_connect_paths()
            }
            (Direction::Listen | Direction::In { .. }, Place::Path(_)) => {
                now.may_listen_paths() == began.may_listen_paths()
            }
            (_, Place::Agent) => true,
        }
    }
}
