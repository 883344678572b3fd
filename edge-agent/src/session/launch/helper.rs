//! The helper: one thread that becomes the account, and then its shell.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::wire::{ProcessRequest, SessionRefusal, SftpTerms};
use rustix::fs::{CWD, Mode, OFlags, fchmod, fchown, open, readlinkat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Gid, Uid, chdir, geteuid, ioctl_tiocsctty, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};

use super::account::{prepare, take_account};
use super::{Instructions, MAX_INSTRUCTIONS, READY, REFUSED};
use crate::os::accounts::{self, Account, AccountFiles};
use crate::os::environment;
use crate::session::subsystem::{self, SubsystemServer};
use crate::sftp;

/// Runs the helper's whole life: it never returns, because it becomes the shell or ends.
pub fn main() -> ! {
    // Descriptor 0 is wanted for the shell; this copy closes by itself when the shell starts.
    if let Ok(control) = fcntl_dupfd_cloexec(stdin(), 3) {
        let mut control = UnixStream::from(control);
        close_inherited(control.as_raw_fd());
        let Err(refusal) = run(&mut control);
        let refusal = postcard::to_allocvec(&refusal).unwrap_or_default();
        // The agent that is not there any more needs no answer.
        let _ = control.write_all(&[&[REFUSED], refusal.as_slice()].concat());
    }
    std::process::exit(1)
}

fn run(control: &mut UnixStream) -> Result<Infallible, SessionRefusal> {
    let (instructions, descriptors) =
        receive(control).map_err(|e| failed("no instructions", &e))?;
    let open = &instructions.open;
    let mut account = accounts::admit(&open.login, &instructions.terms.denied_logins)?;
    let program = program_of(&account, &instructions)?;
    let tty = instructions.tty.as_deref().map(Path::new);
    let time_zone = instructions.time_zone.as_deref();
    let mut device = environment::of_device();
    if let Some(given) = &instructions.given {
        device.extend(given.env());
        if !given.groups.is_empty() {
            account.groups.clone_from(&given.groups);
        }
    }
    let mut env = environment::build(&account, open, tty, time_zone, device);
    if let Some(socket) = &instructions.agent_socket {
        env.insert("SSH_AUTH_SOCK".into(), socket.into());
    }
    take_standard_streams(descriptors).map_err(|e| failed("no standard streams", &e))?;
    let is_terminal = tty.is_some();
    start_session(is_terminal, &account).map_err(|e| failed("no terminal session", &e))?;
    let cannot_become = |error: io::Error| {
        let text = format!(
            "the agent can't become \"{}\": {error}",
            Escaped(&account.name)
        );
        SessionRefusal::Failed(accounts::bounded(text))
    };
    prepare().map_err(cannot_become)?;
    if let Some(given) = &instructions.given {
        given.apply();
        if is_terminal {
            show(&given.notice);
        }
    }
    instructions.tasks.apply(open.session, account.uid);
    take_account(&account).map_err(cannot_become)?;
    go_home(&account.home);
    default_signals();
    control
        .write_all(&[READY])
        .map_err(|e| failed("the agent is gone", &e))?;
    let error = exec(&program, &env);
    let path = program.path.to_string_lossy();
    let text = format!("{} {} can't be run: {error}", program.what, Escaped(&path));
    Err(SessionRefusal::Failed(accounts::bounded(text)))
}

fn failed(what: &str, error: &io::Error) -> SessionRefusal {
    SessionRefusal::Failed(format!("{what}: {error}"))
}

/// Closes what the process that started the agent left open in it: the account has no business with that. rustix
/// has no safe way to close a number; nix has, and here nothing else owns one.
pub(crate) fn close_inherited(control: RawFd) {
    let open = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    let numbers: Vec<RawFd> = numbers
        .filter(|number| *number > 2 && *number != control)
        .collect();
    for number in numbers {
        // The folder's own descriptor is closed by now.
        let _ = nix::unistd::close(number);
    }
}

