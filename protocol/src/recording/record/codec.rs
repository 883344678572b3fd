//! Records as bytes: each behind its length.

use alloc::vec::Vec;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::{Event, KNOWN_EVENTS, Record, RecordedBytes};
use crate::limits::MAX_RECORD;

/// The reason why bytes are no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// A record of our own that is over [`MAX_RECORD`].
    #[error("a record is longer than {MAX_RECORD} bytes")]
    TooLong,
    /// The bytes end within a record, or are none.
    #[error("a record cannot be decoded")]
    Malformed,
}

impl Record<'_> {
    /// Appends the record to `out`, behind its length.
    ///
    /// # Errors
    /// [`RecordError::TooLong`]; `out` is then as it was.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let start = out.len();
        // Most records are short: one byte for the length, and room is made where it takes more.
        out.push(0);
        let encoded = postcard::to_extend(self, core::mem::take(out));
        // Extending a vector fails only for types without a known length, of which a record has none.
        *out = encoded.map_err(|_| RecordError::TooLong)?;
        let length = out.len() - start - 1;
        if length > MAX_RECORD {
            out.truncate(start);
            return Err(RecordError::TooLong);
        }
        let mut digits = [0_u8; 3];
        let used = encode_length(length, &mut digits);
        out.splice(start..=start, digits.iter().take(used).copied());
        Ok(())
    }
}

/// Takes the next record from the front of `input`: its time after the record before it, and what happened;
/// `None` for what only a newer version knows.
///
/// # Errors
/// [`RecordError::Malformed`].
pub fn decode<'a>(input: &mut &'a [u8]) -> Result<(u64, Option<Event<'a>>), RecordError> {
    let length = decode_length(input)?;
    if length > MAX_RECORD || length > input.len() {
        return Err(RecordError::Malformed);
    }
    let (body, rest) = input.split_at(length);
    *input = rest;
    let (delta, event) = postcard::take_from_bytes(body).map_err(|_| RecordError::Malformed)?;
    if event.first().is_some_and(|kind| *kind >= KNOWN_EVENTS) {
        return Ok((delta, None));
    }
    postcard::take_from_bytes(event)
        .map(|(event, _newer_fields)| (delta, Some(event)))
        .map_err(|_| RecordError::Malformed)
}

/// Encodes a length in LEB128, as postcard's integers: at most three digits for what is at most [`MAX_RECORD`].
fn encode_length(length: usize, digits: &mut [u8; 3]) -> usize {
    let mut rest = length;
    let mut used = 0;
    for digit in digits.iter_mut() {
        let low = u8::try_from(rest & 0x7f).unwrap_or(0);
        rest >>= 7;
        used += 1;
        if rest == 0 {
            *digit = low;
            break;
        }
        *digit = low | 0x80;
    }
    used
}

fn decode_length(input: &mut &[u8]) -> Result<usize, RecordError> {
    let mut length = 0_usize;
    for shift in [0, 7, 14] {
        let (digit, rest) = input.split_first().ok_or(RecordError::Malformed)?;
        *input = rest;
        length |= usize::from(digit & 0x7f) << shift;
        if digit & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(RecordError::Malformed)
}

impl Serialize for RecordedBytes<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // At one go: a slice would go byte by byte.
        to.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RecordedBytes<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        <&'a [u8]>::deserialize(from).map(Self)
    }
}
