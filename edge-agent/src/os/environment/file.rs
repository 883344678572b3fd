//! `/etc/environment`, read as pam_env(8) does: a variable on each line, quotes about a value, no expansion.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::os::limits::MAX_ENVIRONMENT_FILE;

/// The place where a device keeps the variables of all sessions.
const FILE: &str = "/etc/environment";

/// The blanks at the ends of a line.
const BLANKS: [u8; 5] = *b" \t\r\n\x0b";

/// Returns the device's variables. A file that is not there, or that can't be read, has none.
pub(crate) fn of_device() -> Vec<(OsString, OsString)> {
    read(Path::new(FILE))
}

fn read(path: &Path) -> Vec<(OsString, OsString)> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(MAX_ENVIRONMENT_FILE).read_to_end(&mut bytes));
    if read.is_err() {
        return Vec::new();
    }
    if bytes.len() as u64 == MAX_ENVIRONMENT_FILE {
        // The half of a line says something else than the whole.
        let end = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        bytes.truncate(end);
    }
    parse(&bytes)
}

/// Returns the variables of such a file in their order. A line that is no variable is skipped, and a name without a
/// value takes the variable back.
fn parse(file: &[u8]) -> Vec<(OsString, OsString)> {
    let mut variables: Vec<(OsString, OsString)> = Vec::new();
    for line in file.split(|byte| *byte == b'\n') {
        let Some((name, value)) = line_of(line) else {
            continue;
        };
        variables.retain(|(known, _)| known != name);
        if let Some(value) = value {
            variables.push((name.to_owned(), value));
        }
    }
    variables
}

/// Returns the name on a line, and its value if there is one.
fn line_of(line: &[u8]) -> Option<(&OsStr, Option<OsString>)> {
    // A comment begins within quotes, too.
    let line = line.split(|byte| *byte == b'#').next()?;
    let line = trim(line);
    let line = line.strip_prefix(b"export ").map_or(line, trim);
    let (name, value) = match line.iter().position(|byte| *byte == b'=') {
        Some(at) => (line.get(..at)?, line.get(at + 1..)),
        None => (line, None),
    };
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if name.is_empty() || !name.iter().all(is_word) || line.contains(&0) {
        return None;
    }
    Some((OsStr::from_bytes(name), value.map(unquoted)))
}

/// Takes the quotes off a value that begins with one. What is behind the last character belongs to the value, and only
/// a quote there is its end.
fn unquoted(value: &[u8]) -> OsString {
    let is_quote = |byte: &u8| matches!(byte, b'"' | b'\'');
    let inner = match value.split_first() {
        Some((first, rest)) if is_quote(first) => match rest.split_last() {
            Some((last, inner)) if is_quote(last) => inner,
            _ => rest,
        },
        _ => value,
    };
    OsStr::from_bytes(inner).to_owned()
}

fn trim(line: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !BLANKS.contains(byte);
    let Some(start) = line.iter().position(is_text) else {
        return &[];
    };
    let end = line.iter().rposition(is_text).unwrap_or(start);
    line.get(start..=end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(file: &str) -> Vec<String> {
        let variables = parse(file.as_bytes());
        let shown = variables.iter().map(|(name, value)| {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            format!("{name}={value}")
        });
        shown.collect()
    }

    #[test]
    fn quotes_and_comments_are_those_of_pam_env() {
        let file = "# PROXY=no\n\nhttp_proxy=http://proxy.example:3128\n  TWO=\"two words\"  \nONE='it''s'\n\
            export SHOWN=1 # why\nHASH=\"a#b\"\nPLAIN=a \"b\" c\nHALF=\"open\nEMPTY=\nQUOTE=\"\nCR=dos\r\n";
        let wanted = [
            "http_proxy=http://proxy.example:3128",
            "TWO=two words",
            "ONE=it''s",
            "SHOWN=1",
            "HASH=a",
            "PLAIN=a \"b\" c",
            "HALF=open",
            "EMPTY=",
            "QUOTE=",
            "CR=dos",
        ];
        assert_eq!(shown(file), wanted);
    }

    #[test]
    fn nothing_is_expanded_and_the_last_word_counts() {
        let file =
            "A=$HOME/${B}`id`\\n\nB=1\nB=2\nGONE=1\nGONE\nno name=1\n=1\nDASH-ED=1\nNUL=\0\n";
        assert_eq!(shown(file), ["A=$HOME/${B}`id`\\n", "B=2"]);
    }

    #[test]
    fn a_file_over_its_bound_loses_no_half_of_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("environment");
        assert_eq!(read(&path), []);
        let line = format!("A=1\nLONG={}\n", "x".repeat(1 << 20));
        std::fs::write(&path, line).unwrap();
        assert_eq!(read(&path), [("A".into(), "1".into())]);
    }

    proptest! {
        #[test]
        fn no_file_panics(file: Vec<u8>) {
            parse(&file);
        }

        #[test]
        fn no_line_that_nearly_is_right_panics(
            file in "((export )?[A-Z =]{0,3}=?[\"' #\\PC\0]{0,6}\n?){0,5}"
        ) {
            for (name, value) in parse(file.as_bytes()) {
                prop_assert!(!name.is_empty() && !name.as_bytes().contains(&b'='));
                prop_assert!(!value.as_bytes().contains(&0));
            }
        }
    }
}
