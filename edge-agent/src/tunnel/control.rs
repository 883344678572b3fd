//! The control stream: whole messages in, whole messages out.

use holdfast_protocol::codec::CodecError;
use holdfast_protocol::codec::control::{self, ControlReader};
use holdfast_protocol::wire::{AgentMessage, RelayMessage};
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use thiserror::Error;

use crate::limits::CONTROL_READ;

/// Why the control stream is of no more use.
#[derive(Debug, Error)]
pub enum ControlError {
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
}

/// The sending half.
#[derive(Debug)]
pub struct ControlSender(SendStream);

/// The receiving half.
#[derive(Debug)]
pub struct ControlReceiver {
    stream: RecvStream,
    reader: ControlReader<RelayMessage>,
    /// What was received and not looked at yet.
    rest: Vec<u8>,
}

/// Opens the control stream of a connection.
///
/// # Errors
/// [`ControlError::Connection`].
pub async fn open(
    connection: &Connection,
) -> Result<(ControlSender, ControlReceiver), ControlError> {
    let (send, stream) = connection.open_bi().await?;
    // Beats and enrolment go before all data of sessions.
    let _ = send.set_priority(crate::limits::CONTROL_PRIORITY);
    let receiver = ControlReceiver {
        stream,
        reader: ControlReader::default(),
        rest: Vec::new(),
    };
    Ok((ControlSender(send), receiver))
}

impl ControlSender {
    /// Sends a message.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn send(&mut self, message: &AgentMessage) -> Result<(), ControlError> {
        let bytes = control::encode(message)?;
        self.0.write_all(&bytes).await.map_err(|error| match error {
            WriteError::ConnectionLost(error) => error.into(),
            _ => ControlError::Closed,
        })
    }
}

impl ControlReceiver {
    /// The next message. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn next(&mut self) -> Result<RelayMessage, ControlError> {
        loop {
            let mut input = self.rest.as_slice();
            let message = self.reader.read(&mut input)?;
            let used = self.rest.len() - input.len();
            self.rest.drain(..used);
            if let Some(message) = message {
                return Ok(message);
            }
            let chunk = self.stream.read_chunk(CONTROL_READ, true).await;
            match chunk {
                Ok(Some(chunk)) => self.rest.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err(ControlError::Closed),
                Err(ReadError::ConnectionLost(error)) => return Err(error.into()),
                Err(_) => return Err(ControlError::Reset),
            }
        }
    }
}
