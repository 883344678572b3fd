//! The helper: one thread that becomes the account, and opens or makes a socket in its name.

mod private;

use std::ffi::OsStr;
use std::io::{self, IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::sleep;

use holdfast_protocol::limits::FORWARD_DIAL_TIMEOUT;
use holdfast_protocol::wire::{SessionRefusal, SocketPath};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, open, readlinkat, statat, unlinkat,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, listen, sendmsg, socket_with,
};
use rustix::process::{fchdir, geteuid, setsid, umask};
use rustix::stdio::stdin;

use super::{SocketAction, SocketAnswer, SocketTask, not_permitted, read_task, unreachable};
use crate::os::accounts;
use crate::session::launch;
use crate::session::limits::{BIND_ATTEMPTS, BIND_PAUSE, LISTEN_BACKLOG};

/// The permissions that a socket's file may not have: sshd's `StreamLocalBindMask`.
const SOCKET_UMASK: u32 = 0o177;

/// Runs the helper's whole life.
pub fn main() -> ! {
    if let Ok(control) = fcntl_dupfd_cloexec(stdin(), 3) {
        let mut control = UnixStream::from(control);
        launch::close_inherited(control.as_raw_fd());
        // What ends the agent's group from a keyboard leaves time to clean up.
        let _ = setsid();
        serve(&mut control);
    }
    std::process::exit(0)
}

fn serve(control: &mut UnixStream) {
    let made = read_task(control)
        .map_err(|error| unreachable(&error.to_string()))
        .and_then(|task| make(&task));
    match made {
        Err(refusal) => {
            let _ = answer(control, Some(refusal), None, None);
        }
        Ok(HelperSocket::Dialled(socket)) => {
            let _ = answer(control, None, None, Some(socket));
        }
        Ok(HelperSocket::Listening(socket, file)) => {
            if answer(control, None, file.shown.clone(), Some(socket)).is_ok() {
                // Nothing is ever said: the agent is gone, or wants the socket no more.
                let _ = control.read(&mut [0; 1]);
            }
            file.remove();
        }
    }
}

enum HelperSocket {
    Dialled(OwnedFd),
    Listening(OwnedFd, SocketFile),
}

/// The file of a socket that was made here.
struct SocketFile {
    folder: OwnedFd,
    name: Vec<u8>,
    made: Stat,
    /// Its path, where it was chosen here: then its folder goes with it.
    shown: Option<String>,
}

impl SocketFile {
    /// Removes it, unless something else is in its place by now.
    fn remove(&self) {
        let present = statat(&self.folder, &*self.name, AtFlags::SYMLINK_NOFOLLOW);
        let same = |stat: Stat| (stat.st_dev, stat.st_ino) == (self.made.st_dev, self.made.st_ino);
        if present.is_ok_and(same) {
            let _ = unlinkat(&self.folder, &*self.name, AtFlags::empty());
        }
        if let Some(shown) = &self.shown {
            private::remove(shown);
        }
    }
}

fn make(task: &SocketTask) -> Result<HelperSocket, SessionRefusal> {
    let account = accounts::admit(&task.login, &task.denied)?;
    launch::become_account(&account).map_err(|error| unreachable(&error.to_string()))?;
    if let SocketAction::Dial(at) | SocketAction::Listen(at) = &task.action {
        let path = at.path.as_bytes();
        if !path.starts_with(b"/") || path.contains(&0) {
            return Err(unreachable("a socket is named by an absolute path"));
        }
    }
    let (socket, file) = match &task.action {
        SocketAction::Dial(at) => return dial(at).map(HelperSocket::Dialled),
        SocketAction::Listen(at) => make_socket(at)?,
        SocketAction::Agent => {
            let (folder, path) = private::make()?;
            let socket = listen_in(folder, private::NAME, Some(path.clone()));
            socket.inspect_err(|_| private::remove(&path))?
        }
    };
    Ok(HelperSocket::Listening(socket, file))
}

/// Connects; what is judged is what is then used: a descriptor, whatever becomes of the path meanwhile.
fn dial(at: &SocketPath) -> Result<OwnedFd, SessionRefusal> {
    let path = at.path.as_bytes();
    let found = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let found = found.map_err(|error| match at.policy.permits(path) {
        true => unreachable(&reason(error)),
        // What there is where the account may not go is not disclosed.
        false => not_permitted(path),
    })?;
    let real = real_path(&found)?;
    if !at.policy.permits(&real) {
        return Err(not_permitted(&real));
    }
    let kind = fstat(&found).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if !matches!(kind, Ok(FileType::Socket)) {
        return Err(unreachable("it is not a socket"));
    }
    connect_to(&found).map_err(|error| unreachable(&reason(error)))
}

fn connect_to(found: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // A socket whose queue is full is not waited for longer than anybody waits.
    set_socket_timeout(&socket, Timeout::Send, Some(FORWARD_DIAL_TIMEOUT))?;
    connect(&socket, &SocketAddrUnix::new(&*name_of(found))?)?;
    set_socket_timeout(&socket, Timeout::Send, None)?;
    Ok(socket)
}

