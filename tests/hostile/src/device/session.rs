//! The stream of one session, from the device's side. It enforces no order: a case may send anything at any time.

use std::time::Duration;

use anyhow::Result;
use holdfast_protocol::codec::frame::{
    DataStream, FramePiece, FrameReader, SessionMessage, data_header,
};
use holdfast_protocol::wire::Open;
use quinn::{RecvStream, SendStream};
use tokio::time::timeout;

use crate::Outcome;

/// A session that the relay has opened.
pub struct HostileSession {
    /// The request.
    pub open: Open,
    /// To the relay.
    pub send: SendStream,
    /// From the relay.
    pub receive: RecvStream,
    /// Bytes that were sent back.
    pub echoed: u64,
    reader: FrameReader,
    rest: Vec<u8>,
}

/// A message of the relay on it.
#[expect(
    clippy::large_enum_variant,
    reason = "each is made, looked at and gone"
)]
#[derive(Debug, PartialEq, Eq)]
pub enum HeardFrames {
    /// A piece of a frame of data, of which so many bytes are still to come.
    Data(DataStream, Vec<u8>, usize),
    /// A whole message.
    Message(SessionMessage),
}

impl HostileSession {
    /// Reads the `Open`; `None` if there is none.
    pub(super) async fn begin(send: SendStream, receive: RecvStream) -> Option<Self> {
        let mut reader = FrameReader::default();
        let (mut receive, mut rest) = (receive, vec![]);
        match next(&mut receive, &mut reader, &mut rest).await? {
            HeardFrames::Message(SessionMessage::Open(open)) => Some(Self {
                open,
                send,
                receive,
                echoed: 0,
                reader,
                rest,
            }),
            _ => None,
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The relay takes nothing more.
    pub async fn say(&mut self, message: &SessionMessage) -> Result<()> {
        self.write(&message.encode()?).await
    }

    /// Sends one frame of data.
    ///
    /// # Errors
    /// The relay takes nothing more.
    pub async fn data(&mut self, stream: DataStream, bytes: &[u8]) -> Result<()> {
        let header = data_header(stream, bytes.len());
        self.write(&[&header, bytes].concat()).await
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The relay takes nothing more.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.send.write_all(bytes).await?)
    }

    /// Sends one message so often, in large writes. Gives how many of them the relay has let us send.
    pub async fn flood(
        &mut self,
        mut message: impl FnMut(u32) -> SessionMessage,
        count: u32,
    ) -> u32 {
        const BATCH: u32 = 256;
        let mut sent = 0;
        while sent < count {
            let end = count.min(sent.saturating_add(BATCH));
            let bytes: Vec<u8> = (sent..end)
                .flat_map(|number| message(number).encode().unwrap())
                .collect();
            if self.write(&bytes).await.is_err() {
                return sent;
            }
            sent = end;
        }
        sent
    }

    /// The next thing from the relay; `None`: nothing more, or it broke the stream off.
    pub async fn next(&mut self) -> Option<HeardFrames> {
        next(&mut self.receive, &mut self.reader, &mut self.rest).await
    }

    /// Returns what becomes of the stream after a lie: refused if the relay ends it in time. An operator who goes ends
    /// it too.
    pub async fn verdict(&mut self, within: Duration, what: String) -> Outcome {
        let ended = async {
            loop {
                tokio::select! {
                    heard = next(&mut self.receive, &mut self.reader, &mut self.rest) => {
                        if heard.is_none() {
                            return;
                        }
                    }
                    _ = self.send.stopped() => return,
                }
            }
        };
        match timeout(within, ended).await {
            Ok(()) => Outcome::Refused(format!("{what}; the relay ended the stream")),
            Err(_) => Outcome::Done(format!("{what}; the stream is still open")),
        }
    }
}

async fn next(
    receive: &mut RecvStream,
    reader: &mut FrameReader,
    rest: &mut Vec<u8>,
) -> Option<HeardFrames> {
    loop {
        let mut input = rest.as_slice();
        let heard = match reader.read(&mut input).ok()? {
            None => None,
            Some(FramePiece::Message(message)) => Some(HeardFrames::Message(message)),
            Some(FramePiece::Data(stream, bytes)) => {
                Some(HeardFrames::Data(stream, bytes.to_vec(), 0))
            }
        };
        let used = rest.len() - input.len();
        rest.drain(..used);
        match heard {
            Some(HeardFrames::Data(stream, bytes, _)) => {
                return Some(HeardFrames::Data(stream, bytes, reader.remaining()));
            }
            Some(heard) => return Some(heard),
            None => {}
        }
        let chunk = receive.read_chunk(64 * 1024, true).await.ok()??;
        rest.extend_from_slice(&chunk.bytes);
    }
}
