//! Accounts that are not in the device's files: a directory's (LDAP, say), by NSS.
//!
//! A static program has no NSS. `getent` of the C library asks it, and prints the line that a file would have. It is
//! asked only where `/etc/nsswitch.conf` names another source than the files.

use crate::os::clock;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::os::limits::{MAX_NSS_LINE, NSS_TIMEOUT};

/// The place where `getent` is, on distributions and on NixOS.
const GETENT: [&str; 3] = [
    "/usr/bin/getent",
    "/bin/getent",
    "/run/current-system/sw/bin/getent",
];

/// Names which sources a device has.
const SOURCES: &str = "/etc/nsswitch.conf";

/// Sources that are the files which the agent reads itself, and systemd's, whose accounts are those of services.
const FILES: [&str; 3] = ["files", "compat", "systemd"];

/// Asks for a line of a database. `None` where it has none, or where only the files would be asked.
///
/// # Errors
/// When there is no answer in time, or one that is no line.
pub(super) fn ask(database: &str, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut sources = Vec::new();
    let read = File::open(SOURCES)
        .and_then(|file| file.take(MAX_NSS_LINE as u64).read_to_end(&mut sources));
    let getent = GETENT.into_iter().find(|path| Path::new(path).exists());
    match (read, getent) {
        (Ok(_), Some(getent)) if has_more(&String::from_utf8_lossy(&sources), "passwd") => {
            run(Path::new(getent), database, name)
        }
        _ => Ok(None),
    }
}

/// Returns whether a database has a source that the agent does not read itself.
fn has_more(sources: &str, database: &str) -> bool {
    let lines = sources
        .lines()
        .filter_map(|line| line.split('#').next()?.trim().split_once(':'));
    let mut lines = lines.filter(|(name, _)| name.trim_end() == database);
    lines.any(|(_, sources)| {
        let mut words = sources.split_whitespace();
        words.any(|word| !word.starts_with('[') && !word.contains('=') && !FILES.contains(&word))
    })
}

fn run(getent: &Path, database: &str, name: &str) -> io::Result<Option<Vec<u8>>> {
    let (mut socket, theirs) = UnixStream::pair()?;
    let mut child = Command::new(getent)
        .args([database, "--", name])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(OwnedFd::from(theirs))
        .stderr(Stdio::null())
        .spawn()?;
    let said = read_all(&mut socket);
    end(&mut child, said.is_err());
    let said = said?;
    if said.is_empty() {
        return Ok(None);
    }
    one_line(&said).map(Some)
}

fn end(child: &mut Child, is_late: bool) {
    if is_late {
        let _ = child.kill();
    }
    let _ = child.wait();
}

fn read_all(socket: &mut UnixStream) -> io::Result<Vec<u8>> {
    let deadline = clock::instant() + NSS_TIMEOUT;
    let (mut said, mut piece) = (Vec::new(), [0; 1024]);
    loop {
        let left = deadline.saturating_duration_since(clock::instant());
        if left.is_zero() || said.len() > MAX_NSS_LINE {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut piece) {
            Ok(0) => return Ok(said),
            Ok(count) => said.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Returns the one line that an answer must be. Two could smuggle in an account.
fn one_line(said: &[u8]) -> io::Result<Vec<u8>> {
    match said.strip_suffix(b"\n") {
        Some(line) if !line.is_empty() && !line.contains(&b'\n') && !line.contains(&0) => {
            Ok(line.to_owned())
        }
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_directory_is_asked_only_where_there_is_one() {
        for (sources, more) in [
            ("", false),
            ("passwd: files\ngroup: files ldap", false),
            ("passwd:compat", false),
            ("passwd: files # sss", false),
            ("passwd: files [NOTFOUND=return]", false),
            ("# passwd: sss\npasswd:\tfiles systemd", false),
            ("passwd:\tfiles systemd ldap", true),
            ("passwd: files sss", true),
        ] {
            assert_eq!(has_more(sources, "passwd"), more, "{sources:?}");
        }
    }

    #[test]
    fn an_answer_is_one_line() {
        assert_eq!(one_line(b"a:x:1\n").unwrap(), b"a:x:1");
        for bad in [&b""[..], b"\n", b"a", b"a\nb\n", b"a\0\n"] {
            assert!(one_line(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_program_of_the_device_answers() {
        let Some(getent) = GETENT.into_iter().map(Path::new).find(|path| path.exists()) else {
            return;
        };
        let root = run(getent, "passwd", "root").unwrap().unwrap();
        assert!(root.starts_with(b"root:"));
        assert_eq!(run(getent, "passwd", "holdfast-no-such").unwrap(), None);
        // What does not end in time is ended.
        let begin = clock::instant();
        assert!(run(Path::new("/usr/bin/yes"), "passwd", "root").is_err());
        assert!(begin.elapsed() < 2 * NSS_TIMEOUT);
    }

    proptest! {
        #[test]
        fn nothing_panics(sources: String, said: Vec<u8>) {
            has_more(&sources, "passwd");
            let _ = one_line(&said);
        }
    }
}
