//! Bytes, events and names as text that an export may show.

use holdfast_protocol::count::Count;
use holdfast_protocol::escape::EscapedBytes;
use holdfast_protocol::recording::reader::DamagedBlock;
use holdfast_protocol::recording::record::{ContentEnds, Event, Gap};
use holdfast_protocol::wire::Exit;

use super::screen::shown_size;
use crate::recording::verify::{content_not_kept, name};

/// Bytes that become text, of which a character may be cut in two.
#[derive(Debug, Default)]
pub(crate) struct ExportText(Vec<u8>);

impl ExportText {
    /// Returns what is whole by now. What is not valid UTF-8 is shown as replacement characters.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> String {
        self.0.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.0) {
            // A character that goes on: at most three bytes.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => self.0.len() - cut(&self.0),
            Ok(_) => self.0.len(),
        };
        let rest = self.0.split_off(whole);
        let text = String::from_utf8_lossy(&self.0).into_owned();
        self.0 = rest;
        text
    }
}

/// Returns the number of last bytes that are the beginning of a character.
fn cut(bytes: &[u8]) -> usize {
    (1..=3)
        .find(|back| {
            let tail = bytes
                .get(bytes.len().saturating_sub(*back)..)
                .unwrap_or_default();
            let begins = tail.first().is_some_and(|byte| *byte >= 0xc0);
            begins && std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none())
        })
        .unwrap_or(0)
}

/// Bytes that are mostly text: as that, or escaped.
pub(super) struct EscapedOrText<'a>(pub(super) &'a [u8]);

impl std::fmt::Display for EscapedOrText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match std::str::from_utf8(self.0) {
            Ok(text) => f.write_str(text),
            Err(_) => write!(f, "{}", EscapedBytes(self.0)),
        }
    }
}

/// Returns a time in a recording as machines get it.
pub(crate) fn seconds(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
}

/// Returns a status, or a signal's name.
pub(super) fn exit_word(exit: &Exit) -> String {
    match exit {
        Exit::Status(status) => status.to_string(),
        Exit::Signal { signal, .. } => format!("{signal:?}").to_uppercase(),
    }
}

/// Returns, in words, where the content of a stream ends that is not kept whole.
pub(crate) fn content_end_text(ends: &ContentEnds) -> String {
    format!(
        "{}: {}",
        name(ends.stream),
        content_not_kept(ends.from.bytes)
    )
}

/// Returns, in words, how much of the input is redacted.
pub(crate) fn redacted_text(bytes: u64) -> String {
    format!("redacted, {}", Count(bytes, "byte"))
}

/// Returns, in words, how much a gap lacks.
pub(crate) fn missing_text(gap: &Gap) -> String {
    let (bytes, records) = (Count(gap.missing(), "byte"), Count(gap.records, "record"));
    match (gap.missing(), gap.records) {
        (_, 0) => bytes.to_string(),
        (0, _) => records.to_string(),
        _ => format!("{bytes} and {records}"),
    }
}

/// Returns an exit status or a terminal's size in words.
pub(crate) fn event_text(event: &Event<'_>) -> String {
    match event {
        Event::Exit(exit) => format!("exit {}", exit_word(exit)),
        Event::Resize(size) => {
            let (columns, rows) = shown_size(*size);
            format!("size {columns}x{rows}")
        }
        _ => String::new(),
    }
}

/// Returns where blocks cannot be read, in words.
pub(crate) fn damage_text(at: DamagedBlock) -> String {
    let DamagedBlock { segment, block } = at;
    format!("segment {segment}, block {block} is damaged")
}

/// Returns the line in place of blocks that cannot be read.
pub(crate) fn gap_line(at: DamagedBlock) -> String {
    format!("[gap: {}; what follows is not proved]", damage_text(at))
}

/// Returns `PowerLoss` as `power_loss`.
pub(super) fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_is_cut_in_two_is_held_back() {
        let mut text = ExportText::default();
        assert_eq!(text.take(b"a\xe2\x82"), "a");
        assert_eq!(text.take(b"\xac!"), "\u{20ac}!");
        assert_eq!(text.take(b"\xff\xe2\x82"), "\u{fffd}");
        assert_eq!(text.take(b"\xac"), "\u{20ac}");
        assert_eq!(text.take(b"\xf0\x9f"), "");
        assert_eq!(text.take(b"x"), "\u{fffd}x");
    }
}
