//! Reads what `/proc` has of a process.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;

use crate::recording::limits::{MAX_COMMAND_ARGUMENTS, MAX_FILE_PATH};

/// The most of `/proc/PID/stat` that is of use: number, name, state, parent, group, session.
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
    /// Reads the process, which may be gone: then nothing is known of it, or its name alone.
    pub(super) fn at(pid: u32) -> Self {
        let stat = read(&format!("/proc/{pid}/stat"), STAT).unwrap_or_default();
        let (name, parent, _) = parse(&stat);
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

    /// Returns the arguments, from the program's name.
    pub(super) fn arguments(&self) -> impl Iterator<Item = &[u8]> {
        let line = self.line.strip_suffix(&[0]).unwrap_or(&self.line);
        let none = self.line.is_empty();
        line.split(|byte| *byte == 0).filter(move |_| !none)
    }
}

/// Returns the leader of the process' session. The kernel's own helpers have none, and neither has who
/// entered this PID namespace from outside: `getsid` says 0 of them, which `rustix` takes for a
/// process' number.
pub(super) fn leader(pid: u32) -> Option<u32> {
    parse(&read(&format!("/proc/{pid}/stat"), STAT)?).2
}

/// Returns the name, the parent and the leader of the session in
/// `NUMBER (NAME) STATE PARENT GROUP SESSION …`: the name may have anything in it.
fn parse(stat: &[u8]) -> (Option<&[u8]>, Option<u32>, Option<u32>) {
    let from = stat.iter().position(|byte| *byte == b'(');
    let to = stat.iter().rposition(|byte| *byte == b')');
    let (Some(from), Some(to)) = (from, to) else {
        return (None, None, None);
    };
    let name = stat.get(from + 1..to);
    let rest = std::str::from_utf8(stat.get(to + 1..).unwrap_or_default()).unwrap_or_default();
    let mut words = rest.split_ascii_whitespace().skip(1);
    let parent = words.next().and_then(|word| word.parse().ok());
    let leader = words.nth(1).and_then(|word| word.parse().ok());
    (name, parent, leader.filter(|leader| *leader != 0))
}

fn read(path: &str, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

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
        let (name, parent, leader) = parse(b"7 (a) b) ) Z 3 7 5 0");
        assert_eq!(name, Some(&b"a) b) "[..]));
        assert_eq!((parent, leader), (Some(3), Some(5)));
        let gone = Look::of(vec![], name);
        assert_eq!(gone.arguments().collect::<Vec<_>>(), [b"a) b) "]);
        assert_eq!(parse(b"("), (None, None, None));
        assert_eq!(parse(b")("), (None, None, None));
    }

    #[test]
    fn a_process_may_have_no_session() {
        let mut child = Command::new("setsid")
            .arg("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // What comes back says that it has its session.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        assert_eq!(leader(child.id()), Some(child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(leader(u32::MAX), None);
        // So the kernel's threads and helpers are listed, for every reader.
        let (name, parent, leader) = parse(b"2 (kthreadd) S 0 0 0 0 -1 2129984");
        assert_eq!((name, parent), (Some(&b"kthreadd"[..]), Some(0)));
        assert_eq!(leader, None);
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
