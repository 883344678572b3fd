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

/// Shows a sentence that is composed already on one line: only what [`is_treacherous`] comes out as an escape,
/// quotes and backslashes stay. Texts from outside in it are quoted with [`Escaped`] where it is composed.
#[derive(Clone, Copy)]
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaping(f).write_str(self.0)
    }
}

/// Shows text of several lines: as [`OneLine`] does, but line feeds and tabs stay.
#[derive(Clone, Copy)]
pub struct Lines<'a>(pub &'a str);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\n' | '\t' => f.write_char(c),
            c => write_harmless(f, c),
        })
    }
}

/// Shows JSON text, compact or indented, that is equal data and harmless: what [`is_treacherous`] in its strings
/// comes out as `\uXXXX`. JSON itself asks that only of control characters below U+0020, and there a serializer has
/// done it; a terminal also obeys U+009B, readers of lines break at U+0085 and U+2028, and people misread U+202E.
#[derive(Clone, Copy)]
pub struct Json<'a>(pub &'a str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            // Between its tokens there may be line feeds; within its strings there are none as they are.
            if c == '\n' || !is_treacherous(c) {
                return f.write_char(c);
            }
            let mut units = [0; 2];
            let mut units = c.encode_utf16(&mut units).iter();
            units.try_for_each(|unit| write!(f, "\\u{unit:04x}"))
        })
    }
}

/// Passes text on to `W` as [`OneLine`] shows it, without holding it.
#[derive(Debug)]
pub struct Escaping<W>(pub W);

impl<W: fmt::Write> fmt::Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_treacherous) {
            let (plain, tail) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut chars = tail.chars();
            if let Some(c) = chars.next() {
                write_harmless(&mut self.0, c)?;
            }
            rest = chars.as_str();
        }
        self.0.write_str(rest)
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '"' | '\\' => write!(f, "\\{c}"),
        c => write_harmless(f, c),
    }
}

fn write_harmless(f: &mut impl fmt::Write, c: char) -> fmt::Result {
    match c {
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        c if is_treacherous(c) => write!(f, "\\u{{{:x}}}", u32::from(c)),
        c => f.write_char(c),
    }
}

/// Returns whether a character drives a terminal, breaks a line, hides, or changes how its neighbours look: no
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

    #[test]
    fn a_composed_sentence_keeps_its_quotes() {
        let text = "no \"a\\b\"\n\u{1b}[m\u{9b}\u{202e}\u{2028}\u{e0041}\tö";
        let shown = "no \"a\\b\"\\n\\u{1b}[m\\u{9b}\\u{202e}\\u{2028}\\u{e0041}\\tö";
        assert_eq!(OneLine(text).to_string(), shown);
        assert_eq!(Lines("a\n\tb\r\u{85}").to_string(), "a\n\tb\\r\\u{85}");
    }

    #[test]
    fn json_stays_equal_data() {
        let text = "{\n  \"a\": \"\u{7f}\u{9b}31m\u{e0041}\u{2028}ö\\n\"\n}";
        let shown = "{\n  \"a\": \"\\u007f\\u009b31m\\udb40\\udc41\\u2028ö\\n\"\n}";
        assert_eq!(Json(text).to_string(), shown);
    }

    proptest::proptest! {
        #[test]
        fn any_text_becomes_one_harmless_line(text: alloc::string::String) {
            let shown = OneLine(&text).to_string();
            proptest::prop_assert!(!shown.contains(is_treacherous));
            let lines = Lines(&text).to_string();
            proptest::prop_assert_eq!(lines.matches('\n').count(), text.matches('\n').count());
        }

        #[test]
        fn any_bytes_become_one_harmless_line(bytes: alloc::vec::Vec<u8>) {
            let shown = EscapedBytes(&bytes).to_string();
            proptest::prop_assert!(!shown.chars().any(char::is_control));
        }
    }
}
