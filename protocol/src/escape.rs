//! Text from outside, made safe for a terminal, a log line or a page.

use core::fmt::{self, Write as _};

/// Shows `text` on one line: control characters, quotes, the backslash, bidirectional overrides and
/// other invisible characters come out as escapes, so that a name with CR, LF or ESC in it can neither
/// forge a line nor drive a terminal.
#[derive(Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| write_escaped(f, c))
    }
}

/// Shows bytes as [`Escaped`] does; what is not UTF-8 comes out as `\xNN`.
#[derive(Clone, Copy)]
pub struct EscapedBytes<'a>(pub &'a [u8]);

impl fmt::Display for EscapedBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.utf8_chunks().try_for_each(|chunk| {
            Escaped(chunk.valid()).fmt(f)?;
            chunk
                .invalid()
                .iter()
                .try_for_each(|byte| write!(f, "\\x{byte:02x}"))
        })
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '"' | '\\' => write!(f, "\\{c}"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        c if is_treacherous(c) => write!(f, "\\u{{{:x}}}", u32::from(c)),
        c => f.write_char(c),
    }
}

/// Whether a character drives a terminal, breaks a line, hides, or changes how its neighbours look: no
/// output may hold it as it is.
#[must_use]
pub fn is_treacherous(c: char) -> bool {
    c.is_control() || is_invisible(c)
}

/// Characters that change how their neighbours look, or look like nothing: bidirectional controls,
/// zero-width characters, line and paragraph separators, tags.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn nothing_that_drives_a_terminal_survives() {
        let shown = Escaped("a\r\n\u{1b}[2J\"\\\u{202e}\u{9b}ö").to_string();
        assert_eq!(shown, "a\\r\\n\\u{1b}[2J\\\"\\\\\\u{202e}\\u{9b}ö");
        assert_eq!(EscapedBytes(b"ok\xff\x00").to_string(), "ok\\xff\\u{0}");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_become_one_harmless_line(bytes: alloc::vec::Vec<u8>) {
            let shown = EscapedBytes(&bytes).to_string();
            proptest::prop_assert!(!shown.chars().any(char::is_control));
        }
    }
}
