//! The control stream: whole messages in, whole messages out; and a device that has opened one.

use holdfast_protocol::codec::CodecError;
use holdfast_protocol::codec::control::{self, ControlReader};
use holdfast_protocol::ids::PublicKey;
use holdfast_protocol::tunnel::control::{ControlOrder, ControlViolation};
use holdfast_protocol::wire::{AgentMessage, Hello, Instance, Refusal, RelayMessage};
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tracing::warn;

use crate::limits::FINAL_STATUS_TIMEOUT;
use crate::log_limit::{self, LimitedLine};
use crate::model::source::Source;
use crate::tunnel::limits::{CONTROL_PRIORITY, CONTROL_READ};

/// The reason why the control stream is of no more use.
#[derive(Debug, Error)]
pub(crate) enum ControlError {
    /// The connection is gone.
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    /// The device ended the stream.
    #[error("the device closed its control stream")]
    Closed,
    /// The device sent what is no message.
    #[error("the device sent {0}")]
    Codec(#[from] CodecError),
    /// The device sent a message that has no place there.
    #[error("the device sent {0}")]
    Order(#[from] ControlViolation),
    /// The device sent a message with something in it that may not be.
    #[error("the device sent {0}")]
    Protocol(&'static str),
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct ControlSender(SendStream);

/// The receiving half.
#[derive(Debug)]
pub(crate) struct ControlReceiver {
    stream: RecvStream,
    reader: ControlReader<AgentMessage>,
    order: ControlOrder,
    /// The bytes that were received and not looked at yet: at most [`CONTROL_READ`] bytes.
    rest: Vec<u8>,
}

/// Waits for the device to open its control stream: the first stream of the connection.
///
/// # Errors
/// [`ControlError::Connection`].
pub(crate) async fn accept(
    connection: &Connection,
) -> Result<(ControlSender, ControlReceiver), ControlError> {
    let (send, stream) = connection.accept_bi().await?;
    let _ = send.set_priority(CONTROL_PRIORITY);
    let receiver = ControlReceiver {
        stream,
        reader: ControlReader::default(),
        order: ControlOrder::default(),
        rest: Vec::new(),
    };
    Ok((ControlSender(send), receiver))
}

impl ControlSender {
    /// Sends a message.
    ///
    /// # Errors
    /// [`ControlError`].
    pub(crate) async fn send(&mut self, message: &RelayMessage) -> Result<(), ControlError> {
        let bytes = control::encode(message)?;
        self.0.write_all(&bytes).await.map_err(|error| match error {
            WriteError::ConnectionLost(error) => error.into(),
            _ => ControlError::Closed,
        })
    }

    /// Sends a last message and waits until the device has it, or the connection is gone.
    pub(crate) async fn send_last(mut self, message: &RelayMessage) {
        if self.send(message).await.is_ok() && self.0.finish().is_ok() {
            let _ = self.0.stopped().await;
        }
    }
}

impl ControlReceiver {
    /// Returns the next message, which has its place there. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// [`ControlError`].
    pub(crate) async fn next(&mut self) -> Result<AgentMessage, ControlError> {
        loop {
            let mut input = self.rest.as_slice();
            let message = self.reader.read(&mut input)?;
            let used = self.rest.len() - input.len();
            self.rest.drain(..used);
            if let Some(message) = message {
                self.order.handle(&message)?;
                return Ok(message);
            }
            match self.stream.read_chunk(CONTROL_READ, true).await {
                Ok(Some(chunk)) => self.rest.extend_from_slice(&chunk.bytes),
                Err(ReadError::ConnectionLost(error)) => return Err(error.into()),
                Ok(None) | Err(_) => return Err(ControlError::Closed),
            }
        }
    }
}

/// A connection whose key is proved and whose control stream is open.
pub(crate) struct DialingDevice {
    /// The connection.
    pub connection: Connection,
    /// The key that it proved to have.
    pub key: PublicKey,
    /// The control stream to it.
    pub send: ControlSender,
    /// The control stream from it.
    pub receive: ControlReceiver,
    /// The first message of the device.
    pub hello: Hello,
    /// The run of the agent; an older one does not say.
    pub instance: Option<Instance>,
    /// Its place among those that are no members yet.
    pub handshake: OwnedSemaphorePermit,
}

/// Says why not, and waits a moment so that it arrives before the connection is closed.
pub(crate) async fn refuse(caller: DialingDevice, why: Refusal) {
    let (why, address) = (
        RelayMessage::Refused(why),
        caller.connection.remote_address(),
    );
    if timeout(FINAL_STATUS_TIMEOUT, caller.send.send_last(&why))
        .await
        .is_err()
        && let Some(left_out) = log_limit::admits(LimitedLine::Refusal, Source::of(address.ip()))
    {
        warn!(%address, left_out, "the reason was not delivered to a refused device");
    }
}
