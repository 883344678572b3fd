//! The one way from values to JSON that leaves the relay: listings, the audit log, exports. Text in it may be from
//! devices and clients, so nothing in it breaks a line, hides, or drives a terminal; as data it is what it was.

use holdfast_protocol::escape::Json;
use serde::Serialize;

/// Returns `value` indented over several lines, with a final line feed.
///
/// # Errors
/// A map whose keys are not strings.
pub(crate) fn pretty(value: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(format!("{}\n", Json(&text)))
}

/// Returns `value` as one line without a line feed. Values whose maps have strings as keys cannot fail; any other
/// becomes `null`.
#[must_use]
pub(crate) fn compact(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value);
    let text = text.as_deref().unwrap_or("null");
    Json(text).to_string()
}

/// Returns `value` as one line with its line feed.
#[must_use]
pub(crate) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = compact(value).into_bytes();
    line.push(b'\n');
    line
}
