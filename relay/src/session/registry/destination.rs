//! The destination of a forward: as it is asked for, as the device is asked for it, and whether that may still be.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::forward::PathPolicy;
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::limits::{MAX_FORWARD_HOST, MAX_SOCKET_PATH};
use holdfast_protocol::recording::chain::SeenForward;
use holdfast_protocol::recording::record::{ForwardDirection, SSH_AGENT};
use holdfast_protocol::wire::{Connect, ForwardRequest, Incoming, Listen, SocketPath, Take};

use crate::access::decision::Authorized;
use crate::access::policy::Ability;
use crate::session::refusal::Refusal;
use crate::session::registry::LiveSession;

/// The destination or origin of a forward.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    /// The direction.
    pub direction: Direction,
    /// The endpoint, as the operator wrote it.
    pub place: Endpoint,
    /// The address that the device has dialled or listens on, or of the peer that has come to it, as soon as it says
    /// so.
    pub address: Arc<OnceLock<SocketAddr>>,
}

/// A place on a device or beyond it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    /// A TCP port of a host.
    Port(String, u16),
    /// A Unix socket.
    Path(String),
    /// The operator's SSH agent.
    Agent,
}

impl Endpoint {
    /// Returns the ability that its use needs.
    pub(in crate::session) const fn ability(&self) -> Ability {
        match self {
            Self::Port(..) | Self::Path(_) => Ability::Forward,
            Self::Agent => Ability::AgentForward,
        }
    }

    /// Returns the text for its host in the log.
    #[must_use]
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Port(host, _) => host,
            Self::Path(path) => path,
            Self::Agent => SSH_AGENT,
        }
    }

    /// Returns what a recording says of it.
    fn recorded(&self) -> String {
        match self {
            Self::Port(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Self::Port(host, port) => format!("{host}:{port}"),
            Self::Path(_) | Self::Agent => self.host().to_owned(),
        }
    }

    /// Returns its port; a Unix socket has none, and 0 is in its place.
    #[must_use]
    pub(crate) const fn port(&self) -> u16 {
        match self {
            Self::Port(_, port) => *port,
            Self::Path(_) | Self::Agent => 0,
        }
    }
}

/// The direction of a forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The device dials.
    Out,
    /// The device listens.
    Listen,
    /// A peer has come to where the device listens.
    In {
        /// The session of the port.
        listener: SessionId,
        /// The number of the connection.
        number: u32,
        /// The address that the port is bound to; `None` of a Unix socket.
        bound: Option<SocketAddr>,
    },
}

impl Direction {
    /// Returns its word in the log.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Listen => "listen",
            Self::In { .. } => "in",
        }
    }
}

impl Destination {
    /// Returns whether a device announced it: a peer has come to where it listens.
    #[must_use]
    pub(crate) const fn is_arrival(&self) -> bool {
        matches!(self.direction, Direction::In { .. })
    }

    /// Creates the endpoint that a client asks for; an error is a sentence for it.
    ///
    /// # Errors
    /// It is no address of a TCP port.
    pub(crate) fn new(host: &str, port: u32) -> Result<Self, Refusal> {
        let number = u16::try_from(port).ok().filter(|port| *port != 0);
        let port = number.ok_or(Refusal::Port(port))?;
        Self::with(Direction::Out, host, port)
    }

    /// Creates a port of the device; 0 is any that is free.
    ///
    /// # Errors
    /// The host is longer than any.
    pub(crate) fn listening(host: &str, port: u16) -> Result<Self, Refusal> {
        Self::with(Direction::Listen, host, port)
    }

