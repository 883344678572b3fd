//! The stream between the relay and a device, and the pump that moves what passes on it: one way for each direction,
//! the same for a process and for a forward. What is done with what passes is their own: see [`Downward`] and
//! [`Upward`].
//!
//! Back-pressure runs the whole way. Towards the operator a read from the stream is followed by a wait for the output;
//! towards the device a read from the input's queue is followed by a wait for the stream's flow control. Nothing is
//! buffered here but what is being handed on.

pub(crate) mod notices;
pub(crate) mod timeouts;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdfast_protocol::codec::CodecError;
use holdfast_protocol::codec::frame::{
    DataStream, FramePiece, FrameReader, SessionMessage, data_header,
};
use holdfast_protocol::wire::peer::PeerPurpose;
use holdfast_protocol::wire::{Open, SessionRequest};
use quinn::{ConnectionError, RecvStream, SendStream, WriteError};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::fence::StoreFence;
use crate::limits::FINAL_STATUS_TIMEOUT;
use crate::session::ending::End;
use crate::session::input::{Input, InputReceiver};
use crate::session::limits::SPLICE_BUFFER;
use crate::session::output::{Gone, Output};
use crate::session::registry::LiveSession;
use crate::tunnel::peer::limits::INTERACTIVE_PRIORITY;
use crate::tunnel::peer::route::{DeviceRoute, DeviceStream, StreamError, StreamLoss};

/// Chunks that are taken from a stream at once: of about 1.2 KiB each, they fill a splice buffer.
const CHUNKS: usize = 32;

/// The reason why a stream was not opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The request is longer than a message may be.
    Request(CodecError),
    /// The device has as many streams as it takes, and none ended in time.
    Busy,
    /// The tunnel is gone.
    Lost(String),
}

/// Opens a stream to a device and sends the request on it, with the priority of a terminal if it has one. The stream is
/// in `slot` before anything is sent: it can be reset, however this ends. While the fence is closed, nothing is sent.
///
/// # Errors
/// [`OpenError`].
pub(crate) async fn open<'s>(
    slot: &'s mut Option<DeviceStream>,
    route: &DeviceRoute,
    fence: &StoreFence,
    open: Open,
    within: Duration,
) -> Result<&'s mut DeviceStream, OpenError> {
    let interactive = open.pty.is_some();
    let purpose = match open.request {
        SessionRequest::Forward(_) => PeerPurpose::Forward,
        _ if interactive => PeerPurpose::Terminal,
        _ => PeerPurpose::Session,
    };
    let frame = SessionMessage::Open(open).encode();
    let frame = frame.map_err(OpenError::Request)?;
    let opened = timeout(within, route.open_stream(purpose)).await;
    let stream = opened.map_err(|_| OpenError::Busy)?;
    let stream = stream.map_err(|error| match error {
        StreamError::Busy => OpenError::Busy,
        error => OpenError::Lost(error.to_string()),
    });
    let stream = slot.insert(stream?);
    if interactive {
        let _ = stream.send.set_priority(INTERACTIVE_PRIORITY);
    }
    let sent = fence.pass(stream.send.write_chunk(frame.into())).await;
    sent.map_err(|error| OpenError::Lost(error.to_string()))?;
    Ok(stream)
}

/// The reason why a pump stopped by itself.
#[derive(Debug)]
pub(crate) enum BrokenStream {
    /// The operator's client takes nothing more.
    ClientGone,
    /// The tunnel is gone.
    Tunnel(ConnectionError),
    /// The device broke the stream off.
    Stream(String),
    /// The device sent what it may not.
    Protocol(String),
}

impl From<BrokenStream> for End {
    fn from(broken: BrokenStream) -> Self {
        match broken {
            BrokenStream::ClientGone => Self::ClientGone,
            BrokenStream::Tunnel(error) => Self::from(&error),
            BrokenStream::Stream(error) => Self::DeviceLost(error),
            BrokenStream::Protocol(error) => Self::Protocol(error),
        }
    }
}

