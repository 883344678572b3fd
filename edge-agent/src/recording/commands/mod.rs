//! The commands that run within interactive sessions, as the kernel reports them: its process-event connector
//! says which process begins and ends, and `/proc` what it is, for as long as it runs.
//!
//! The kernel is asked only while such a session is recorded: it reports every process on the device. One
//! thread listens, because a command may be over within a millisecond. Where the kernel or the agent's rights
//! do not offer it, the recording says so.

mod allowance;
mod proc_event;
mod proc_file;
mod tracker;

use crate::os::clock;
use crate::os::sync::Mutex;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::record::{CommandExit, CommandRun, Event, RecordedBytes};
use rustix::io::Errno;
use rustix::net::netlink::{CONNECTOR, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, bind, recvfrom,
    send, socket_with,
};
use rustix::process::getpid;

use crate::os::process::exit_of_wait;
use crate::recording::limits::{COMMAND_EVENTS_BUFFER, COMMAND_EVENTS_TIMEOUT, COMMAND_STACK};
use allowance::Allowance;
use proc_event::{PROC, ProcessEvent};
use proc_file::{Look, leader};
use tracker::{Tracker, TrackerStep};

/// More than the kernel puts into one datagram.
const DATAGRAM: usize = 1024;

const NO_RIGHT: &str = "the agent has no right to it";
const NOT_OFFERED: &str = "the kernel does not offer it";
const NO_ANSWER: &str = "the kernel does not answer here";
const NO_THREAD: &str = "there is no thread for it";
const FAILED: &str = "the kernel stopped telling";
const MISSED: &str = "some were missed: too much was going on";
const TOO_MANY: &str = "there are too many processes";

/// The commands of all sessions that are recorded and have a terminal.
#[derive(Debug)]
pub(super) struct Commands(Mutex<CommandsState>);

#[derive(Debug)]
struct CommandsState {
    tracker: Tracker<Observed>,
    /// With what their programs may still add to their recordings.
    sessions: BTreeMap<SessionId, Allowance>,
    /// A thread listens.
    listens: bool,
}

/// Records the commands that run, and holds [`Commands`].
pub(super) trait CommandRecorder: Send + Sync + 'static {
    /// Returns the commands of its sessions.
    fn commands(&self) -> &Commands;

    /// Returns the time.
    fn now(&self) -> Duration;

    /// Puts it into the recording, waiting for room but not for long: what the operator sees does not wait for it,
    /// and a spool that is full says so with the next byte of data.
    fn record_command(&self, session: SessionId, event: &Event<'_>);
}

/// The facts that were observed of a process.
#[derive(Debug)]
enum Observed {
    Began { pid: u32, parent: u32, look: Look },
    Ended(CommandExit),
}

impl Default for Commands {
    fn default() -> Self {
        let own = getpid().as_raw_pid().cast_unsigned();
        Self(Mutex::new(CommandsState {
            tracker: Tracker::new(own),
            sessions: BTreeMap::new(),
            listens: false,
        }))
    }
}

impl Commands {
    fn lock(&self) -> MutexGuard<'_, CommandsState> {
        // Each change is made whole before anything can panic.
        self.0.lock()
    }
}

/// Notes that a session begins, whose process will be started next.
pub(super) fn watch(recorder: &Arc<impl CommandRecorder>, session: SessionId) {
    let mut inner = recorder.commands().lock();
    let listens = if inner.listens {
        Ok(())
    } else {
        start(recorder)
    };
    inner.listens = listens.is_ok();
    if listens.is_ok() {
        inner
            .sessions
            .insert(session, Allowance::new(recorder.now()));
    }
    drop(inner);
    if let Err(why) = listens {
        recorder.record_command(session, &Event::CommandsUnavailable(why));
    }
}

/// Notes that the session's process runs.
pub(super) fn claim(recorder: &impl CommandRecorder, session: SessionId, leader: u32) {
    let mut inner = recorder.commands().lock();
    if !inner.sessions.contains_key(&session) {
        return;
    }
    let waiting = inner.tracker.claim(session, leader);
    drop(inner);
    let shell = Observed::Began {
        pid: leader,
        parent: getpid().as_raw_pid().cast_unsigned(),
        look: Look::at(leader),
    };
    record_observed(recorder, session, &shell);
    for observed in &waiting {
        record_observed(recorder, session, observed);
    }
}

/// Notes that the session is over.
pub(super) fn leave(recorder: &impl CommandRecorder, session: SessionId) {
    let mut inner = recorder.commands().lock();
    if inner.sessions.remove(&session).is_some() {
        inner.tracker.leave(session);
    }
}

/// Asks the kernel, and starts the thread that hears the answers.
fn start(recorder: &Arc<impl CommandRecorder>) -> Result<(), &'static str> {
    let socket = listen().map_err(|errno| match errno {
        Errno::PERM | Errno::ACCESS => NO_RIGHT,
        _ => NOT_OFFERED,
    })?;
    let recorder = Arc::clone(recorder);
    let started = std::thread::Builder::new()
        .name("commands".to_owned())
        .stack_size(COMMAND_STACK)
        .spawn(move || work(&*recorder, &socket));
    started.map(drop).map_err(|_| NO_THREAD)
}

