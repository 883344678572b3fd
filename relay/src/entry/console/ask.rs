//! A console command as it is read from a channel, with the standard input that it wants.

use std::borrow::Cow;

use holdfast_protocol::escape::EscapedBytes;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tracing::info;

use crate::commands::{self, AnyCommand, Caller, Out};
use crate::identity::Principal;
use crate::model::request::ProcessRequest;
use crate::recording::limits::MAX_SHOWN_COMMAND;
use crate::session::input::{Input, InputReceiver};
use crate::session::output::notice;
use crate::ssh::Front;
use crate::ssh::connection::Connection;
use crate::ssh::limits::CONSOLE_TIMEOUT;

/// The greeting in place of a shell on the relay itself: there is none, so the help is shown.
const GREETING: &str = "This is a Holdfast relay. It has no shell: give a command, or name a device, as in LOGIN+DEVICE@relay.\n\n";

/// A command, and the standard input that it wants.
pub(super) struct ConsoleAsked {
    pub(super) command: AnyCommand,
    pub(super) caller: Caller,
    pub(super) stdin: Option<Vec<u8>>,
    /// The beginning of the line, for listings.
    pub(super) line: String,
    /// The columns of the client's terminal.
    pub(super) width: Option<usize>,
}

/// An answer that needs no command.
pub(super) struct Said {
    out: String,
    err: String,
    status: u8,
}

impl Said {
    /// Writes it, and returns the exit status.
    pub(super) async fn say(self, out: &mut Out<'_>, err: &mut Out<'_>) -> u8 {
        // A client that is gone gets nothing.
        let _ = out.write_all(self.out.as_bytes()).await;
        let _ = out.flush().await;
        let _ = err.write_all(self.err.as_bytes()).await;
        let _ = err.flush().await;
        self.status
    }
}

/// Returns the command and the user who asks for it, with the standard input that it wants.
pub(super) async fn ask(
    front: &Front,
    connection: &Connection,
    principal: &Principal,
    work: &ProcessRequest,
    input: &mut InputReceiver,
) -> Result<ConsoleAsked, Said> {
    let command = parse(principal, work)?;
    let mut caller = caller(front, connection).await?;
    // Who may not give the command does not fill the relay's memory with its input either; that it was
    // refused is said, and recorded in the audit log, where it is run.
    let may = commands::permit(&caller, &command).is_ok();
    let mut stdin = None;
    if command.wants_stdin() && may {
        // A client that sends no end of its input does not keep the task.
        let read = timeout(CONSOLE_TIMEOUT, read_all(input, command.max_input())).await;
        if matches!(read, Ok(None)) {
            let why = "the client went away before the end of its input";
            info!(user = %principal.user.name, "a console command does not run: {why}");
            return Err(refused(why));
        }
        stdin = read.ok().flatten();
        // That took as long as the client liked.
        caller = self::caller(front, connection).await?;
    }
    Ok(ConsoleAsked {
        command,
        caller,
        stdin,
        line: shown(work),
        width: None,
    })
}

/// Returns the user of the connection, as they are now.
async fn caller(front: &Front, connection: &Connection) -> Result<Caller, Said> {
    let admitted = front.sessions.admit_command(&connection.client).await;
    let subject = admitted.map_err(|refusal| refused(&refusal.to_string()))?;
    Ok(Caller::User(subject))
}

/// Returns the answer to a command that is not run.
fn refused(sentence: &str) -> Said {
    Said {
        out: String::new(),
        err: notice(sentence, "\n"),
        status: commands::FAILED,
    }
}

fn parse(principal: &Principal, work: &ProcessRequest) -> Result<AnyCommand, Said> {
    let said = |out: String, err: String, status| Said { out, err, status };
    let line = match work {
        ProcessRequest::Exec(line) => line.as_slice(),
        ProcessRequest::Shell => {
            let (help, status) = match commands::parse_console("--help") {
                Ok(_) => (String::new(), commands::DONE),
                Err(help) => help,
            };
            return Err(said([GREETING, &help].concat(), String::new(), status));
        }
        ProcessRequest::Subsystem(_) => {
            let why =
                "the relay itself has no subsystems: name a device, as in LOGIN+DEVICE@relay\n";
            return Err(said(String::new(), why.to_owned(), commands::FAILED));
        }
    };
    let shown = match str::from_utf8(line) {
        Ok(text) => text.into(),
        Err(_) => Cow::from(EscapedBytes(line).to_string()),
    };
    info!(user = %principal.user.name, command = %shown, "console");
    let Ok(line) = str::from_utf8(line) else {
        // Nothing that is not what was typed is run on a fleet.
        let why = "the command is not UTF-8\n".to_owned();
        return Err(said(String::new(), why, commands::USAGE));
    };
    let parsed = commands::parse_console(line);
    parsed.map_err(|(text, status)| match status {
        commands::DONE => said(text, String::new(), status),
        _ => said(String::new(), text, status),
    })
}

/// Returns the beginning of a line, for listings.
fn shown(work: &ProcessRequest) -> String {
    let ProcessRequest::Exec(line) = work else {
        return String::new();
    };
    let begin = line.get(..MAX_SHOWN_COMMAND).unwrap_or(line);
    String::from_utf8_lossy(begin).into_owned()
}

/// Returns the standard input up to its end, or a byte more than a command takes, which it then refuses; `None` if the
/// client went away before the end: half of a document means something else.
async fn read_all(input: &mut InputReceiver, most: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() <= most {
        match input.next().await? {
            Input::Data(data) => bytes.extend_from_slice(&data),
            Input::Eof => break,
            Input::Resize(_) | Input::Signal(_) | Input::StdoutClosed => {}
        }
    }
    Some(bytes)
}
