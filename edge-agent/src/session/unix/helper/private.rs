//! Folders in which an account's sockets for SSH agents are: each of one session, of mode 0700, under a name that
//! cannot be guessed.
//!
//! A helper holds a lock on its folder as long as it lives. So what has no lock was left behind by one that was
//! killed, or by a power cut, and the next helper of the account removes it.

use std::fs::{read_dir, remove_dir, remove_file};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use holdfast_protocol::wire::SessionRefusal;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, mkdir, open};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::super::unreachable;
use super::reason_of_bind;
use crate::session::limits::MAX_STALE_SOCKETS;

/// The socket's name in its folder.
pub(super) const NAME: &[u8] = b"agent";

/// The place where folders are made: the first that takes one.
const PLACES: [&str; 2] = ["/tmp", "/dev/shm"];

/// The prefix of their names.
const PREFIX: &str = "holdfast-agent-";

/// Makes a folder and locks it; gives the socket's path in it, too.
pub(super) fn make() -> Result<(OwnedFd, String), SessionRefusal> {
    let mut refused = None;
    for place in PLACES {
        clean(place);
        match make_in(place) {
            Ok(made) => return Ok(made),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    let why = refused.map_or_else(String::new, |error| reason_of_bind(&error));
    Err(unreachable(&why))
}

/// Removes the folder of a socket that is gone.
pub(super) fn remove(path: &str) {
    if let Some(folder) = Path::new(path).parent() {
        let _ = remove_dir(folder);
    }
}

fn make_in(place: &str) -> io::Result<(OwnedFd, String)> {
    let mut random = [0; 12];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| io::Error::other("there are no random numbers"))?;
    let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = format!("{place}/{PREFIX}{random}");
    mkdir(&*folder, Mode::RWXU)?;
    let opened = lock(Path::new(&folder)).map_err(io::Error::from);
    let opened = opened.inspect_err(|_| {
        let _ = remove_dir(&folder);
    })?;
    Ok((opened, format!("{folder}/agent")))
}

/// Removes what helpers of this account left behind. Others' folders are not even opened: the kernel forbids it,
/// and the owner is looked at where it does not.
fn clean(place: &str) {
    let stale = read_dir(place).into_iter().flatten().flatten();
    let named = stale.filter(|entry| {
        entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes())
    });
    for entry in named.take(MAX_STALE_SOCKETS) {
        let path = entry.path();
        if lock(&path).is_ok() {
            let _ = remove_file(path.join("agent"));
            let _ = remove_dir(path);
        }
    }
}

fn lock(folder: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = open(folder, flags, Mode::empty())?;
    if fstat(&opened)?.st_uid != geteuid().as_raw() {
        return Err(Errno::PERM);
    }
    flock(&opened, FlockOperation::NonBlockingLockExclusive)?;
    Ok(opened)
}
