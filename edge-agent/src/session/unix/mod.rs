//! Unix sockets that are dialled or made for an operator, with the rights of their account.
//!
//! Who may open a path is the account's business, so no path is looked at by the agent, which may be root: a
//! process of its own becomes the account ([`helper`]), judges what the path really is, dials or listens, and
//! hands the socket over. One that listens stays, and removes its socket when the agent lets go of it, however
//! the agent ends.

mod helper;

use std::io::{self, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::task::{Context, Poll};

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _};
use holdfast_protocol::ids::Login;
use holdfast_protocol::limits::{
    FORWARD_DIAL_TIMEOUT, MAX_DENIED_LOGINS, MAX_FORWARD_RULES, MAX_LOGIN, MAX_PATH_RULE,
    MAX_SESSION_MESSAGE, MAX_SOCKET_PATH,
};
use holdfast_protocol::wire::{SessionRefusal, SocketPath};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize};
use smol::lock::{Semaphore, SemaphoreGuard};
use smol::{Async, Timer};

use crate::os::accounts;
use crate::os::runtime;
use crate::session::launch;
use crate::session::limits::{MAX_DIAL_HELPERS, MAX_KEEPERS};

pub use helper::main;

/// The first argument of the agent when it is to be the helper.
pub const ARGUMENT: &str = "internal-socket";

/// Largest task: as many rules and denied logins as may be, a path and a login.
const MAX_TASK: usize = MAX_FORWARD_RULES * (MAX_PATH_RULE + 8)
    + MAX_SOCKET_PATH
    + MAX_DENIED_LOGINS * (MAX_LOGIN + 1)
    + 1024;

/// Each helper is a process for a moment.
static DIALS: Semaphore = Semaphore::new(MAX_DIAL_HELPERS);

/// Each socket that is listened on has a process for as long as it is open.
static KEEPERS: Semaphore = Semaphore::new(MAX_KEEPERS);

/// A task for a helper.
#[derive(Debug, Serialize, Deserialize)]
struct SocketTask {
    login: Login,
    /// Logins that the operator's roles deny.
    denied: Vec<Login>,
    action: SocketAction,
}

#[derive(Debug, Serialize, Deserialize)]
enum SocketAction {
    Dial(SocketPath),
    Listen(SocketPath),
    /// A socket of its own choice, in a folder that is the account's alone.
    Agent,
}

/// The helper's answer. Where there is no refusal, the socket comes beside.
#[derive(Debug, Serialize, Deserialize)]
struct SocketAnswer {
    refusal: Option<SessionRefusal>,
    /// The socket's path, where the helper chose it.
    path: Option<String>,
}

/// The socket or listener that a helper made.
struct MadeSocket {
    socket: OwnedFd,
    control: Async<UnixStream>,
    path: Option<String>,
}

/// A socket in a file that is listened on. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Async<UnixListener>,
    /// The place where it is, if that was not the operator's choice.
    pub(crate) path: Option<String>,
    /// The keeper lives until this is closed.
    _control: Async<UnixStream>,
    _place: SemaphoreGuard<'static>,
}

/// Dials a socket, as the account of `login`. `program` is the agent itself.
///
/// # Errors
/// Why there is no connection, for the operator.
pub(crate) async fn dial(
    program: &Path,
    login: Login,
    denied: Vec<Login>,
    at: SocketPath,
) -> Result<Async<OwnedFd>, SessionRefusal> {
    let dialled = async {
        let _place = DIALS.acquire().await;
        let made = ask(program, login, denied, SocketAction::Dial(at)).await?;
        Async::new(made.socket).map_err(|error| failed(&error))
    };
    within(dialled).await
}

/// Listens on a new socket, as the account of `login`.
///
/// # Errors
/// Why not, for the operator.
pub(crate) async fn listen(
    program: &Path,
    login: Login,
    denied: Vec<Login>,
    at: SocketPath,
) -> Result<Listener, SessionRefusal> {
    keep(program, login, denied, SocketAction::Listen(at)).await
}

/// Makes a socket for an operator's SSH agent, in a folder of the account's.
///
/// # Errors
/// The reason.
pub(crate) async fn agent(
    program: &Path,
    login: Login,
    denied: Vec<Login>,
) -> Result<Listener, SessionRefusal> {
    keep(program, login, denied, SocketAction::Agent).await
}

