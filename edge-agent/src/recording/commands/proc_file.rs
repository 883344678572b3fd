//! What `/proc` says of a process.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;

use crate::limits::{MAX_COMMAND_ARGUMENTS, MAX_FILE_PATH};

/// The most of `/proc/PID/stat` that is of use: number, name, state, parent.
const STAT: u64 = 128;

/// A process as it was when it was looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// Its arguments, each with a zero byte behind it.
    line: Vec<u8>,
    /// Something was left out.
    pub(super) cut: bool,
    /// Its working directory.
    pub(super) folder: Option<Vec<u8>>,
    /// Its parent.
    pub(super) parent: Option<u32>,
}

impl Look {
    /// Of one that may be gone: then nothing is known of it, or its name alone.
    pub(super) fn at(pid: u32) -> Self {
        let stat = read(&format!("/proc/{pid}/stat"), STAT).unwrap_or_default();
        let (name, parent) = parse(&stat);
        let most = MAX_COMMAND_ARGUMENTS + 1;
        let line = read(&format!("/proc/{pid}/cmdline"), most).unwrap_or_default();
        let folder = fs::read_link(format!("/proc/{pid}/cwd")).ok();
        let folder = folder.map(|path| path.into_os_string().into_vec());
        Self {
            folder: folder.filter(|path| path.len() <= MAX_FILE_PATH),
            parent,
            ..Self::of(line, name)
        }
    }

    fn of(mut line: Vec<u8>, name: Option<&[u8]>) -> Self {
        if line.is_empty() {
            // It is gone, or was never more than a name.
            return Self {
                line: name.map(<[u8]>::to_vec).unwrap_or_default(),
                cut: true,
                ..Self::default()
            };
        }
        let most = usize::try_from(MAX_COMMAND_ARGUMENTS).unwrap_or(usize::MAX);
        let cut = line.len() > most;
        line.truncate(most);
        Self {
            line,
            cut,
            ..Self::default()
        }
    }

    /// The arguments, from the program's name.
    pub(super) fn arguments(&self) -> impl Iterator<Item = &[u8]> {
        let line = self.line.strip_suffix(&[0]).unwrap_or(&self.line);
        let none = self.line.is_empty();
        line.split(|byte| *byte == 0).filter(move |_| !none)
    }
}

/// The name and the parent in `NUMBER (NAME) STATE PARENT …`: the name may have anything in it.
fn parse(stat: &[u8]) -> (Option<&[u8]>, Option<u32>) {
    let from = stat.iter().position(|byte| *byte == b'(');
    let to = stat.iter().rposition(|byte| *byte == b')');
    let (Some(from), Some(to)) = (from, to) else {
        return (None, None);
    };
    let name = stat.get(from + 1..to);
    let rest = stat.get(to + 1..).unwrap_or_default();
    let parent = std::str::from_utf8(rest).ok();
    let parent = parent.and_then(|rest| rest.split_ascii_whitespace().nth(1)?.parse().ok());
    (name, parent)
}

fn read(path: &str, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_seen_as_it_is() {
        let own = Look::at(std::process::id());
        let args = std::env::args_os();
        let wanted: Vec<Vec<u8>> = args.map(|word| word.into_vec()).collect();
        assert_eq!(own.arguments().collect::<Vec<_>>(), wanted);
        let folder = std::env::current_dir().unwrap();
        assert_eq!(own.folder, Some(folder.into_os_string().into_vec()));
        assert_eq!(own.parent, Some(std::os::unix::process::parent_id()));
        assert!(!own.cut);
    }

    #[test]
    fn one_that_is_gone_is_nothing_or_a_name() {
        assert_eq!(Look::at(u32::MAX).arguments().count(), 0);
        assert!(Look::at(u32::MAX).cut);
        let (name, parent) = parse(b"7 (a) b) ) Z 3 7");
        assert_eq!((name, parent), (Some(&b"a) b) "[..]), Some(3)));
        let gone = Look::of(vec![], name);
        assert_eq!(gone.arguments().collect::<Vec<_>>(), [b"a) b) "]);
        assert_eq!(parse(b"("), (None, None));
        assert_eq!(parse(b")("), (None, None));
    }

    #[test]
    fn arguments_may_be_empty_and_too_long() {
        let look = Look::of(b"a\0\0b\0".to_vec(), None);
        assert_eq!(look.arguments().collect::<Vec<_>>(), [&b"a"[..], b"", b"b"]);
        let long = Look::of(vec![b'x'; 5000], None);
        assert!(long.cut);
        assert_eq!(long.arguments().map(<[u8]>::len).sum::<usize>(), 4096);
    }
}
