//! The output for people: to the program's own stdout and stderr, outside its log, and of commands. Nothing here
//! panics.

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use holdfast_protocol::escape::Lines;
use tokio::io::AsyncWrite;

/// Exit status of a command that was done.
pub(crate) const DONE: u8 = 0;
/// Exit status of a command that was refused or failed; one sentence on stderr says why.
pub(crate) const FAILED: u8 = 1;
/// Exit status of a command that could not be understood.
pub(crate) const USAGE: u8 = 2;

/// The mark of what is cut off.
const CUT: char = '…';

/// The output of a command: it waits until its reader takes it.
pub(crate) type Out<'a> = dyn AsyncWrite + Send + Unpin + 'a;

/// Prints all of `text`, and says whether that worked. A reader that has seen enough (`| head`) is no error; a full
/// disk is.
pub(crate) fn print(mut to: impl Write, text: &[u8]) -> bool {
    match to.write_all(text).and_then(|()| to.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(format_args!("cannot write the answer: {error}"));
            false
        }
        _ => true,
    }
}

/// Writes a sentence to stderr. If that is gone as well, the exit status is all that is left to say it with.
pub(crate) fn complain(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    let _ = writeln!(io::stderr().lock(), "{}", Lines(&text));
}

/// Formats rows under a head, columns two spaces apart, without those that are empty. Nothing in them may drive a
/// terminal.
pub(crate) fn columns<const N: usize>(
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let head = std::iter::once(head.map(str::to_owned));
    let shown: Vec<[String; N]> = head.chain(rows).collect();
    let width = |column: usize| {
        let cells = shown.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in &shown {
        let mut line = String::new();
        let cells = row.iter().zip(&widths);
        for (cell, width) in cells.filter(|(_, width)| **width > 0) {
            // Writing into a String cannot fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Returns a text, or if it is longer than `most` characters its beginning and a mark of that.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept = text.chars().take(most.saturating_sub(1));
    kept.chain([CUT]).collect()
}
