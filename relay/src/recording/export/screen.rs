//! A recorded terminal, drawn on another one. Nothing of the recording reaches the viewer's terminal but
//! characters: the colours and places are our own sequences, made from what a virtual terminal shows.

use std::fmt::Write as _;

use avt::observer::DirtyRows;
use avt::{Color, Pen, Terminal};
use holdfast_protocol::escape::is_treacherous;
use holdfast_protocol::wire::WindowSize;

use crate::recording::limits::{MAX_SCREEN_COLUMNS, MAX_SCREEN_ROWS};

/// Opens a screen of its own, which leaves what the viewer had before as it was.
pub(crate) const OPEN: &str = "\x1b[?1049h\x1b[0m\x1b[2J\x1b[H";

/// Closes it.
pub(crate) const CLOSE: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";

/// The screen of a recorded terminal.
pub(crate) struct Screen {
    terminal: Terminal,
    dirty: DirtyRows,
    whole: bool,
}

impl Screen {
    /// Returns an empty one of the size that was recorded, within bounds.
    #[must_use]
    pub(crate) fn new(size: WindowSize) -> Option<Self> {
        let (columns, rows) = shown_size(size);
        Some(Self {
            terminal: Terminal::new(columns, rows).ok()?,
            dirty: DirtyRows::new(),
            whole: true,
        })
    }

    /// Takes output without drawing it.
    pub(crate) fn skip(&mut self, text: &str) {
        let _ = self.terminal.feed_with(text, &mut self.dirty);
        self.whole = true;
    }

    /// Takes output, and gives what draws it.
    pub(crate) fn draw(&mut self, text: &str) -> String {
        let rows = self.terminal.feed_with(text, &mut self.dirty);
        self.paint(rows)
    }

    /// Takes a new size, and gives what draws it.
    pub(crate) fn resize(&mut self, size: WindowSize) -> String {
        let (columns, rows) = shown_size(size);
        let _ = self.terminal.resize_with(columns, rows, &mut self.dirty);
        self.whole = true;
        self.paint(Vec::new())
    }

    /// Returns what draws a note below the screen, or over its last row where the viewer's has no more. It leaves the
    /// screen as it is.
    pub(crate) fn note(&self, text: &str) -> String {
        let (cursor, below) = (self.terminal.cursor(), self.terminal.size().1 + 1);
        let (row, column) = (cursor.row + 1, cursor.col + 1);
        format!("\x1b[{below};1H\x1b[0;7m{text}\x1b[0m\x1b[{row};{column}H")
    }

    fn paint(&mut self, rows: Vec<usize>) -> String {
        let mut out = String::new();
        let rows = match std::mem::take(&mut self.whole) {
            true => {
                out.push_str("\x1b[0m\x1b[2J");
                (0..self.terminal.size().1).collect()
            }
            false => rows,
        };
        for row in rows {
            self.paint_row(&mut out, row);
        }
        let cursor = self.terminal.cursor();
        let shape = if cursor.visible {
            "\x1b[?25h"
        } else {
            "\x1b[?25l"
        };
        // Writing into a String cannot fail.
        let _ = write!(out, "\x1b[{};{}H{shape}", cursor.row + 1, cursor.col + 1);
        out
    }

    fn paint_row(&self, out: &mut String, row: usize) {
        let Some(line) = self.terminal.screen().line(row) else {
            return;
        };
        let _ = write!(out, "\x1b[{};1H\x1b[0m", row + 1);
        let mut pen = Pen::default();
        for cell in line.cells().iter().filter(|cell| cell.width() > 0) {
            if *cell.pen() != pen {
                pen = *cell.pen();
                out.push_str(&colours(&pen));
            }
            let shown = cell.char();
            out.push(if is_treacherous(shown) { ' ' } else { shown });
        }
        out.push_str("\x1b[0m\x1b[K");
    }
}

