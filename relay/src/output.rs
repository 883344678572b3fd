//! What the program writes to its own stdout and stderr, outside its log. Nothing here panics.

use std::fmt;
use std::io::{self, Write};

use holdfast_protocol::escape::Lines;

/// Prints all of `text`, and says whether that worked. A reader that has seen enough (`| head`) is no error; a full
/// disk is.
pub fn print(mut to: impl Write, text: &[u8]) -> bool {
    match to.write_all(text).and_then(|()| to.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(format_args!("cannot write the answer: {error}"));
            false
        }
        _ => true,
    }
}

/// Writes a sentence to stderr. If that is gone as well, the exit status is all that is left to say it with.
pub fn complain(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    let _ = writeln!(io::stderr().lock(), "{}", Lines(&text));
}
