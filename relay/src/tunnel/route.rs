//! The route to a device, and the streams on it. Sessions and forwards know nothing else of tunnels, so that a way by
//! another relay is one more variant here.

use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectionError, RecvStream, SendStream, VarInt};

use super::registry::{ForwardCount, SessionCount, Tunnel};
use crate::audit::DeviceFacts;
use crate::store::Device;

/// The route to a device.
#[derive(Clone, Debug)]
pub(crate) enum DeviceRoute {
    /// By a tunnel of this relay.
    Local(Arc<Tunnel>),
}

/// A stream to a device: one session, forward, listener or recording. If it is dropped without [`Self::reset`], the
/// device still gets what it holds.
#[derive(Debug)]
pub(crate) struct DeviceStream {
    /// To the device.
    pub(crate) send: SendStream,
    /// From it.
    pub(crate) receive: RecvStream,
}

impl DeviceRoute {
    /// Opens a stream. It waits while the device has as many as it takes.
    ///
    /// # Errors
    /// The tunnel is gone.
    pub(crate) async fn open_stream(&self) -> Result<DeviceStream, ConnectionError> {
        match self {
            Self::Local(tunnel) => {
                let (send, receive) = tunnel.connection.open_bi().await?;
                Ok(DeviceStream { send, receive })
            }
        }
    }

    /// Returns the minor version of the protocol that both ends speak.
    #[must_use]
    pub(crate) fn minor(&self) -> u16 {
        match self {
            Self::Local(tunnel) => tunnel.minor,
        }
    }

    /// Returns how long a packet takes to the device and back.
    #[must_use]
    pub(crate) fn rtt(&self) -> Duration {
        match self {
            Self::Local(tunnel) => tunnel.connection.rtt(),
        }
    }

    /// Returns for how long the device has been silent.
    #[must_use]
    pub(crate) fn silence(&self) -> Duration {
        match self {
            Self::Local(tunnel) => tunnel.silence(),
        }
    }

    /// Returns its device as the audit log names it.
    #[must_use]
    pub(crate) fn facts_of(&self, device: &Device) -> DeviceFacts {
        match self {
            Self::Local(tunnel) => tunnel.facts_of(device),
        }
    }

    /// Counts one more session, until the value is dropped.
    #[must_use]
    pub(crate) fn count_session(&self) -> SessionCount {
        match self {
            Self::Local(tunnel) => tunnel.count_session(),
        }
    }

    /// Counts one more forward, until the value is dropped.
    #[must_use]
    pub(crate) fn count_forward(&self) -> ForwardCount {
        match self {
            Self::Local(tunnel) => tunnel.count_forward(),
        }
    }

    /// Returns whether both lead by the same tunnel.
    #[must_use]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Local(one), Self::Local(other)) => Arc::ptr_eq(one, other),
        }
    }
}

impl DeviceStream {
    /// Ends the stream in order: the device gets all that was sent.
    pub(crate) fn finish(mut self) {
        // One that is closed already needs no end.
        let _ = self.send.finish();
    }

    /// Breaks the stream off both ways, which takes back what waits to be sent.
    pub(crate) fn reset(mut self, code: VarInt) {
        let _ = self.send.reset(code);
        let _ = self.receive.stop(code);
    }
}
