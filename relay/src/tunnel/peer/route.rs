//! The route to a device, and the streams on it. Sessions and forwards know nothing else of tunnels and of other relays.

use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::ids::PublicKey;
use holdfast_protocol::wire::peer::PeerPurpose;

pub(crate) use super::stream::{DeviceStream, StreamError, StreamLoss};
use super::tunnel::PeerTunnel;
use crate::audit::DeviceFacts;
use crate::store::Device;
use crate::tunnel::registry::{ForwardCount, ListenerCount, SessionCount, Tunnel};

/// The route to a device.
#[derive(Clone, Debug)]
pub(crate) enum DeviceRoute {
    /// By a tunnel of this relay.
    Local(Arc<Tunnel>),
    /// By a tunnel of another relay of the cluster.
    Peer(Arc<PeerTunnel>),
}

/// Counts a session, a forward or a port on its tunnel for as long as it lives. The relay that has the tunnel counts streams of
/// other relays itself.
#[derive(Debug, Default)]
pub(crate) struct RouteCount {
    _session: Option<SessionCount>,
    _forward: Option<ForwardCount>,
    _listener: Option<ListenerCount>,
}

impl DeviceRoute {
    /// Opens a stream. It waits while the device has as many as it takes.
    ///
    /// # Errors
    /// [`StreamError`].
    pub(crate) async fn open_stream(
        &self,
        purpose: PeerPurpose,
    ) -> Result<DeviceStream, StreamError> {
        match self {
            Self::Local(tunnel) => {
                let (send, receive) = tunnel.connection.open_bi().await?;
                Ok(DeviceStream { send, receive })
            }
            Self::Peer(tunnel) => tunnel.open_stream(purpose).await,
        }
    }

    /// Returns the key of the other relay that has the tunnel, if it is another one.
    #[must_use]
    pub(crate) fn relay(&self) -> Option<PublicKey> {
        match self {
            Self::Local(_) => None,
            Self::Peer(tunnel) => tunnel.relay(),
        }
    }

    /// Returns the minor version of the protocol that both ends speak.
    #[must_use]
    pub(crate) fn minor(&self) -> u16 {
        match self {
            Self::Local(tunnel) => tunnel.minor,
            Self::Peer(tunnel) => tunnel.minor(),
        }
    }

    /// Returns how long a packet takes to the device and back.
    #[must_use]
    pub(crate) fn rtt(&self) -> Duration {
        match self {
            Self::Local(tunnel) => tunnel.connection.rtt(),
            Self::Peer(tunnel) => tunnel.rtt(),
        }
    }

    /// Returns for how long the device has been silent.
    #[must_use]
    pub(crate) fn silence(&self) -> Duration {
        match self {
            Self::Local(tunnel) => tunnel.silence(),
            Self::Peer(tunnel) => tunnel.silence(),
        }
    }

    /// Returns its device as the audit log names it.
    #[must_use]
    pub(crate) fn facts_of(&self, device: &Device) -> DeviceFacts {
        match self {
            Self::Local(tunnel) => tunnel.facts_of(device),
            Self::Peer(tunnel) => tunnel.facts_of(device),
        }
    }

    /// Counts one more session, until the value is dropped.
    #[must_use]
    pub(crate) fn count_session(&self) -> RouteCount {
        match self {
            Self::Local(tunnel) => RouteCount {
                _session: Some(tunnel.count_session()),
                ..RouteCount::default()
            },
            Self::Peer(_) => RouteCount::default(),
        }
    }

    /// Counts one more forward, until the value is dropped.
    #[must_use]
    pub(crate) fn count_forward(&self) -> RouteCount {
        match self {
            Self::Local(tunnel) => RouteCount {
                _forward: Some(tunnel.count_forward()),
                ..RouteCount::default()
            },
            Self::Peer(_) => RouteCount::default(),
        }
    }

    /// Counts one more port that the device listens on, until the value is dropped.
    #[must_use]
    pub(crate) fn count_listener(&self) -> RouteCount {
        match self {
            Self::Local(tunnel) => RouteCount {
                _listener: Some(tunnel.count_listener()),
                ..RouteCount::default()
            },
            Self::Peer(_) => RouteCount::default(),
        }
    }

    /// Returns whether both lead by the same tunnel.
    #[must_use]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Local(one), Self::Local(other)) => Arc::ptr_eq(one, other),
            (Self::Peer(one), Self::Peer(other)) => one.is_same(other),
            _ => false,
        }
    }
}
