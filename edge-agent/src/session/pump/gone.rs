//! The other end of a session, when it is not there any more.

use holdfast_protocol::session::Departure;
use holdfast_protocol::wire::{CloseCode, ResetCode};

/// The part of the other end that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum PeerGone {
    /// The relay broke off or ended the stream, because its client went away or the protocol was broken.
    Client,
    /// The whole tunnel.
    Tunnel,
    /// The relay ordered the session to stop.
    Ended,
}

impl PeerGone {
    /// Returns what the relay means by resetting its half, or stopping ours.
    pub(in crate::session) fn reset(code: quinn::VarInt) -> Self {
        match code == quinn::VarInt::from_u32(ResetCode::Ended as u32) {
            true => Self::Ended,
            false => Self::Client,
        }
    }

    /// Returns what the end of the tunnel means: a revoked device keeps no session's process.
    pub(in crate::session) fn closed(why: &quinn::ConnectionError) -> Self {
        let revoked = quinn::VarInt::from_u32(CloseCode::Revoked as u32);
        match why {
            quinn::ConnectionError::ApplicationClosed(close) if close.error_code == revoked => {
                Self::Ended
            }
            _ => Self::Tunnel,
        }
    }

    pub(in crate::session) fn departure(self) -> Departure {
        match self {
            Self::Client | Self::Tunnel => Departure::Lost,
            Self::Ended => Departure::Ordered,
        }
    }
}
