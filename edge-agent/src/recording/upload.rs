//! The stream on which recordings go to the relay.
//!
//! What may be sent when, and how much at once, is [`holdfast_protocol::recording::upload`]'s to say: at most
//! 64 KiB are under way, so that the window which all streams share is never the uploads'.

use std::sync::Arc;

use futures_lite::FutureExt as _;
use holdfast_protocol::codec::CodecError;
use holdfast_protocol::codec::control::{self, ControlReader};
use holdfast_protocol::limits::UPLOAD_RETRY;
use holdfast_protocol::wire::UploadAnswer;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use smol::Timer;
use thiserror::Error;

use super::Recorder;
use crate::recording::limits::UPLOAD_PRIORITY;
use crate::recording::limits::UPLOAD_READ;
use crate::warn;

/// The first minor version in which a relay knows what an upload stream is.
pub const UPLOAD_MINOR: u16 = 1;

/// The reason why an upload stream is of no more use.
#[derive(Debug, Error)]
enum UploadError {
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    #[error("the relay closed the upload stream")]
    Closed,
    #[error("the relay sent {0}")]
    Codec(#[from] CodecError),
}

/// Uploads for as long as the connection lasts, to a relay of this minor version. A relay that ends the stream is given
/// some time.
pub async fn run(recorder: Arc<Recorder>, connection: Connection, minor: u16) {
    recorder.handle_tunnel();
    loop {
        match upload(&recorder, &connection, minor).await {
            Err(UploadError::Connection(_)) => return,
            Err(error) => warn!("recordings wait: {error}"),
            Ok(()) => {}
        }
        Timer::after(UPLOAD_RETRY).await;
    }
}

async fn upload(
    recorder: &Recorder,
    connection: &Connection,
    minor: u16,
) -> Result<(), UploadError> {
    let (send, receive) = connection.open_bi().await?;
    // It has been stopped already, then, which the next write notices.
    let _ = send.set_priority(UPLOAD_PRIORITY);
    recorder.handle_upload_connected(minor);
    speak(recorder, send).or(listen(recorder, receive)).await
}

async fn speak(recorder: &Recorder, mut send: SendStream) -> Result<(), UploadError> {
    loop {
        let changed = recorder.changed.listen();
        match recorder.poll_upload() {
            Ok(message) => {
                let bytes = control::encode(&message)?;
                send.write_all(&bytes).await.map_err(|error| match error {
                    WriteError::ConnectionLost(error) => error.into(),
                    _ => UploadError::Closed,
                })?;
            }
            Err(None) => changed.await,
            Err(Some(wait)) => {
                let late = async {
                    Timer::after(wait).await;
                };
                changed.or(late).await;
            }
        }
    }
}

async fn listen(recorder: &Recorder, mut receive: RecvStream) -> Result<(), UploadError> {
    let mut reader = ControlReader::<UploadAnswer>::default();
    loop {
        let chunk = receive.read_chunk(UPLOAD_READ, true).await;
        let chunk = chunk.map_err(|error| match error {
            ReadError::ConnectionLost(error) => error.into(),
            _ => UploadError::Closed,
        })?;
        let chunk = chunk.ok_or(UploadError::Closed)?;
        let mut input: &[u8] = &chunk.bytes;
        while let Some(answer) = reader.read(&mut input)? {
            recorder.handle_upload_answer(&answer);
        }
    }
}
