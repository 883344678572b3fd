//! The control stream: whole messages in, whole messages out.

use futures_lite::future::poll_once;
use holdfast_protocol::codec::CodecError;
use holdfast_protocol::codec::control::{self, ControlReader};
use holdfast_protocol::limits::MINOR_VERSION;
use holdfast_protocol::tunnel::control::{NotDue, RelayOrder};
use holdfast_protocol::wire::{AgentMessage, Hello, Intent, RelayMessage};
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use thiserror::Error;

use super::dial::{DialledRelay, source_address};
use super::limits::{CONTROL_PRIORITY, CONTROL_READ};
use crate::os::clock::WallTime;

/// The reason why the control stream is of no more use.
#[derive(Debug, Error)]
pub enum ControlStreamError {
    /// The connection is gone.
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    /// The relay ended the stream.
    #[error("the relay closed the control stream")]
    Closed,
    /// The relay reset the stream.
    #[error("the relay broke off the control stream")]
    Reset,
    /// The relay broke the protocol.
    #[error("the relay sent {0}")]
    Codec(#[from] CodecError),
    /// The relay sent a message out of its order.
    #[error("the relay sent {0}")]
    Order(#[from] NotDue),
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct RelaySender {
    stream: SendStream,
    /// The rest that the stream has not taken yet: at most one message.
    unsent: Vec<u8>,
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct RelayReceiver {
    stream: RecvStream,
    reader: ControlReader<RelayMessage>,
    order: RelayOrder,
    /// The bytes that were received and not looked at yet.
    rest: Vec<u8>,
}

/// Opens the control stream of a connection for this purpose.
///
/// # Errors
/// [`ControlStreamError::Connection`].
pub(crate) async fn open(
    connection: &Connection,
    intent: Intent,
) -> Result<(RelaySender, RelayReceiver), ControlStreamError> {
    let (send, stream) = connection.open_bi().await?;
    // Beats and enrolment go before all data of sessions.
    let _ = send.set_priority(CONTROL_PRIORITY);
    let receiver = RelayReceiver {
        stream,
        reader: ControlReader::default(),
        order: RelayOrder::new(intent),
        rest: Vec::new(),
    };
    let sender = RelaySender {
        stream: send,
        unsent: Vec::new(),
    };
    Ok((sender, receiver))
}

/// Returns the first message of any connection.
#[must_use]
pub(crate) fn hello(intent: Intent, dialled: &DialledRelay, keepalive_secs: u16) -> Hello {
    Hello {
        minor: MINOR_VERSION,
        intent,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        target: env!("TARGET").to_owned(),
        keepalive_secs,
        clock: WallTime::now().secs(),
        local_address: source_address(dialled.connection.remote_address()).map(|mut address| {
            // The probe's port means nothing; the tunnel's own does.
            address.set_port(dialled.endpoint.local_addr().map_or(0, |own| own.port()));
            address
        }),
    }
}

impl RelaySender {
    /// Sends a message.
    ///
    /// # Errors
    /// [`ControlStreamError`].
    pub(crate) async fn send(&mut self, message: &AgentMessage) -> Result<(), ControlStreamError> {
        self.unsent.extend(control::encode(message)?);
        self.flush().await
    }

    /// Sends a message as far as the stream takes it now, and the rest with the next one. If it still has
    /// to take the one before, this one is left out.
    ///
    /// All streams share one window of what is not acknowledged. When a path dies under a bulk copy, that
    /// window is full, and who waited for it here would never come to mend the path.
    ///
    /// # Errors
    /// [`ControlStreamError`].
    pub(crate) async fn offer(&mut self, message: &AgentMessage) -> Result<(), ControlStreamError> {
        if self.unsent.is_empty() {
            self.unsent = control::encode(message)?;
        }
        poll_once(self.flush()).await.unwrap_or(Ok(()))
    }

    /// Sends what waits. It may be dropped meanwhile: what was not sent is kept.
    async fn flush(&mut self) -> Result<(), ControlStreamError> {
        while !self.unsent.is_empty() {
            let written = self.stream.write(&self.unsent).await;
            let taken = written.map_err(|error| match error {
                WriteError::ConnectionLost(error) => error.into(),
                _ => ControlStreamError::Closed,
            })?;
            self.unsent.drain(..taken);
        }
        Ok(())
    }
}

impl RelayReceiver {
    /// Returns the next message that is due. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// [`ControlStreamError`].
    pub(crate) async fn next(&mut self) -> Result<RelayMessage, ControlStreamError> {
        loop {
            let mut input = self.rest.as_slice();
            let message = self.reader.read(&mut input)?;
            let used = self.rest.len() - input.len();
            self.rest.drain(..used);
            if let Some(message) = message {
                match self.order.handle(&message) {
                    Ok(()) => return Ok(message),
                    // A relay that sends one by mistake is no reason to lose a tunnel.
                    Err(NotDue) if self.order == RelayOrder::Established => continue,
                    Err(not_due) => return Err(not_due.into()),
                }
            }
            let chunk = self.stream.read_chunk(CONTROL_READ, true).await;
            match chunk {
                Ok(Some(chunk)) => self.rest.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err(ControlStreamError::Closed),
                Err(ReadError::ConnectionLost(error)) => return Err(error.into()),
                Err(_) => return Err(ControlStreamError::Reset),
            }
        }
    }
}