async fn keep(
    program: &Path,
    login: Login,
    denied: Vec<Login>,
    action: SocketAction,
) -> Result<Listener, SessionRefusal> {
    let Some(place) = KEEPERS.try_acquire() else {
        let most = u32::try_from(MAX_KEEPERS).unwrap_or(u32::MAX);
        return Err(SessionRefusal::TooManyForwards(most));
    };
    let listening = async {
        let made = ask(program, login, denied, action).await?;
        let socket = Async::new(UnixListener::from(made.socket)).map_err(|error| failed(&error))?;
        Ok(Listener {
            socket,
            path: made.path,
            _control: made.control,
            _place: place,
        })
    };
    within(listening).await
}

impl Listener {
    /// Returns the next connection that comes.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<UnixStream> {
        loop {
            match self.socket.get_ref().accept() {
                Ok((stream, _)) => return Poll::Ready(stream),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.socket.poll_readable(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) | Poll::Pending => return Poll::Pending,
                    }
                }
                // No descriptor is left: the next look is soon enough.
                Err(_) => return Poll::Pending,
            }
        }
    }
}

async fn within<T>(
    done: impl Future<Output = Result<T, SessionRefusal>>,
) -> Result<T, SessionRefusal> {
    let late = async {
        Timer::after(FORWARD_DIAL_TIMEOUT).await;
        Err(unreachable("no answer"))
    };
    done.or(late).await
}

/// Has a helper do something.
async fn ask(
    program: &Path,
    login: Login,
    denied: Vec<Login>,
    action: SocketAction,
) -> Result<MadeSocket, SessionRefusal> {
    if let SocketAction::Dial(at) | SocketAction::Listen(at) = &action
        && (at.path.len() > MAX_SOCKET_PATH || !at.policy.is_bounded())
    {
        return Err(unreachable("the request exceeds a limit of the protocol"));
    }
    let task = SocketTask {
        login,
        denied,
        action,
    };
    let task = postcard::to_allocvec(&task).map_err(|_| unreachable("it can't be passed on"))?;
    let (control, mut process) =
        launch::start_helper(program, ARGUMENT).map_err(|error| failed(&error))?;
    // It ends by itself: when it has dialled, or when `control` is closed.
    runtime::spawn(async move {
        process.exited().await;
        process.reap();
    })
    .detach();
    let (answer, socket) = converse(&control, &task)
        .await
        .map_err(|error| failed(&error))?;
    match (answer.refusal, socket) {
        (Some(refusal), _) => Err(refusal),
        (None, Some(socket)) => Ok(MadeSocket {
            socket,
            control,
            path: answer.path,
        }),
        (None, None) => Err(unreachable("its helper ended without an answer")),
    }
}

async fn converse(
    mut control: &Async<UnixStream>,
    task: &[u8],
) -> io::Result<(SocketAnswer, Option<OwnedFd>)> {
    let length = u32::try_from(task.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    control
        .write_all(&[&length.to_be_bytes(), task].concat())
        .await?;
    let mut length = [0; 4];
    let socket = control
        .read_with(|control| receive_first(control, &mut length))
        .await?;
    let length = bounded_length(length, MAX_SESSION_MESSAGE)?;
    let mut answer = vec![0; length];
    control.read_exact(&mut answer).await?;
    let answer = postcard::from_bytes(&answer).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((answer, socket))
}

/// Returns the length of an answer, and the descriptor that comes with it.
fn receive_first(control: &UnixStream, length: &mut [u8; 4]) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let iov = &mut [IoSliceMut::new(length)];
    let read = recvmsg(control, iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    if read < length.len() {
        // It is written at once, or not at all.
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(descriptors.flatten().last())
}

fn bounded_length(length: [u8; 4], most: usize) -> io::Result<usize> {
    let length = usize::try_from(u32::from_be_bytes(length)).ok();
    let length = length.filter(|length| *length <= most);
    length.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Reads a message behind its length, in a helper.
fn read_task(control: &mut UnixStream) -> io::Result<SocketTask> {
    let mut length = [0; 4];
    control.read_exact(&mut length)?;
    let mut task = vec![0; bounded_length(length, MAX_TASK)?];
    control.read_exact(&mut task)?;
    postcard::from_bytes(&task).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Returns the policy's refusal of a path.
fn not_permitted(path: &[u8]) -> SessionRefusal {
    let path = String::from_utf8_lossy(path).into_owned();
    SessionRefusal::NotPermittedPath(accounts::bounded(path))
}

fn unreachable(why: &str) -> SessionRefusal {
    SessionRefusal::Unreachable(accounts::bounded(why.to_owned()))
}

fn failed(error: &io::Error) -> SessionRefusal {
    unreachable(&error.to_string())
}