fn listen() -> Result<OwnedFd, Errno> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(CONNECTOR),
    )?;
    bind(&socket, &SocketAddrNetlink::new(0, PROC))?;
    // Without the right to it the usual size has to do.
    let _ = set_socket_recv_buffer_size_force(&socket, COMMAND_EVENTS_BUFFER);
    set_socket_timeout(&socket, Timeout::Recv, Some(COMMAND_EVENTS_TIMEOUT))?;
    send(&socket, &proc_event::request(true), SendFlags::empty())?;
    Ok(socket)
}

/// Hears what the kernel says until no session is left.
fn work(recorder: &impl CommandRecorder, socket: &OwnedFd) {
    if let Err(why) = hear(recorder, socket) {
        let mut inner = recorder.commands().lock();
        inner.listens = false;
        let sessions = std::mem::take(&mut inner.sessions);
        for session in sessions.keys() {
            inner.tracker.leave(*session);
        }
        drop(inner);
        for session in sessions.into_keys() {
            recorder.record_command(session, &Event::CommandsUnavailable(why));
        }
    }
    // Older kernels do not see by themselves that there is no listener.
    let _ = send(socket, &proc_event::request(false), SendFlags::empty());
}

fn hear(recorder: &impl CommandRecorder, socket: &OwnedFd) -> Result<(), &'static str> {
    let mut buffer = [0; DATAGRAM];
    let mut answered = false;
    let mut missed: Option<Instant> = None;
    loop {
        {
            let mut inner = recorder.commands().lock();
            if inner.sessions.is_empty() {
                // The next session finds it so, and starts another.
                inner.listens = false;
                return Ok(());
            }
        }
        let datagram = match recvfrom(socket, &mut buffer, RecvFlags::empty()) {
            // Only the kernel may send there; should that change, it is not believed.
            Ok((length, _, from)) if is_kernel(from.as_ref()) => {
                buffer.get(..length).unwrap_or_default()
            }
            Ok(_) | Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) if answered => continue,
            Err(Errno::AGAIN) => return Err(NO_ANSWER),
            Err(Errno::NOBUFS) => {
                // Once for a storm.
                if missed.is_none_or(|at| at.elapsed() > COMMAND_EVENTS_TIMEOUT) {
                    record_all_unavailable(recorder, MISSED);
                }
                missed = Some(clock::instant());
                continue;
            }
            Err(_) => return Err(FAILED),
        };
        for event in proc_event::events(datagram) {
            match event {
                ProcessEvent::Answer(0) => answered = true,
                // Answers to other listeners come, too.
                ProcessEvent::Answer(_) if answered => {}
                ProcessEvent::Answer(_) => return Err(NO_RIGHT),
                event => handle(recorder, event),
            }
        }
    }
}

fn is_kernel(from: Option<&SocketAddrAny>) -> bool {
    from.and_then(|from| SocketAddrNetlink::try_from(from.clone()).ok())
        .is_some_and(|from| from.pid() == 0)
}

fn handle(recorder: &impl CommandRecorder, event: ProcessEvent) {
    let step = recorder.commands().lock().tracker.handle(event, leader);
    let (family, observed) = match step {
        TrackerStep::Nothing => return,
        TrackerStep::Ran {
            family,
            pid,
            parent,
        } => {
            let look = Look::at(pid);
            let parent = parent.or(look.parent).unwrap_or(0);
            (family, Observed::Began { pid, parent, look })
        }
        TrackerStep::Ended {
            family,
            pid,
            status,
        } => {
            let exit = exit_of_wait(status);
            (family, Observed::Ended(CommandExit { pid, exit }))
        }
        TrackerStep::TooMany { .. } => return record_all_unavailable(recorder, TOO_MANY),
    };
    let routed = recorder.commands().lock().tracker.route(family, observed);
    if let Some((session, observed)) = routed {
        record_observed(recorder, session, &observed);
    }
}

fn record_observed(recorder: &impl CommandRecorder, session: SessionId, observed: &Observed) {
    match observed {
        Observed::Began { pid, parent, look } => {
            // That it ran is recorded in any case.
            let command = match is_allowed(recorder, session, look) {
                true => CommandRun {
                    pid: *pid,
                    parent: *parent,
                    argv: look.arguments().map(RecordedBytes).collect(),
                    cut: look.cut,
                    cwd: look.folder.as_deref().map(RecordedBytes),
                },
                false => CommandRun {
                    pid: *pid,
                    parent: *parent,
                    argv: vec![],
                    cut: true,
                    cwd: None,
                },
            };
            recorder.record_command(session, &Event::Command(command));
        }
        Observed::Ended(exit) => {
            recorder.record_command(session, &Event::CommandExit(exit.clone()))
        }
    }
}

/// Returns whether the recording may have the arguments and the folder of a program.
fn is_allowed(recorder: &impl CommandRecorder, session: SessionId, look: &Look) -> bool {
    let arguments = look.arguments().map(|argument| argument.len() as u64);
    let folder = look
        .folder
        .as_deref()
        .map_or(0, |folder| folder.len() as u64);
    let bytes = arguments.fold(folder, u64::saturating_add);
    let now = recorder.now();
    let mut inner = recorder.commands().lock();
    // The session may have ended meanwhile: then nothing more is recorded.
    let allowance = inner.sessions.get_mut(&session);
    allowance.is_none_or(|allowance| allowance.take(now, bytes))
}

fn record_all_unavailable(recorder: &impl CommandRecorder, why: &str) {
    let sessions: Vec<SessionId> = recorder
        .commands()
        .lock()
        .sessions
        .keys()
        .copied()
        .collect();
    for session in sessions {
        recorder.record_command(session, &Event::CommandsUnavailable(why));
    }
}
