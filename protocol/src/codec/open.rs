//! The body of an `Open`: the message of the first minor version, and the parts that follow it.

use alloc::vec::Vec;

use serde::Deserialize;

use super::{CodecError, encode_body};
use crate::ids::SessionId;
use crate::limits::{MAX_DENIED_LOGINS, MAX_OPEN_MESSAGE};
use crate::wire::{ChainKey, ForwardLogRef, Open, RecordingMode, RecordingTerms, StdinMode};

/// The kind of its frame.
pub(super) const OPEN: u8 = 0;

/// The terms of a recording that are sent where there is none and later parts follow.
const UNRECORDED: RecordingTerms = RecordingTerms {
    mode: RecordingMode::Off,
    stdin: StdinMode::Off,
    key: ChainKey([0; 32]),
    recover: false,
};

/// The forward log that is sent where there is none and later parts follow.
const NO_FORWARD_LOG: ForwardLogRef = ForwardLogRef {
    session: SessionId([0; 16]),
    number: 0,
    mode: RecordingMode::Off,
};

/// Encodes `Open` and, behind it, what the first minor version did not have. A part is left out only if all that follow
/// it are.
pub(super) fn encode_open(open: &Open) -> Result<Vec<u8>, CodecError> {
    let terms = &open.terms;
    let has_later_terms = !terms.denied_logins.is_empty()
        || terms.on_disconnect.is_some()
        || terms.content_max.is_some();
    let log = open.forward_log.as_ref();
    let log = log.or(has_later_terms.then_some(&NO_FORWARD_LOG));
    let has_terms = terms.sftp.is_some() || terms.agent || log.is_some();
    let recording = open.recording.as_ref();
    let mut body = encode_body(open, MAX_OPEN_MESSAGE)?;
    if let Some(recording) = recording.or(has_terms.then_some(&UNRECORDED)) {
        body.extend(encode_body(recording, MAX_OPEN_MESSAGE - body.len())?);
    }
    if has_terms {
        let terms = (&terms.sftp, terms.agent);
        body.extend(encode_body(&terms, MAX_OPEN_MESSAGE - body.len())?);
    }
    if let Some(log) = log {
        body.extend(encode_body(log, MAX_OPEN_MESSAGE - body.len())?);
    }
    if has_later_terms {
        // More fields are appended to this tuple, in the order in which `decode_open` takes them.
        let terms = (&terms.denied_logins, terms.on_disconnect, terms.content_max);
        body.extend(encode_body(&terms, MAX_OPEN_MESSAGE - body.len())?);
    }
    Ok(body)
}

pub(super) fn decode_open(body: &[u8]) -> Result<Open, CodecError> {
    let mut rest = body;
    let mut open: Open = take(&mut rest)?;
    if rest.is_empty() {
        return Ok(open);
    }
    open.recording = Some(take(&mut rest)?).filter(|terms| *terms != UNRECORDED);
    if rest.is_empty() {
        return Ok(open);
    }
    (open.terms.sftp, open.terms.agent) = take(&mut rest)?;
    if rest.is_empty() {
        return Ok(open);
    }
    open.forward_log = Some(take(&mut rest)?).filter(|log| *log != NO_FORWARD_LOG);
    open.terms.denied_logins = take_or_default(&mut rest)?;
    if open.terms.denied_logins.len() > MAX_DENIED_LOGINS {
        return Err(CodecError::Malformed { kind: OPEN.into() });
    }
    open.terms.on_disconnect = take_or_default(&mut rest)?;
    open.terms.content_max = take_or_default(&mut rest)?;
    Ok(open)
}

/// Takes a value from the front of an `Open`'s bytes.
fn take<'a, T: Deserialize<'a>>(bytes: &mut &'a [u8]) -> Result<T, CodecError> {
    let (value, rest) = postcard::take_from_bytes(bytes)
        .map_err(|_| CodecError::Malformed { kind: OPEN.into() })?;
    *bytes = rest;
    Ok(value)
}

/// Returns the same, of a peer that may be too old to send it.
fn take_or_default<'a, T: Deserialize<'a> + Default>(
    bytes: &mut &'a [u8],
) -> Result<T, CodecError> {
    if bytes.is_empty() {
        return Ok(T::default());
    }
    take(bytes)
}