/// Returns the columns and rows that a recording is shown with: within bounds, and the usual ones where its terminal
/// said none.
#[must_use]
pub(crate) fn shown_size(size: WindowSize) -> (usize, usize) {
    let within = |size: u16, usual: usize, most: usize| match usize::from(size) {
        0 => usual,
        size => size.min(most),
    };
    (
        within(size.columns, 80, MAX_SCREEN_COLUMNS),
        within(size.rows, 24, MAX_SCREEN_ROWS),
    )
}

fn colours(pen: &Pen) -> String {
    let mut out = String::from("\x1b[0");
    let attributes = [
        (pen.is_bold(), ";1"),
        (pen.is_faint(), ";2"),
        (pen.is_italic(), ";3"),
        (pen.is_underline(), ";4"),
        (pen.is_blink(), ";5"),
        (pen.is_inverse(), ";7"),
        (pen.is_strikethrough(), ";9"),
    ];
    for (is_set, code) in attributes {
        if is_set {
            out.push_str(code);
        }
    }
    for (colour, base) in [(pen.foreground(), 38), (pen.background(), 48)] {
        let _ = match colour {
            Some(Color::Indexed(index)) => write!(out, ";{base};5;{index}"),
            Some(Color::RGB(rgb)) => write!(out, ";{base};2;{};{};{}", rgb.r, rgb.g, rgb.b),
            None => Ok(()),
        };
    }
    out.push('m');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(columns: u16, rows: u16) -> WindowSize {
        WindowSize::clamped(columns.into(), rows.into(), 0, 0)
    }

    #[test]
    fn a_terminal_that_said_no_size_is_shown_as_usual() {
        let of = |columns, rows| shown_size(size(columns, rows));
        assert_eq!(of(0, 0), (80, 24));
        assert_eq!(of(0, 7), (80, 7));
        assert_eq!(of(1, 0), (1, 24));
        assert_eq!(
            of(u16::MAX, u16::MAX),
            (MAX_SCREEN_COLUMNS, MAX_SCREEN_ROWS)
        );
    }

    /// Feeds the sequences that a hostile recording could use against its viewer: each must leave only characters.
    #[test]
    fn nothing_but_our_own_sequences_comes_out() {
        let hostile = [
            "\x1b]0;title\x07",
            "\x1b]52;c;ZXZpbA==\x07",
            "\x1b[?1049l",
            "\x1b[6n",
            "\x1b[c",
            "\x1bP$q\"p\x1b\\",
            "\x1b[?1000h",
            "\x1b[8;1;1t",
            "\x1b#8\x1bc",
            "\u{9b}31m\u{85}\u{202e}",
        ];
        let mut screen = Screen::new(size(20, 3)).unwrap();
        for text in hostile {
            let drawn = screen.draw(&format!("{text}seen"));
            assert!(drawn.contains("seen"), "{text:?}");
            let ours = drawn.replace('\x1b', "");
            assert!(!ours.contains(is_treacherous), "{text:?}: {ours:?}");
            for sequence in drawn.split('\x1b').skip(1) {
                let end = sequence.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                let (body, last) = (&sequence[..end], &sequence[end..=end]);
                let ours = body.starts_with('[')
                    && (matches!(last, "H" | "m" | "J" | "K") || body == "[?25");
                assert!(ours, "{text:?}: {sequence:?}");
            }
        }
    }

    #[test]
    fn colours_and_places_are_kept() {
        let mut screen = Screen::new(size(10, 2)).unwrap();
        screen.skip("first\r\n");
        let drawn = screen.draw("\x1b[1;31mred\x1b[0m");
        assert!(
            drawn.contains("first") && drawn.contains("\x1b[0;1;38;5;1mred"),
            "{drawn:?}"
        );
        assert!(drawn.ends_with("\x1b[2;4H\x1b[?25h"), "{drawn:?}");
        assert!(screen.resize(size(5, 1)).contains("\x1b[2J"));
    }
}