impl From<StreamLoss> for BrokenStream {
    fn from(loss: StreamLoss) -> Self {
        match loss {
            StreamLoss::Tunnel(error) => Self::Tunnel(error),
            StreamLoss::Stream(error) => Self::Stream(error),
        }
    }
}

impl From<Gone> for BrokenStream {
    fn from(_: Gone) -> Self {
        Self::ClientGone
    }
}

/// Output that is gathered into one packet for the client.
pub(crate) struct Gather<'a> {
    output: &'a dyn Output,
    session: &'a LiveSession,
    fence: &'a StoreFence,
    buffer: BytesMut,
    /// The stream of the buffer.
    stream: DataStream,
}

impl<'a> Gather<'a> {
    /// Returns what gathers for this output, and counts what it takes as the session's. While the fence is closed, the
    /// output gets nothing.
    #[must_use]
    pub(crate) fn new(
        output: &'a dyn Output,
        session: &'a LiveSession,
        fence: &'a StoreFence,
    ) -> Self {
        Self {
            output,
            session,
            fence,
            buffer: BytesMut::new(),
            stream: DataStream::Stdout,
        }
    }

    /// Adds data; what does not fit is sent first.
    ///
    /// # Errors
    /// [`Gone`].
    pub(crate) async fn add(&mut self, stream: DataStream, data: &[u8]) -> Result<(), Gone> {
        if stream != self.stream || self.buffer.len() + data.len() > SPLICE_BUFFER {
            self.flush().await?;
        }
        self.stream = stream;
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    /// Sends what was gathered.
    ///
    /// # Errors
    /// [`Gone`].
    pub(crate) async fn flush(&mut self) -> Result<(), Gone> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = self.buffer.split().freeze();
        let length = data.len();
        let taken = match self.stream {
            DataStream::Stderr => self.output.stderr(data),
            DataStream::Stdout | DataStream::Stdin => self.output.stdout(data),
        };
        self.fence.pass(taken).await?;
        // A download is work, even if its client says nothing for an hour.
        self.session.count_out(length);
        Ok(())
    }
}

/// Handles what a device sends.
pub(crate) trait Downward: Send + Sync {
    /// The way the splice ends.
    type End: From<BrokenStream> + Send;

    /// The part that was missing, if the stream ends before [`Self::message`] said that it is over.
    const MISSING: &'static str;

    /// Returns what the relay tells the client by itself, when there is something.
    fn own(&self) -> impl Future<Output = Bytes> + Send {
        std::future::pending()
    }

    /// Takes data of a frame, of which `remaining` bytes are still to come.
    fn data(
        &mut self,
        gather: &mut Gather<'_>,
        stream: DataStream,
        data: &[u8],
        remaining: usize,
    ) -> impl Future<Output = Result<(), Self::End>> + Send;

    /// Takes a message; an error is how it ends.
    fn message(
        &mut self,
        gather: &mut Gather<'_>,
        message: SessionMessage,
    ) -> impl Future<Output = Result<(), Self::End>> + Send;
}