/// Makes the socket in its folder, which is held open: what the path comes to mean later does not matter.
fn make_socket(at: &SocketPath) -> Result<(OwnedFd, SocketFile), SessionRefusal> {
    let path = at.path.as_bytes();
    let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let (folder, name) = path.split_at(slash + 1);
    if matches!(name, b"" | b"." | b"..") {
        return Err(unreachable("the path names a folder"));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = open(folder, flags, Mode::empty());
    let folder = opened.map_err(|error| match at.policy.permits(path) {
        true => unreachable(&reason(error)),
        false => not_permitted(path),
    })?;
    let mut real = real_path(&folder)?;
    if real != b"/" {
        real.push(b'/');
    }
    real.extend_from_slice(name);
    if !at.policy.permits(&real) {
        return Err(not_permitted(&real));
    }
    listen_in(folder, name, None)
}

/// Makes a socket by this name, in a folder.
fn listen_in(
    folder: OwnedFd,
    name: &[u8],
    shown: Option<String>,
) -> Result<(OwnedFd, SocketFile), SessionRefusal> {
    let refused = |error: io::Error| unreachable(&reason_of_bind(&error));
    fchdir(&folder).map_err(|error| refused(error.into()))?;
    umask(Mode::from_raw_mode(SOCKET_UMASK));
    let socket = bind(name).map_err(refused)?;
    let socket = OwnedFd::from(socket);
    let made = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW);
    let made = made.map_err(|error| refused(error.into()))?;
    let file = SocketFile {
        folder,
        name: name.to_owned(),
        made,
        shown,
    };
    if let Err(error) = listen(&socket, LISTEN_BACKLOG) {
        file.remove();
        return Err(refused(error.into()));
    }
    Ok((socket, file))
}

/// Binds a socket. It replaces nothing but a socket whose process has ended. What another helper removes is gone in a
/// moment: an operator may take a socket back and ask for it again.
fn bind(name: &[u8]) -> io::Result<UnixListener> {
    let mut left_behind = None;
    for _ in 1..BIND_ATTEMPTS {
        match UnixListener::bind(OsStr::from_bytes(name)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            other => return other,
        }
        let found = dead_socket(name);
        // A socket that is being made is not listened on for a moment: what is dead is so twice.
        if found.is_some() && found == left_behind {
            let _ = unlinkat(CWD, name, AtFlags::empty());
            continue;
        }
        left_behind = found;
        sleep(BIND_PAUSE);
    }
    UnixListener::bind(OsStr::from_bytes(name))
}

/// Returns the identity of a socket's file that is this account's own and that no process listens on.
fn dead_socket(name: &[u8]) -> Option<impl PartialEq + use<>> {
    let stat = statat(CWD, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
    if !is_socket || stat.st_uid != geteuid().as_raw() {
        return None;
    }
    // The system refuses where nothing listens; a full queue, a socket for datagrams and anything else are answers.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    let refused = connect(&socket, &SocketAddrUnix::new(name).ok()?);
    (refused == Err(Errno::CONNREFUSED)).then_some((stat.st_dev, stat.st_ino))
}

/// Returns the path of what is open, without a link in it.
fn real_path(opened: &OwnedFd) -> Result<Vec<u8>, SessionRefusal> {
    let path = readlinkat(CWD, name_of(opened), Vec::new());
    let path = path.map_err(|error| unreachable(&reason(error)))?;
    Ok(path.into_bytes())
}

fn name_of(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

/// Says how it went, and hands the socket over.
fn answer(
    control: &UnixStream,
    refusal: Option<SessionRefusal>,
    path: Option<String>,
    socket: Option<OwnedFd>,
) -> io::Result<()> {
    let answer = postcard::to_allocvec(&SocketAnswer { refusal, path }).unwrap_or_default();
    let length = u32::try_from(answer.len()).unwrap_or(u32::MAX);
    let message = [&length.to_be_bytes(), answer.as_slice()].concat();
    let descriptors: Vec<_> = socket.iter().map(OwnedFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let iov = &[IoSlice::new(&message)];
    sendmsg(control, iov, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn reason(error: Errno) -> String {
    match error {
        Errno::NOENT | Errno::NOTDIR => "there is no such socket".to_owned(),
        Errno::CONNREFUSED => "connection refused".to_owned(),
        Errno::ACCESS | Errno::PERM => "the account may not open it".to_owned(),
        Errno::PROTOTYPE => "it is not a stream socket".to_owned(),
        Errno::AGAIN => "no answer".to_owned(),
        error => io::Error::from(error).to_string(),
    }
}

fn reason_of_bind(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "something is there already".to_owned(),
        io::ErrorKind::PermissionDenied => "the account may not make it there".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "that file system is read-only".to_owned(),
        _ => error.to_string(),
    }
}
