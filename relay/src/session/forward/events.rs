//! The reports of a device on a forward's stream without data.

use holdfast_protocol::codec::frame::{FramePiece, FrameReader};
use holdfast_protocol::session::{ForwardKind, ForwardReport, RelayForward};
use quinn::RecvStream;

use crate::session::refusal::ForwardEnd;
use crate::tunnel::limits::CONTROL_READ;
use crate::tunnel::peer::route::StreamLoss;

/// Reads the messages of a device on a stream without data.
pub(super) struct EventReader {
    pub(super) receive: RecvStream,
    reader: FrameReader,
    state: RelayForward,
    /// The bytes that were received and not looked at yet: at most [`CONTROL_READ`] bytes.
    rest: Vec<u8>,
}

impl EventReader {
    pub(super) fn new(receive: RecvStream, kind: ForwardKind) -> Self {
        Self {
            receive,
            reader: FrameReader::default(),
            state: RelayForward::new(kind),
            rest: Vec::new(),
        }
    }

    /// Returns the next thing. May be dropped while it waits: nothing is lost.
    pub(super) async fn next(&mut self) -> Result<ForwardReport, ForwardEnd> {
        loop {
            let mut input = self.rest.as_slice();
            let piece = self.reader.read(&mut input);
            let event = match piece.map_err(|error| ForwardEnd::Protocol(error.to_string()))? {
                None => None,
                Some(FramePiece::Data(..)) => {
                    return Err(ForwardEnd::Protocol("unexpected data".into()));
                }
                Some(FramePiece::Message(message)) => Some(self.state.handle_message(message)?),
            };
            let used = self.rest.len() - input.len();
            self.rest.drain(..used);
            if let Some(event) = event {
                return Ok(event);
            }
            match self.receive.read_chunk(CONTROL_READ, true).await {
                Ok(Some(chunk)) => self.rest.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err(ForwardEnd::Protocol("its stream ended too early".into())),
                Err(error) => {
                    return Err(ForwardEnd::DeviceLost(StreamLoss::from(error).to_string()));
                }
            }
        }
    }
}
