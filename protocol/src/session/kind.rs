//! The kinds of forwards: they say which frames a forward's stream carries.

use crate::wire::ForwardRequest;

/// The kind of a forward's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardKind {
    /// One connection.
    Connection {
        /// True if the device says where it leads: that of a Unix socket does not.
        address: bool,
    },
    /// A port or socket on which the device listens: no data, and an announcement of each connection.
    Listener {
        /// True if the device says where it listens.
        address: bool,
    },
    /// The shared log of forwards: nothing but its beginning and end.
    Log,
}

impl ForwardKind {
    /// Returns the kind of what is asked for. A `Take` may be of a port or of a Unix socket, which it does not say:
    /// this takes it for one of a port.
    #[must_use]
    pub fn of(request: &ForwardRequest) -> Self {
        match request {
            ForwardRequest::Connect(_) | ForwardRequest::Take(_) => {
                Self::Connection { address: true }
            }
            ForwardRequest::ConnectPath(_) => Self::Connection { address: false },
            ForwardRequest::Listen(_) => Self::Listener { address: true },
            ForwardRequest::ListenPath(_) => Self::Listener { address: false },
            ForwardRequest::Log => Self::Log,
        }
    }
}
