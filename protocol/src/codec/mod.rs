//! Framing: how messages are laid out on QUIC streams.
//!
//! - Control stream: `length: u16 BE`, then a postcard message ([`control`]).
//! - Session stream: `kind: u8`, `length: u24 BE`, then data as it is, or a postcard message ([`frame`]).
//!
//! A reader tolerates what a newer minor version may add: unknown messages and frames are skipped,
//! and bytes after the last known field are ignored.

pub mod control;
pub mod frame;
mod open;

use alloc::vec::Vec;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The reason why bytes are not what the protocol says. The stream is of no use after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The announced length is over the bound of its kind.
    #[error("a message of {length} bytes where at most {bound} are allowed")]
    TooLong {
        /// The length that was announced.
        length: usize,
        /// The length that is allowed.
        bound: usize,
    },
    /// The body does not decode as what it claims to be.
    #[error("a message that cannot be decoded (kind {kind})")]
    Malformed {
        /// The variant or frame kind that it claims to be.
        kind: u32,
    },
    /// A message of our own that is over the bound: a caller did not check what it sends.
    #[error("a message is too long to be sent (bound {bound} bytes)")]
    Unsendable {
        /// The length that is allowed.
        bound: usize,
    },
}

/// Encodes `message`, at most `bound` bytes of it.
fn encode_body<T: Serialize>(message: &T, bound: usize) -> Result<Vec<u8>, CodecError> {
    let body = postcard::to_allocvec(message).map_err(|_| CodecError::Unsendable { bound })?;
    if body.len() > bound {
        return Err(CodecError::Unsendable { bound });
    }
    Ok(body)
}

/// Decodes `body` and ignores what follows the last known field.
fn decode_body<T: DeserializeOwned>(body: &[u8], kind: u32) -> Result<T, CodecError> {
    postcard::take_from_bytes(body)
        .map(|(message, _newer_fields)| message)
        .map_err(|_| CodecError::Malformed { kind })
}