/// Takes the instructions, and the descriptors that come with their first bytes.
fn receive(control: &mut UnixStream) -> io::Result<(Instructions, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let iov = &mut [IoSliceMut::new(&mut bytes)];
    let first = recvmsg(&*control, iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    bytes.truncate(first);
    control.take(MAX_INSTRUCTIONS).read_to_end(&mut bytes)?;
    let instructions = postcard::from_bytes(&bytes).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((instructions, descriptors))
}

/// The program that the helper becomes.
struct Program {
    /// The description of the program, for the message that it cannot be run.
    what: &'static str,
    /// The place where it is.
    path: PathBuf,
    /// Its zeroth argument, and the others.
    arguments: (OsString, Vec<OsString>),
    /// The file that `path` or an argument names by its number.
    _held: Option<OwnedFd>,
}

/// Returns the account's shell with the session's work; a login shell has a `-` before its name and no command. Only
/// an sftp server that is restricted to something has no shell about it.
fn program_of(account: &Account, instructions: &Instructions) -> Result<Program, SessionRefusal> {
    let name = account
        .shell
        .file_name()
        .unwrap_or(OsStr::new("sh"))
        .to_owned();
    let no_server = |error: Errno| failed("no sftp-server", &error.into());
    let Some(request) = instructions.open.request.process() else {
        return Err(SessionRefusal::Failed(
            "a forward runs no program".to_owned(),
        ));
    };
    let (command, held) = match request {
        ProcessRequest::Shell => {
            let mut login = OsString::from("-");
            login.push(name);
            return Ok(shell(account, login, Vec::new(), None));
        }
        ProcessRequest::Exec(command) if command.contains(&0) => {
            return Err(SessionRefusal::Failed(
                "the command holds a NUL byte".to_owned(),
            ));
        }
        ProcessRequest::Exec(command) => (OsString::from_vec(command.clone()), None),
        ProcessRequest::Subsystem(subsystem) => {
            let (server, terms) = (&instructions.sftp_server, instructions.terms.sftp.clone());
            match subsystem::find(subsystem, server, terms)? {
                SubsystemServer::Program(path) => (path.into(), None),
                SubsystemServer::Internal => internal_sftp(&name).map_err(no_server)?,
                SubsystemServer::Held(terms) => {
                    accounts::require_login_shell(account)?;
                    return held_sftp(&terms).map_err(no_server);
                }
            }
        }
    };
    Ok(shell(account, name, vec!["-c".into(), command], held))
}

fn shell(
    account: &Account,
    name: OsString,
    arguments: Vec<OsString>,
    held: Option<OwnedFd>,
) -> Program {
    Program {
        what: "the account's shell",
        path: account.shell.clone(),
        arguments: (name, arguments),
        _held: held,
    }
}

/// Returns the command that runs the agent itself as the account's SFTP server. Through the account's shell, as sshd
/// starts a server, so that a shell that forbids commands forbids this one too. The program is named by a descriptor:
/// its file may have been replaced by an update, or lie where the account can't go.
fn internal_sftp(shell: &OsStr) -> Result<(OsString, Option<OwnedFd>), Errno> {
    let program = open("/proc/self/exe", OFlags::PATH, Mode::empty())?;
    // Shells of this family close what they inherit.
    let path = if shell.as_bytes().ends_with(b"csh") {
        let path = readlinkat(CWD, "/proc/self/exe", Vec::new())?;
        OsString::from_vec(path.into_bytes())
    } else {
        format!("/proc/self/fd/{}", program.as_raw_fd()).into()
    };
    let mut command = OsString::from("exec '");
    command.push(path);
    command.push("' ");
    command.push(sftp::ARGUMENT);
    Ok((command, Some(program)))
}

/// Returns the server under terms. Without a shell: its start-up files are the account's, and who may change them by
/// sftp would choose what runs in the server's place. So the shell cannot refuse either, and is looked up among the
/// login shells before.
fn held_sftp(terms: &SftpTerms) -> Result<Program, Errno> {
    let program = open(
        "/proc/self/exe",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut arguments = vec![sftp::ARGUMENT.into()];
    if terms.read_only {
        arguments.push("--read-only".into());
    }
    if let Some(root) = &terms.root {
        arguments.extend(["--root".into(), root.into()]);
    }
    Ok(Program {
        what: "the sftp-server",
        path: format!("/proc/self/fd/{}", program.as_raw_fd()).into(),
        arguments: ("edge-agent".into(), arguments),
        _held: Some(program),
    })
}

/// Takes the standard streams: one descriptor is a terminal for all three; three are a stream each.
fn take_standard_streams(mut descriptors: Vec<OwnedFd>) -> io::Result<()> {
    let Some(last) = descriptors.pop() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    dup2_stdin(descriptors.first().unwrap_or(&last))?;
    dup2_stdout(descriptors.get(1).unwrap_or(&last))?;
    dup2_stderr(&last)?;
    Ok(())
}

/// Makes a session and process group of its own, and streams that belong to the account: only their owner may open
/// them once more, as `/dev/stderr` does. A terminal controls the session.
fn start_session(is_terminal: bool, account: &Account) -> io::Result<()> {
    setsid()?;
    if is_terminal {
        ioctl_tiocsctty(stdin())?;
    }
    if !geteuid().is_root() {
        return Ok(());
    }
    let owner = Some(Uid::from_raw(account.uid));
    if is_terminal {
        // As sshd has it: `write` and its like may reach the terminal by the group tty, and no other account.
        let tty = AccountFiles::read(Path::new("/etc"))
            .ok()
            .and_then(|files| files.group_id("tty"));
        let mode = Mode::from_raw_mode(if tty.is_some() { 0o620 } else { 0o600 });
        fchown(
            stdin(),
            owner,
            Some(Gid::from_raw(tty.unwrap_or(account.gid))),
        )?;
        fchmod(stdin(), mode)?;
    } else {
        let group = Some(Gid::from_raw(account.gid));
        fchown(stdin(), owner, group)?;
        fchown(stdout(), owner, group)?;
        fchown(stderr(), owner, group)?;
    }
    Ok(())
}

/// Shows what PAM says to who logs in, such as that a password expires soon.
fn show(notice: &str) {
    let mut terminal = io::stderr();
    for line in notice.lines() {
        let _ = writeln!(terminal, "{}", Escaped(line));
    }
}

/// Changes to the home folder. A missing one does not prevent the session, which may be there to repair it.
fn go_home(home: &Path) {
    if let Err(error) = chdir(home) {
        let home = home.to_string_lossy();
        let error = io::Error::from(error);
        let _ = writeln!(
            io::stderr(),
            "Could not chdir to home directory {}: {error}",
            Escaped(&home)
        );
    }
}

/// Resets ignored signals: one that the agent ignores (`nohup`) would be ignored by the shell too. A handler
/// ends with the exec, and leaves the default behind; std does the same for PIPE and for blocked signals.
pub(super) fn default_signals() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let flag = Arc::new(AtomicBool::new(false));
    for number in ignored_signals(&status) {
        let _ = signal_hook::flag::register(number, Arc::clone(&flag));
    }
}

fn ignored_signals(status: &str) -> impl Iterator<Item = i32> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    // Above 31 are the C library's own; a handler for the forbidden ones can't be had.
    let bits = (1..=31).filter(move |number| mask >> (number - 1) & 1 == 1);
    bits.filter(|number| !signal_hook::consts::FORBIDDEN.contains(number))
}

/// Becomes the program; returns only with an error.
fn exec(program: &Program, env: &BTreeMap<OsString, OsString>) -> io::Error {
    debug_assert!(!program.path.as_os_str().as_bytes().contains(&0));
    let (name, arguments) = &program.arguments;
    let mut command = Command::new(&program.path);
    command.arg0(name).args(arguments).env_clear().envs(env);
    command.exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_kernels_mask() {
        let status = "Name:\tx\nSigIgn:\t0000000100001101\n";
        assert_eq!(ignored_signals(status).collect::<Vec<_>>(), [1, 13]);
        assert_eq!(ignored_signals("").count(), 0);
        assert_eq!(ignored_signals("SigIgn:\tzz").count(), 0);
    }
}
