//! Output of many devices, line by line, each behind its device's name.

use std::fmt::Write as _;

use holdfast_protocol::escape::{Escaped, is_treacherous};
use holdfast_protocol::ids::DeviceName;

use crate::bulk::limits::{MAX_BULK_KEPT, MAX_BULK_LINE};

/// A line of output.
#[derive(Debug)]
pub(super) struct Line {
    /// The device.
    pub(super) device: DeviceName,
    /// True if it is of the standard error output.
    pub(super) is_error: bool,
    /// Harmless, and without its line feed.
    pub(super) text: String,
}

/// Finds the lines of one stream.
#[derive(Debug, Default)]
pub(super) struct DeviceLines(Vec<u8>);

impl DeviceLines {
    /// Returns the lines that are complete with `data`, made harmless. One that is too long is cut into several.
    pub(super) fn take(&mut self, data: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut parts = data.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            self.add(part, &mut lines);
            if parts.peek().is_some() {
                let line = std::mem::take(&mut self.0);
                lines.push(harmless(line.strip_suffix(b"\r").unwrap_or(&line)));
            }
        }
        lines
    }

    /// Returns what came behind the last line feed, at the end.
    pub(super) fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.0);
        (!rest.is_empty()).then(|| harmless(&rest))
    }

    fn add(&mut self, mut part: &[u8], lines: &mut Vec<String>) {
        while self.0.len() + part.len() > MAX_BULK_LINE {
            let (here, rest) = part.split_at(MAX_BULK_LINE - self.0.len());
            self.0.extend_from_slice(here);
            let end = whole_characters(&self.0);
            let next = self.0.split_off(end);
            lines.push(harmless(&self.0));
            (self.0, part) = (next, rest);
        }
        self.0.extend_from_slice(part);
    }
}

/// Returns up to where `bytes` can be cut without cutting a character.
fn whole_characters(bytes: &[u8]) -> usize {
    let cut = bytes.utf8_chunks().last().map_or(0, |chunk| {
        let rest = chunk.invalid();
        // The beginning of a character is at most three bytes; anything else is not valid UTF-8 anyway.
        let begins = rest.first().is_some_and(|byte| *byte >= 0xc2);
        if begins && rest.len() < 4 {
            rest.len()
        } else {
            0
        }
    });
    match bytes.len() - cut {
        0 => bytes.len(),
        end => end,
    }
}

/// Returns text that can't hurt a terminal: what drives one, hides, or is not text is shown as an escape. Quotes,
/// backslashes and tabs stay, because people read it.
pub(super) fn harmless(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c != '\t' && is_treacherous(c) {
                // Writing into a String cannot fail.
                let _ = write!(shown, "{}", Escaped(c.encode_utf8(&mut [0; 4])));
            } else {
                shown.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// The beginning of a stream, for who wants it in one piece.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    bytes: Vec<u8>,
    /// True if there was more.
    pub(super) is_cut: bool,
}

impl Beginning {
    pub(super) fn take(&mut self, data: &[u8]) {
        let room = MAX_BULK_KEPT - self.bytes.len();
        let here = data.get(..room).unwrap_or(data);
        self.bytes.extend_from_slice(here);
        self.is_cut |= here.len() < data.len();
    }

    /// Returns it as text: what is no UTF-8 is replaced.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let mut lines = DeviceLines::default();
        assert_eq!(lines.take(b"on"), [""; 0]);
        assert_eq!(lines.take(b"e\r\ntwo\n\nth"), ["one", "two", ""]);
        assert_eq!(lines.take(b"ree"), [""; 0]);
        assert_eq!(lines.rest().as_deref(), Some("three"));
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn nothing_of_a_device_drives_the_terminal() {
        let mut lines = DeviceLines::default();
        let nasty = "\u{1b}]0;owned\u{7}\u{202e}\r\"a\\b\"\tc\u{9b}2J\n";
        let shown = lines.take(nasty.as_bytes());
        assert_eq!(
            shown,
            ["\\u{1b}]0;owned\\u{7}\\u{202e}\\r\"a\\b\"\tc\\u{9b}2J"]
        );
        assert_eq!(harmless(b"\xff\x00ok"), "\\xff\\u{0}ok");
    }

    #[test]
    fn a_line_without_an_end_is_cut_between_characters() {
        let mut lines = DeviceLines::default();
        let shown = lines.take("a\u{20ac}".repeat(MAX_BULK_LINE).as_bytes());
        assert!(shown.iter().all(|line| line.len() <= MAX_BULK_LINE));
        assert!(!shown.concat().contains("\\x"));
        // Bytes that are the beginning of no character are cut anywhere, and nothing is waited for.
        assert!(
            DeviceLines::default()
                .take(&[0xe2; 3 * MAX_BULK_LINE])
                .len()
                > 1
        );
    }

    proptest! {
        #[test]
        fn no_output_is_lost_or_harmful(pieces: Vec<Vec<u8>>) {
            let mut lines = DeviceLines::default();
            let mut shown: Vec<String> = pieces.iter().flat_map(|piece| lines.take(piece)).collect();
            shown.extend(lines.rest());
            let harmful = |c: char| c != '\t' && is_treacherous(c);
            prop_assert!(!shown.concat().contains(harmful));
            let feeds = pieces.concat().iter().filter(|byte| **byte == b'\n').count();
            prop_assert!(shown.len() == feeds || shown.len() == feeds + 1);
        }
    }
}
