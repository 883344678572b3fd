//! Frames of a session stream.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::open::{OPEN, decode_open, encode_open};
use super::{CodecError, decode_body, encode_body};
use crate::ids::Login;
use crate::limits::{MAX_ACCOUNT_NAMES, MAX_DATA_FRAME, MAX_OPEN_MESSAGE, MAX_SESSION_MESSAGE};
use crate::wire::{Exit, Incoming, Open, SessionRefusal, Signal, WindowSize};

/// Length of the header before each frame's body.
pub const HEADER_LEN: usize = 4;

const ACCEPTED: u8 = 1;
const REFUSED: u8 = 2;
const STDIN: u8 = 3;
const STDOUT: u8 = 4;
const STDERR: u8 = 5;
const EOF: u8 = 6;
const RESIZE: u8 = 7;
const SIGNAL: u8 = 8;
const EXIT: u8 = 9;
const ADDRESS: u8 = 10;
const INCOMING: u8 = 11;
const NAMES: u8 = 12;
const CLOSE_STDOUT: u8 = 13;

/// One of the byte streams of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataStream {
    /// From the operator.
    Stdin,
    /// From the process; a PTY has only this one.
    Stdout,
    /// From the process, apart.
    Stderr,
}

/// A frame that is not data.
#[expect(
    clippy::large_enum_variant,
    reason = "each is made, handed on and gone: an Open once a session, none is ever stored"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionMessage {
    /// Relay to device, first.
    Open(Open),
    /// Device to relay: the process runs.
    Accepted,
    /// Device to relay, instead of `Accepted`.
    Refused(SessionRefusal),
    /// No more data comes this way.
    Eof,
    /// Relay to device: the terminal's new size.
    Resize(WindowSize),
    /// Relay to device: a signal for the process group.
    Signal(Signal),
    /// Device to relay, last.
    Exit(Exit),
    /// Device to relay, behind `Accepted` of a forward: the address that it has come to.
    Address(SocketAddr),
    /// Device to relay: a connection waits on a port.
    Incoming(Incoming),
    /// Device to relay, before `Accepted`: the other logins with the user id of the session's account, at most
    /// [`MAX_ACCOUNT_NAMES`]. A relay that is older than minor version 5 skips it.
    Names(Vec<Login>),
    /// Relay to device, of a process: its operator reads no more of its standard output. An agent that is older than
    /// minor version 5 skips it.
    CloseStdout,
}

impl SessionMessage {
    /// Encodes the frame, header and all.
    ///
    /// # Errors
    /// [`CodecError::Unsendable`] if it is over the bound of its kind.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let (kind, body) = match self {
            Self::Open(open) => (OPEN, encode_open(open)?),
            Self::Accepted => (ACCEPTED, Vec::new()),
            Self::Refused(why) => (REFUSED, encode_body(why, MAX_SESSION_MESSAGE)?),
            Self::Eof => (EOF, Vec::new()),
            Self::Resize(size) => (RESIZE, encode_body(size, MAX_SESSION_MESSAGE)?),
            Self::Signal(signal) => (SIGNAL, encode_body(signal, MAX_SESSION_MESSAGE)?),
            Self::Exit(exit) => (EXIT, encode_body(exit, MAX_SESSION_MESSAGE)?),
            Self::Address(address) => (ADDRESS, encode_body(address, MAX_SESSION_MESSAGE)?),
            Self::Incoming(incoming) => (INCOMING, encode_body(incoming, MAX_SESSION_MESSAGE)?),
            Self::Names(names) => (NAMES, encode_body(names, MAX_SESSION_MESSAGE)?),
            Self::CloseStdout => (CLOSE_STDOUT, Vec::new()),
        };
        Ok([header(kind, body.len()).as_slice(), &body].concat())
    }
}

/// Returns the header of a data frame that carries `length` bytes, which the caller sends behind it. `length`
/// must not be over [`MAX_DATA_FRAME`]: what is above it is left out of the header's length.
#[must_use]
pub fn data_header(stream: DataStream, length: usize) -> [u8; HEADER_LEN] {
    let kind = match stream {
        DataStream::Stdin => STDIN,
        DataStream::Stdout => STDOUT,
        DataStream::Stderr => STDERR,
    };
    header(kind, length.min(MAX_DATA_FRAME))
}

