//! Messages of the control stream and of upload streams, which are framed alike.

use alloc::vec::Vec;
use core::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CodecError, decode_body, encode_body};
use crate::limits::MAX_CONTROL_MESSAGE;
use crate::wire::peer::PeerMessage;
use crate::wire::{AgentMessage, RelayMessage, UploadAnswer, UploadMessage};

/// A set of control messages: an enum whose variants are only ever appended.
pub trait ControlMessage: Serialize + DeserializeOwned {
    /// The number of variants that this version knows.
    const KNOWN: u32;
}

impl ControlMessage for AgentMessage {
    const KNOWN: u32 = 5;
}

impl ControlMessage for RelayMessage {
    const KNOWN: u32 = 10;
}

impl ControlMessage for UploadMessage {
    const KNOWN: u32 = 5;
}

impl ControlMessage for UploadAnswer {
    const KNOWN: u32 = 5;
}

impl ControlMessage for PeerMessage {
    const KNOWN: u32 = 7;
}

/// Encodes a message with its length in front.
///
/// # Errors
/// [`CodecError::Unsendable`] if it is over [`MAX_CONTROL_MESSAGE`].
pub fn encode<T: ControlMessage>(message: &T) -> Result<Vec<u8>, CodecError> {
    let body = encode_body(message, MAX_CONTROL_MESSAGE)?;
    let length = u16::try_from(body.len()).map_err(|_| CodecError::Unsendable {
        bound: MAX_CONTROL_MESSAGE,
    })?;
    Ok([length.to_be_bytes().as_slice(), &body].concat())
}

/// Cuts a byte stream into messages. Holds at most one incomplete message.
#[derive(Debug)]
pub struct ControlReader<T> {
    pending: Vec<u8>,
    messages: PhantomData<fn() -> T>,
}

impl<T> Default for ControlReader<T> {
    fn default() -> Self {
        Self {
            pending: Vec::new(),
            messages: PhantomData,
        }
    }
}

impl<T: ControlMessage> ControlReader<T> {
    /// Takes bytes from the front of `input` until a message is whole, and returns it; `None` when
    /// `input` is used up. Messages that only a newer minor version knows are skipped.
    ///
    /// # Errors
    /// [`CodecError`] when the stream breaks the protocol.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<T>, CodecError> {
        loop {
            let Some(body) = self.take_body(input)? else {
                return Ok(None);
            };
            let kind = postcard::from_bytes::<u32>(&body)
                .map_err(|_| CodecError::Malformed { kind: u32::MAX })?;
            if kind < T::KNOWN {
                return decode_body(&body, kind).map(Some);
            }
        }
    }

    fn take_body(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, CodecError> {
        if !self.fill(input, 2) {
            return Ok(None);
        }
        let length = usize::from(u16::from_be_bytes([self.pending[0], self.pending[1]]));
        if length > MAX_CONTROL_MESSAGE {
            return Err(CodecError::TooLong {
                length,
                bound: MAX_CONTROL_MESSAGE,
            });
        }
        if !self.fill(input, 2 + length) {
            return Ok(None);
        }
        let body = self.pending.split_off(2);
        self.pending.clear();
        Ok(Some(body))
    }

    /// Moves bytes until `pending` holds `target` of them; false when `input` ran dry before.
    fn fill(&mut self, input: &mut &[u8], target: usize) -> bool {
        let wanted = target.saturating_sub(self.pending.len()).min(input.len());
        let (now, later) = input.split_at(wanted);
        self.pending.extend_from_slice(now);
        *input = later;
        self.pending.len() >= target
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Beat;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn messages_come_out_whole_however_the_bytes_are_cut() {
        let beats = [true, false, true].map(|echo| AgentMessage::Beat(Beat { echo }));
        let bytes: Vec<u8> = beats.iter().flat_map(|m| encode(m).unwrap()).collect();
        for cut in 1..bytes.len() {
            let mut reader = ControlReader::<AgentMessage>::default();
            let mut got = vec![];
            for mut part in bytes.chunks(cut) {
                while let Some(message) = reader.read(&mut part).unwrap() {
                    got.push(message);
                }
            }
            assert_eq!(got, beats, "cut at {cut}");
        }
    }

    #[test]
    fn what_a_newer_minor_version_adds_is_skipped() {
        let unknown_variant = [0, 3, 120, 1, 2];
        let beat_with_new_field = [0, 4, 2, 1, 9, 9];
        let stream = [unknown_variant.as_slice(), &beat_with_new_field].concat();
        let mut input = stream.as_slice();
        let message = ControlReader::<AgentMessage>::default().read(&mut input);
        assert_eq!(message, Ok(Some(AgentMessage::Beat(Beat { echo: true }))));
        assert!(input.is_empty());
    }

    #[test]
    fn lengths_over_the_bound_and_malformed_bodies_are_errors() {
        let read = |bytes: &[u8]| ControlReader::<AgentMessage>::default().read(&mut &*bytes);
        assert_eq!(
            read(&[0x20, 0x01]),
            Err(CodecError::TooLong {
                length: 0x2001,
                bound: MAX_CONTROL_MESSAGE
            })
        );
        assert_eq!(read(&[0, 2, 2, 7]), Err(CodecError::Malformed { kind: 2 }));
        assert_eq!(read(&[0, 0]), Err(CodecError::Malformed { kind: u32::MAX }));
        assert_eq!(read(&[0x1f]), Ok(None));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_reader(bytes: Vec<u8>) {
            let mut agent = ControlReader::<AgentMessage>::default();
            let mut relay = ControlReader::<RelayMessage>::default();
            let mut input = bytes.as_slice();
            while let Ok(Some(_)) = agent.read(&mut input) {}
            let mut input = bytes.as_slice();
            while let Ok(Some(_)) = relay.read(&mut input) {}
            let mut upload = ControlReader::<UploadMessage>::default();
            let mut input = bytes.as_slice();
            while let Ok(Some(_)) = upload.read(&mut input) {}
            let mut answers = ControlReader::<UploadAnswer>::default();
            let mut input = bytes.as_slice();
            while let Ok(Some(_)) = answers.read(&mut input) {}
        }
    }
}
