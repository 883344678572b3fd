//! A stream to a device, by whichever relay it goes, and how it is lost.

use bytes::Bytes;
use holdfast_protocol::wire::peer::TunnelLoss;
use quinn::{ApplicationClose, ConnectionError, ReadError, RecvStream, SendStream, VarInt};
use thiserror::Error;

use super::message::MessageError;

/// A stream to a device: one session, forward, listener or recording. If it is dropped without [`Self::reset`], the
/// device still gets what it holds.
#[derive(Debug)]
pub(crate) struct DeviceStream {
    /// To the device.
    pub(crate) send: SendStream,
    /// From it.
    pub(crate) receive: RecvStream,
}

/// The reason why there is no stream.
#[derive(Debug, Error)]
pub(crate) enum StreamError {
    /// The device takes no more streams.
    #[error("the device takes no more streams")]
    Busy,
    /// The tunnel is gone.
    #[error("{0}")]
    Tunnel(#[from] ConnectionError),
    /// The device's tunnel is not at the other relay any more, or that relay stops.
    #[error("the relay of the device {0}")]
    Refused(&'static str),
    /// The other relay cannot be understood, or its link is gone.
    #[error("{0}")]
    Peer(#[from] MessageError),
}

/// The way a stream broke.
#[derive(Debug, Error)]
pub(crate) enum StreamLoss {
    /// The tunnel, or the link to its relay, is gone.
    #[error("{0}")]
    Tunnel(ConnectionError),
    /// The device broke the stream off.
    #[error("{0}")]
    Stream(String),
}

impl From<ReadError> for StreamLoss {
    /// Reads the end of another relay's tunnel from the code of a reset.
    fn from(error: ReadError) -> Self {
        let end = match &error {
            ReadError::ConnectionLost(lost) => return Self::Tunnel(lost.clone()),
            ReadError::Reset(code) => TunnelLoss::from_code(code.into_inner()),
            _ => None,
        };
        match end {
            None => Self::Stream(error.to_string()),
            Some(TunnelLoss::Lost) => Self::Tunnel(ConnectionError::Reset),
            Some(TunnelLoss::TimedOut) => Self::Tunnel(ConnectionError::TimedOut),
            Some(TunnelLoss::ClosedHere) => Self::Tunnel(ConnectionError::LocallyClosed),
            Some(TunnelLoss::Closed(code)) => {
                Self::Tunnel(ConnectionError::ApplicationClosed(ApplicationClose {
                    error_code: code.into(),
                    reason: Bytes::new(),
                }))
            }
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