fn header(kind: u8, length: usize) -> [u8; HEADER_LEN] {
    // Every bound is below 2^24, so that the first byte of the length is always zero here.
    let [_, high, middle, low] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [kind, high, middle, low]
}

/// A piece of what was read.
#[expect(clippy::large_enum_variant, reason = "as for `SessionMessage`")]
#[derive(Debug, PartialEq, Eq)]
pub enum FramePiece<'a> {
    /// Data, as far as it has come: a part of the input itself, so that it can be handed on uncopied.
    Data(DataStream, &'a [u8]),
    /// A whole message.
    Message(SessionMessage),
}

/// Cuts a session stream into pieces. Buffers at most one message; data passes through.
#[derive(Debug, Default)]
pub struct FrameReader {
    header: [u8; HEADER_LEN],
    header_filled: usize,
    body: Vec<u8>,
    /// Bytes of the present frame that are still to come, once its header is whole.
    remaining: usize,
    in_frame: bool,
}

impl FrameReader {
    /// Takes bytes from the front of `input` and returns the next piece; `None` when `input` is used up.
    ///
    /// # Errors
    /// [`CodecError`] when the stream breaks the protocol.
    pub fn read<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<FramePiece<'a>>, CodecError> {
        loop {
            if !self.in_frame && !self.start_frame(input)? {
                return Ok(None);
            }
            let (now, later) = input.split_at(self.remaining.min(input.len()));
            *input = later;
            self.remaining -= now.len();
            if let Some(stream) = data_stream(self.header[0]) {
                self.in_frame = self.remaining > 0;
                if !now.is_empty() {
                    return Ok(Some(FramePiece::Data(stream, now)));
                }
            } else {
                if is_known(self.header[0]) {
                    self.body.extend_from_slice(now);
                }
                if self.remaining == 0 {
                    if let Some(message) = self.finish_message()? {
                        return Ok(Some(FramePiece::Message(message)));
                    }
                    continue;
                }
            }
            if self.in_frame && input.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Returns how many bytes of the present frame are still to come. Behind a piece of data it is 0 if that ended
    /// its frame: a chain over frames has to know.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// Returns whether the stream may end here without cutting a frame.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        !self.in_frame && self.header_filled == 0
    }

    fn start_frame(&mut self, input: &mut &[u8]) -> Result<bool, CodecError> {
        let wanted = (HEADER_LEN - self.header_filled).min(input.len());
        let (now, later) = input.split_at(wanted);
        self.header[self.header_filled..self.header_filled + wanted].copy_from_slice(now);
        *input = later;
        self.header_filled += wanted;
        if self.header_filled < HEADER_LEN {
            return Ok(false);
        }
        let [kind, high, middle, low] = self.header;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let bound = bound(kind);
        if length > bound {
            return Err(CodecError::TooLong { length, bound });
        }
        self.header_filled = 0;
        self.remaining = length;
        self.in_frame = true;
        Ok(true)
    }

    fn finish_message(&mut self) -> Result<Option<SessionMessage>, CodecError> {
        self.in_frame = false;
        let body = core::mem::take(&mut self.body);
        let kind = self.header[0];
        Ok(Some(match kind {
            OPEN => SessionMessage::Open(decode_open(&body)?),
            ACCEPTED => SessionMessage::Accepted,
            REFUSED => SessionMessage::Refused(decode_body(&body, kind.into())?),
            EOF => SessionMessage::Eof,
            RESIZE => SessionMessage::Resize(decode_body(&body, kind.into())?),
            SIGNAL => SessionMessage::Signal(decode_body(&body, kind.into())?),
            EXIT => SessionMessage::Exit(decode_body(&body, kind.into())?),
            ADDRESS => SessionMessage::Address(decode_body(&body, kind.into())?),
            INCOMING => SessionMessage::Incoming(decode_body(&body, kind.into())?),
            NAMES => {
                let names: Vec<Login> = decode_body(&body, kind.into())?;
                if names.len() > MAX_ACCOUNT_NAMES {
                    return Err(CodecError::Malformed { kind: kind.into() });
                }
                SessionMessage::Names(names)
            }
            CLOSE_STDOUT => SessionMessage::CloseStdout,
            _ => return Ok(None),
        }))
    }
}

