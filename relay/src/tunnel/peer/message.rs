//! Whole messages on the streams of a link.

use holdfast_protocol::codec::CodecError;
use holdfast_protocol::codec::control::{self, ControlReader};
use holdfast_protocol::limits::MAX_CONTROL_MESSAGE;
use holdfast_protocol::wire::peer::PeerMessage;
use quinn::{ConnectionError, ReadError, ReadExactError, RecvStream, SendStream, WriteError};
use thiserror::Error;

/// The reason why a stream of a link is of no use.
#[derive(Debug, Error)]
pub(crate) enum MessageError {
    /// The link is gone.
    #[error("{0}")]
    Link(#[from] ConnectionError),
    /// The other relay ended the stream.
    #[error("the other relay ended a stream")]
    Ended,
    /// The other relay sent what is no message.
    #[error("the other relay sent {0}")]
    Codec(#[from] CodecError),
    /// The other relay sent a message that has no place there.
    #[error("the other relay sent a message out of place")]
    OutOfPlace,
}

/// Sends a message.
///
/// # Errors
/// [`MessageError`].
pub(super) async fn send(to: &mut SendStream, message: &PeerMessage) -> Result<(), MessageError> {
    let bytes = control::encode(message)?;
    to.write_all(&bytes).await.map_err(|error| match error {
        WriteError::ConnectionLost(error) => error.into(),
        _ => MessageError::Ended,
    })
}

/// Returns the next message, and takes nothing from behind it: what follows an answer may be a session's. Those that
/// only a newer minor version knows are skipped.
///
/// # Errors
/// [`MessageError`].
pub(super) async fn receive(from: &mut RecvStream) -> Result<PeerMessage, MessageError> {
    loop {
        let mut frame = vec![0; 2];
        exactly(from, &mut frame).await?;
        let length = usize::from(u16::from_be_bytes([frame[0], frame[1]]));
        if length > MAX_CONTROL_MESSAGE {
            let bound = MAX_CONTROL_MESSAGE;
            return Err(CodecError::TooLong { length, bound }.into());
        }
        let mut body = vec![0; length];
        exactly(from, &mut body).await?;
        frame.append(&mut body);
        if let Some(message) = ControlReader::default().read(&mut frame.as_slice())? {
            return Ok(message);
        }
    }
}

async fn exactly(from: &mut RecvStream, bytes: &mut [u8]) -> Result<(), MessageError> {
    from.read_exact(bytes).await.map_err(|error| match error {
        ReadExactError::ReadError(ReadError::ConnectionLost(error)) => error.into(),
        _ => MessageError::Ended,
    })
}