    /// Creates the destination of a connection that has come to this port, which `listener` has.
    pub(in crate::session) fn coming(
        &self,
        listener: SessionId,
        Incoming { number, peer }: Incoming,
    ) -> Option<Self> {
        let (place, bound, address) = match &self.place {
            Endpoint::Port(host, _) => {
                let bound = *self.address.get()?;
                let place = Endpoint::Port(host.clone(), bound.port());
                (place, Some(bound), OnceLock::from(peer))
            }
            Endpoint::Path(_) | Endpoint::Agent => (self.place.clone(), None, OnceLock::new()),
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

    /// Creates a Unix socket of the device: one that is there, or one to listen on.
    ///
    /// # Errors
    /// It is no path that a socket can have.
    pub(crate) fn path(direction: Direction, path: &str) -> Result<Self, Refusal> {
        if !path.starts_with('/') || path.contains('\0') || path.len() > MAX_SOCKET_PATH {
            return Err(Refusal::SocketPath);
        }
        Ok(Self {
            direction,
            place: Endpoint::Path(path.to_owned()),
            address: Arc::default(),
        })
    }

    fn with(direction: Direction, host: &str, port: u16) -> Result<Self, Refusal> {
        if host.len() > MAX_FORWARD_HOST {
            return Err(Refusal::Host);
        }
        Ok(Self {
            direction,
            place: Endpoint::Port(host.to_owned(), port),
            address: Arc::default(),
        })
    }

    /// Returns where it leads, as far as the relay knows what its recording says; nothing has passed.
    pub(in crate::session) fn recorded(&self) -> SeenForward {
        let is_port = matches!(self.place, Endpoint::Port(..));
        let (direction, has_come) = match self.direction {
            Direction::Out => (ForwardDirection::Out, false),
            Direction::Listen => (ForwardDirection::Listen, false),
            Direction::In { .. } => (ForwardDirection::In, true),
        };
        let address = self.address.get().copied().filter(|_| is_port);
        SeenForward {
            direction,
            // Of a port's addresses the device alone knows which one a connection came to.
            to: (!(is_port && has_come)).then(|| self.place.recorded()),
            from: address.filter(|_| has_come),
            address: address.filter(|_| !has_come),
            sent: 0,
            received: 0,
            opened: false,
            orderly: false,
        }
    }

    /// Returns what the device is asked for.
    pub(in crate::session) fn request(&self, authorized: &Authorized) -> ForwardRequest {
        match (self.direction, self.place.clone()) {
            // Its maker gave no such direction.
            (Direction::Out | Direction::Listen, Endpoint::Agent) => {
                ForwardRequest::ConnectPath(SocketPath {
                    path: String::new(),
                    policy: PathPolicy {
                        allow: Some(Vec::new()),
                    },
                })
            }
            (Direction::Out, Endpoint::Port(host, port)) => ForwardRequest::Connect(Connect {
                host,
                port,
                policy: authorized.may_connect(),
            }),
            (Direction::Listen, Endpoint::Port(host, port)) => ForwardRequest::Listen(Listen {
                host,
                port,
                policy: authorized.may_listen(),
            }),
            (Direction::Out, Endpoint::Path(path)) => ForwardRequest::ConnectPath(SocketPath {
                path,
                policy: authorized.may_connect_paths(),
            }),
            (Direction::Listen, Endpoint::Path(path)) => ForwardRequest::ListenPath(SocketPath {
                path,
                policy: authorized.may_listen_paths(),
            }),
            (
                Direction::In {
                    listener, number, ..
                },
                _,
            ) => ForwardRequest::Take(Take { listener, number }),
        }
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Endpoint::Port(host, port) if host.contains(':') => {
                write!(f, "[{}]:{port}", Escaped(host))
            }
            Endpoint::Port(host, port) => write!(f, "{}:{port}", Escaped(host)),
            place @ (Endpoint::Path(_) | Endpoint::Agent) => write!(f, "{}", Escaped(place.host())),
        }
    }
}

impl LiveSession {
    /// Returns whether where a forward leads is still where it may lead, by what is allowed now.
    #[must_use]
    pub(crate) fn may_still_lead(&self, now: &Authorized) -> bool {
        let Some(to) = &self.destination else {
            return true;
        };
        let (known, began) = (to.address.get(), &self.authorized);
        match (to.direction, &to.place) {
            (Direction::Out, Endpoint::Port(host, _)) => {
                known.is_none_or(|address| {
                    // The device has asked its kernel; the relay knows the address that it gave as its own.
                    let own = self.device.address.map(|own| own.ip().to_canonical());
                    let is_own = own == Some(address.ip());
                    now.may_connect().permits(host, *address, is_own)
                })
            }
            (Direction::Listen, Endpoint::Port(host, _)) => {
                known.is_none_or(|bound| now.may_listen().permits_listening(host, *bound))
            }
            (Direction::In { bound, .. }, Endpoint::Port(host, _)) => {
                bound.is_none_or(|bound| now.may_listen().permits_listening(host, bound))
            }
            // What a path really is, the device alone knows: it goes on under the same rules.
            (Direction::Out, Endpoint::Path(_)) => {
                now.may_connect_paths() == began.may_connect_paths()
            }
            (Direction::Listen | Direction::In { .. }, Endpoint::Path(_)) => {
                now.may_listen_paths() == began.may_listen_paths()
            }
            (_, Endpoint::Agent) => true,
        }
    }
}