/// Moves what a device sends until it is over. While the fence is closed, nothing is read.
pub(crate) async fn down<D: Downward>(
    receive: &mut RecvStream,
    gather: &mut Gather<'_>,
    to: &mut D,
) -> D::End {
    let fence = gather.fence;
    match fence.pass(pump_down(receive, gather, to)).await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

async fn pump_down<D: Downward>(
    receive: &mut RecvStream,
    gather: &mut Gather<'_>,
    to: &mut D,
) -> Result<std::convert::Infallible, D::End> {
    let mut reader = FrameReader::default();
    let mut chunks = [const { Bytes::new() }; CHUNKS];
    loop {
        let read = tokio::select! {
            read = receive.read_chunks(&mut chunks) => read,
            own = to.own() => {
                gather.add(DataStream::Stdout, &own).await.map_err(BrokenStream::from)?;
                gather.flush().await.map_err(BrokenStream::from)?;
                continue;
            }
        };
        let count = match read {
            Ok(Some(count)) => count,
            Ok(None) => return Err(BrokenStream::Protocol(D::MISSING.to_owned()).into()),
            Err(error) => return Err(BrokenStream::from(StreamLoss::from(error)).into()),
        };
        for chunk in chunks.iter_mut().take(count) {
            let chunk = std::mem::take(chunk);
            let mut input = &chunk[..];
            loop {
                let piece = reader.read(&mut input);
                match piece.map_err(|error| BrokenStream::Protocol(error.to_string()))? {
                    None => break,
                    Some(FramePiece::Data(stream, data)) => {
                        to.data(gather, stream, data, reader.remaining()).await?;
                    }
                    Some(FramePiece::Message(message)) => to.message(gather, message).await?,
                }
            }
        }
        // What has come is shown at once: gathering never waits for more.
        gather.flush().await.map_err(BrokenStream::from)?;
    }
}

/// Handles what a client sends.
pub(crate) trait Upward: Send + Sync {
    /// The way the splice ends.
    type End: From<BrokenStream> + Send;

    /// Returns what the relay asks the device for by itself, when there is something. It goes before what the client
    /// sends.
    fn own(&self) -> impl Future<Output = Bytes> + Send {
        std::future::pending()
    }

    /// Sends what [`Self::own`] returned.
    fn send_own(
        &mut self,
        send: &mut SendStream,
        data: Bytes,
    ) -> impl Future<Output = Result<(), WriteError>> + Send {
        send_data(send, data)
    }

    /// Sends what the client sent.
    fn send(
        &mut self,
        send: &mut SendStream,
        input: Input,
    ) -> impl Future<Output = Result<(), WriteError>> + Send;

    /// Returns how it ends when the client sends nothing more, as soon as it does.
    fn gone(&mut self) -> impl Future<Output = Self::End> + Send {
        std::future::ready(BrokenStream::ClientGone.into())
    }
}

/// Moves what a client sends. Ends only when the client is gone; after its EOF it goes on, for signals and sizes. While
/// the fence is closed, nothing is sent.
pub(crate) async fn up<U: Upward>(
    input: &mut InputReceiver,
    send: &mut SendStream,
    from: &mut U,
    fence: &StoreFence,
) -> U::End {
    loop {
        let sent = tokio::select! {
            // What is asked of a file goes before what closes it.
            biased;
            own = from.own() => fence.pass(from.send_own(send, own)).await,
            input = input.next() => match input {
                Some(input) => fence.pass(from.send(send, input)).await,
                None => return from.gone().await,
            },
        };
        match sent {
            // The device takes no more: the process or connection is gone, and the other direction will say how. What
            // the operator still types goes nowhere, as with sshd.
            Ok(()) | Err(WriteError::Stopped(_)) => {}
            Err(WriteError::ConnectionLost(error)) => return BrokenStream::Tunnel(error).into(),
            Err(error) => return BrokenStream::Stream(error.to_string()).into(),
        }
    }
}

/// Sends data in a frame.
///
/// # Errors
/// quinn's.
pub(crate) async fn send_data(send: &mut SendStream, data: Bytes) -> Result<(), WriteError> {
    let header = data_header(DataStream::Stdin, data.len());
    let mut chunks = [Bytes::copy_from_slice(&header), data];
    send.write_all_chunks(&mut chunks).await
}

/// Sends a message of a fixed size, far below its bound.
///
/// # Errors
/// quinn's.
pub(crate) async fn send_message(
    send: &mut SendStream,
    message: &SessionMessage,
) -> Result<(), WriteError> {
    let Ok(frame) = message.encode() else {
        return Ok(());
    };
    send.write_chunk(frame.into()).await
}

/// Resolves a moment after the client has gone: it leaves what it sent last, and a device that takes none of it must
/// not keep its process or connection.
pub(crate) async fn linger(gone: &CancellationToken) {
    gone.cancelled().await;
    sleep(FINAL_STATUS_TIMEOUT).await;
}
