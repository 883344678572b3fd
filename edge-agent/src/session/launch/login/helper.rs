//! The helper: the parent of the `su` that holds a PAM session open.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::wire::SessionRefusal;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::setsid;
use rustix::stdio::stdin;

use super::waiting::WaitingShell;
use super::{LoginAnswer, LoginMode, LoginTask, ROOT, bounded_length, no_pam};
use crate::os::accounts;
use crate::session::launch::account::{prepare, take_loginuid};
use crate::session::launch::helper::{close_inherited, default_signals};
use crate::session::limits::MAX_LOGIN_TASK;

/// The messages of PAM's modules, in English as no language is set, about a password that must be changed before
/// anything else.
const CHANGE: [&str; 2] = ["change your password", "password has expired"];

/// Runs the helper's whole life.
pub fn main() -> ! {
    if let Ok(control) = fcntl_dupfd_cloexec(stdin(), 3) {
        let mut control = UnixStream::from(control);
        close_inherited(control.as_raw_fd());
        // What ends the agent's group from a keyboard leaves time to close the session.
        let _ = setsid();
        serve(&mut control);
    }
    std::process::exit(0)
}

/// Tries whether PAM opens a session by this `su`. How it closes that is not waited for as long as it may take.
///
/// # Errors
/// What PAM or `su` says.
pub fn probe(su: &Path) -> Result<(), String> {
    WaitingShell::start(su, ROOT, 0).map(|(_, waiting)| waiting.leave())
}

fn serve(control: &mut UnixStream) {
    let (answer, session) = match read_task(control) {
        Ok(task) => open(&task),
        Err(error) => (LoginAnswer::Refused(no_pam(&error.to_string())), None),
    };
    let answer = postcard::to_allocvec(&answer).unwrap_or_default();
    let length = u32::try_from(answer.len()).unwrap_or(0);
    let said = control.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat());
    if let Some(session) = session {
        if said.is_ok() {
            session.wait(control);
            // From here on no other session takes it, however long it takes to close.
            let _ = control.shutdown(Shutdown::Both);
        }
        session.close();
    }
}

fn read_task(control: &mut UnixStream) -> io::Result<LoginTask> {
    let mut length = [0; 4];
    control.read_exact(&mut length)?;
    let mut task = vec![0; bounded_length(length, MAX_LOGIN_TASK)?];
    control.read_exact(&mut task)?;
    postcard::from_bytes(&task).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn open(task: &LoginTask) -> (LoginAnswer, Option<WaitingShell>) {
    // PAM is asked only for who the agent itself lets in.
    let account = match accounts::admit(&task.login, &task.denied) {
        Ok(account) => account,
        Err(refusal) => return (LoginAnswer::Refused(refusal), None),
    };
    if let Err(error) = prepare() {
        return (LoginAnswer::Refused(no_pam(&error.to_string())), None);
    }
    default_signals();
    take_loginuid(account.uid);
    let why = match WaitingShell::start(&task.su, &account.name, account.uid) {
        Ok((given, waiting)) => return (LoginAnswer::Opened(given), Some(waiting)),
        Err(why) => why,
    };
    let mut of_root = None;
    if task.mode == LoginMode::Auto {
        // Root must get in to mend it; and what refuses even root is no verdict on an account.
        match (account.uid != 0).then(|| WaitingShell::start(&task.su, ROOT, 0)) {
            Some(Ok((_, waiting))) => of_root = Some(waiting),
            Some(Err(_)) | None => return (LoginAnswer::Bare(why), None),
        }
    }
    let name = Escaped(&account.name);
    let text = match CHANGE.iter().any(|words| why.contains(words)) {
        true => format!(
            "the password of {name} on the device must be changed first: as root, with `passwd {name}`"
        ),
        false => format!("PAM on the device refuses \"{name}\": {why}"),
    };
    let refusal = SessionRefusal::Failed(accounts::bounded(text));
    // It is closed when the operator has the answer, because that may take its time.
    (LoginAnswer::Refused(refusal), of_root)
}