fn data_stream(kind: u8) -> Option<DataStream> {
    match kind {
        STDIN => Some(DataStream::Stdin),
        STDOUT => Some(DataStream::Stdout),
        STDERR => Some(DataStream::Stderr),
        _ => None,
    }
}

fn is_known(kind: u8) -> bool {
    kind <= CLOSE_STDOUT
}

fn bound(kind: u8) -> usize {
    match kind {
        OPEN => MAX_OPEN_MESSAGE,
        STDIN | STDOUT | STDERR => MAX_DATA_FRAME,
        known if is_known(known) => MAX_SESSION_MESSAGE,
        // A frame of a newer minor version is skipped, not stored: any length that fits is bearable.
        _newer => 0x00ff_ffff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn read_all(bytes: &[u8], cut: usize) -> Result<(Vec<SessionMessage>, Vec<u8>), CodecError> {
        let mut reader = FrameReader::default();
        let (mut messages, mut data) = (vec![], vec![]);
        for mut part in bytes.chunks(cut) {
            while let Some(piece) = reader.read(&mut part)? {
                match piece {
                    FramePiece::Data(DataStream::Stdout, bytes) => data.extend_from_slice(bytes),
                    FramePiece::Data(..) => {}
                    FramePiece::Message(message) => messages.push(message),
                }
            }
            assert!(part.is_empty());
        }
        assert!(reader.is_between_frames());
        Ok((messages, data))
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_are_cut() {
        let resize = SessionMessage::Resize(WindowSize::clamped(80, 24, 0, 1 << 20));
        let exit = SessionMessage::Exit(Exit::Status(3));
        let newer = [200, 0, 0, 3, 1, 2, 3];
        let bytes = [
            SessionMessage::Accepted.encode().unwrap(),
            data_header(DataStream::Stdout, 5).to_vec(),
            b"hello".to_vec(),
            resize.encode().unwrap(),
            newer.to_vec(),
            data_header(DataStream::Stdout, 0).to_vec(),
            SessionMessage::Eof.encode().unwrap(),
            exit.encode().unwrap(),
        ]
        .concat();
        for cut in 1..=bytes.len() {
            let (messages, data) = read_all(&bytes, cut).unwrap();
            let expected = [
                SessionMessage::Accepted,
                resize.clone(),
                SessionMessage::Eof,
                exit.clone(),
            ];
            assert_eq!(messages, expected, "cut at {cut}");
            assert_eq!(data, b"hello");
        }
    }

    #[test]
    fn data_is_handed_on_before_its_frame_is_whole() {
        let mut reader = FrameReader::default();
        let bytes = [data_header(DataStream::Stderr, 10).as_slice(), b"abc"].concat();
        let mut input = bytes.as_slice();
        let piece = reader.read(&mut input).unwrap();
        assert_eq!(piece, Some(FramePiece::Data(DataStream::Stderr, b"abc")));
        assert_eq!(reader.read(&mut input), Ok(None));
        assert!(!reader.is_between_frames());
    }

    #[test]
    fn a_length_over_the_bound_of_its_kind_is_an_error() {
        for (kind, bound) in [
            (OPEN, MAX_OPEN_MESSAGE),
            (EXIT, MAX_SESSION_MESSAGE),
            (STDIN, MAX_DATA_FRAME),
        ] {
            let mut input: &[u8] = &header(kind, bound + 1);
            let error = FrameReader::default().read(&mut input);
            assert_eq!(
                error,
                Err(CodecError::TooLong {
                    length: bound + 1,
                    bound
                })
            );
        }
    }

    #[test]
    fn what_is_too_long_is_not_sent() {
        let reason = SessionRefusal::Failed("x".repeat(MAX_SESSION_MESSAGE));
        let error = SessionMessage::Refused(reason).encode();
        assert_eq!(
            error,
            Err(CodecError::Unsendable {
                bound: MAX_SESSION_MESSAGE
            })
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_reader(bytes: Vec<u8>, cut in 1_usize..50) {
            let mut reader = FrameReader::default();
            'parts: for mut part in bytes.chunks(cut) {
                loop {
                    match reader.read(&mut part) {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => break 'parts,
                    }
                }
            }
        }
    }
}
