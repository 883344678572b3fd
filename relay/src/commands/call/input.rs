//! Reads the input of commands: stdin, or a file of the machine that the command is typed on.

use std::io::Read as _;

use crate::commands::{Caller, Failure};

/// Returns the whole of a file, or of `-`, stdin. `remedy` is how to hand it in over ssh, where a path means
/// nothing on the relay and must not open its files.
pub(crate) fn read(
    file: &str,
    caller: &Caller,
    stdin: Option<&[u8]>,
    most: usize,
    remedy: &str,
) -> Result<Vec<u8>, Failure> {
    match (file, caller) {
        ("-", _) => Ok(stdin.unwrap_or_default().to_vec()),
        (_, Caller::User(_)) => Err(Failure::new(remedy)),
        (path, Caller::Local) => read_file(path, most),
    }
}

/// Returns the name of an input in sentences.
pub(crate) fn name(file: &str) -> &str {
    if file == "-" { "stdin" } else { file }
}

fn read_file(path: &str, most: usize) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    // One byte more than is allowed tells a file that is too long.
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let read = std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut text));
    read.map_err(|error| Failure(format!("cannot read {path}: {error}")))?;
    if text.len() > most {
        return Err(Failure(format!("{path} is larger than {most} bytes")));
    }
    Ok(text)
}
