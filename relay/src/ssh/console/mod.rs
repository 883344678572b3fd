//! The console: `ssh -p 2222 relay COMMAND`. The commands, and who may run them, are the command tree's;
//! here a channel's bytes become a line and a standard input, and back.

mod bulk;
mod counted;
pub(crate) mod lines;

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;

use holdfast_protocol::escape::EscapedBytes;
use holdfast_protocol::wire::{Exit, Signal, WindowSize};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::counted::Counted;
use super::connection::Connection;
use crate::bulk::BulkCaller;
use crate::clock::Timestamp;
use crate::commands::{self, AnyCommand, Caller, CommandRow, Context, Out, RelayFacts};
use crate::identity::Principal;
use crate::limits::FINAL_STATUS_TIMEOUT;
use crate::model::request::ProcessRequest;
use crate::recording::limits::MAX_SHOWN_COMMAND;
use crate::session::client::target::SshTarget;
use crate::session::ending::Ending;
use crate::session::input::{Input, InputReceiver};
use crate::session::output::{Gone, Output as _, notice};
use crate::session::refusal::Refusal;
use crate::session::registry::console::{AskStream, ConsoleGuard, ConsoleStream};
use crate::session::registry::life::Life;
use crate::session::stream::notices::Notices;
use crate::session::stream::timeouts;
use crate::ssh::Front;
use crate::ssh::channels::outlet::Outlet;
use crate::ssh::console::lines::TerminalLines;
use crate::ssh::limits::CONSOLE_TIMEOUT;

/// The byte that a terminal in raw mode sends for the key that interrupts.
const CTRL_C: u8 = 3;

/// The exit status of what was interrupted, as a shell has it: 128 and SIGINT.
const INTERRUPTED: u8 = 130;

/// The exit status of what the relay ended, as of a session.
const CUT_OFF: u8 = 255;

/// The greeting in place of a shell on the relay itself: there is none, so the help is shown.
const GREETING: &str = "This is a Holdfast relay. It has no shell: give a command, or name a device, as in LOGIN+DEVICE@relay.\n\n";

/// Returns what an operator types before a console command, where `address` is the `HOST:PORT` that they dial:
/// `ssh -p 2222 relay.example.com`.
#[must_use]
pub(crate) fn prefix(address: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "22"));
    let host = host.trim_matches(['[', ']']);
    match port {
        "22" => format!("ssh {host}"),
        _ => format!("ssh -p {port} {host}"),
    }
}

/// Runs one command, and closes the channel with its exit status.
pub(crate) async fn run(
    front: Arc<Front>,
    connection: &Arc<Connection>,
    principal: Principal,
    work: ProcessRequest,
    mut input: InputReceiver,
    outlet: Outlet,
    size: Option<WindowSize>,
) {
    let (mut out, mut err) = (outlet.writer(), outlet.error_writer());
    let terminal = size.is_some();
    if terminal {
        out = Box::pin(TerminalLines::new(out));
        err = Box::pin(TerminalLines::new(err));
    }
    let status = match ask(&front, connection, &principal, &work, &mut input).await {
        Ok(asked) => {
            let width = size.map(|size| usize::from(size.columns));
            let asked = ConsoleAsked { width, ..asked };
            let desk = Desk {
                front: &front,
                connection,
                principal: &principal,
                notices: Notices {
                    outlet: &outlet,
                    terminal,
                },
            };
            desk.serve(asked, &mut input, out, &mut err).await
        }
        Err(said) => timeout(CONSOLE_TIMEOUT, said.say(&mut out, &mut err))
            .await
            .ok(),
    };
    if let Some(status) = status {
        let last = async {
            outlet.exit(Some(Exit::Status(status.into()))).await?;
            outlet.eof().await
        };
        let _: Result<Result<(), Gone>, _> = timeout(FINAL_STATUS_TIMEOUT, last).await;
    }
    outlet.close().await;
}

/// The context in which one command is served.
struct Desk<'a> {
    front: &'a Arc<Front>,
    connection: &'a Arc<Connection>,
    principal: &'a Principal,
    notices: Notices<'a>,
}

impl Desk<'_> {
    /// Runs a command to its end, and gives the exit status; `None` if the client is gone. One that
    /// streams is on the live-session registry, and ends as sessions do.
    async fn serve(
        &self,
        asked: ConsoleAsked,
        input: &mut InputReceiver,
        out: Pin<Box<dyn AsyncWrite + Send>>,
        err: &mut Out<'_>,
    ) -> Option<u8> {
        let mut entered = match self.enter(&asked).await {
            Ok(entered) => entered,
            Err(refusal) => {
                let refused = SshTarget::Relay;
                self.front
                    .sessions
                    .report
                    .session_rejected(&self.connection.client, &refused, &refusal)
                    .await;
                let said = async {
                    err.write_all(notice(&refusal.to_string(), "\n").as_bytes())
                        .await?;
                    err.flush().await
                };
                let _ = timeout(FINAL_STATUS_TIMEOUT, said).await;
                return Some(commands::FAILED);
            }
        };
        let stream = entered.as_ref().map(|guard| guard.stream().clone());
        let life = stream.as_ref().map(|stream| stream.life.clone());
        let mut out = match &life {
            Some(life) => Box::pin(Counted::new(out, life.clone())),
            None => out,
        };
        let parting = asked.command.parting();
        let interrupted = CancellationToken::new();
        let done = tokio::select! {
            // A command that was ordered to end says why, even if it ended in the same moment.
            biased;
            ending = self.cut(entered.as_mut(), &interrupted) => Err(ending),
            done = self.answer(asked, stream.clone(), input, &mut out, err, &interrupted) => Ok(done),
        };
        if let Some(life) = &life {
            life.mark_drained();
        }
        let ending = match done {
            Ok(Ok(status)) => return Some(status),
            Ok(Err(interrupted)) => {
                let _ = timeout(FINAL_STATUS_TIMEOUT, part(&mut out, parting)).await;
                return interrupted.then_some(INTERRUPTED);
            }
            Err(ending) => ending,
        };
        let _ = timeout(FINAL_STATUS_TIMEOUT, part(&mut out, parting)).await;
        self.notices.say(&format!("closed: {}", ending.why)).await;
        if let Some(stream) = &stream {
            self.front
                .sessions
                .report
                .console_ended(stream, &ending)
                .await;
        }
        Some(CUT_OFF)
    }

    /// Puts a command that streams on the registry. One that is refused needs no place there.
    async fn enter(&self, asked: &ConsoleAsked) -> Result<Option<ConsoleGuard>, Refusal> {
        let ConsoleAsked {
            command,
            caller,
            line,
            ..
        } = asked;
        let Caller::User(subject) = caller else {
            return Ok(None);
        };
        if !command.streams() || commands::permit(caller, command).is_err() {
            return Ok(None);
        }
        let ask = AskStream {
            command: line.clone(),
            need: command.condition(),
            shows: command.shows(caller),
            activity: command.activity(self.notices.terminal),
        };
        let entered = self
            .front
            .sessions
            .enter_console(&self.connection.client, subject, ask);
        entered.await.map(Some)
    }

    /// Resolves when the command is to end before it is done.
    async fn cut(
        &self,
        entered: Option<&mut ConsoleGuard>,
        interrupted: &CancellationToken,
    ) -> Ending {
        let Some(guard) = entered else {
            return std::future::pending().await;
        };
        let life = guard.stream().life.clone();
        let ending = tokio::select! {
            biased;
            ending = guard.ordered_to_end() => ending,
            ending = timeouts::cutoff(&life, Some(self.notices)) => ending,
        };
        if ending.cause.is_order() {
            // Before the work is dropped, so that what it runs on devices is to stop, too.
            interrupted.cancel();
        }
        ending
    }

    /// Runs the command; an error says whether the client wished its end, rather than being gone.
    async fn answer(
        &self,
        asked: ConsoleAsked,
        stream: Option<Arc<ConsoleStream>>,
        input: &mut InputReceiver,
        out: &mut Out<'_>,
        err: &mut Out<'_>,
        interrupted: &CancellationToken,
    ) -> Result<u8, bool> {
        let (front, terminal) = (self.front, self.notices.terminal);
        if asked.command.bulk().is_some() {
            let asker = BulkCaller {
                sessions: front.sessions.clone(),
                client: self.connection.client.clone(),
                terminal,
                interrupted: interrupted.clone(),
            };
            let asked = (&asked.command, &asked.caller);
            return bulk::run((front, &asker), self.principal, asked, input, out, err).await;
        }
        let streams = asked.command.streams();
        let life = stream.as_ref().map(|stream| stream.life.clone());
        let (connection, principal) = (self.connection, self.principal);
        let answer = answer(front, connection, principal, (asked, stream), out, err);
        tokio::select! {
            status = answer => Ok(status),
            interrupted = over(input, streams, terminal, life.as_deref()) => Err(interrupted),
        }
    }
}

/// A command, and the standard input that it wants.
struct ConsoleAsked {
    command: AnyCommand,
    caller: Caller,
    stdin: Option<Vec<u8>>,
    /// The beginning of the line, for listings.
    line: String,
    /// The columns of the client's terminal.
    width: Option<usize>,
}

/// An answer that needs no command.
struct Said {
    out: String,
    err: String,
    status: u8,
}

impl Said {
    async fn say(self, out: &mut Out<'_>, err: &mut Out<'_>) -> u8 {
        // A client that is gone gets nothing.
        let _ = out.write_all(self.out.as_bytes()).await;
        let _ = out.flush().await;
        let _ = err.write_all(self.err.as_bytes()).await;
        let _ = err.flush().await;
        self.status
    }
}

/// Returns the command and the user who asks for it, with the standard input that it wants.
async fn ask(
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

async fn answer(
    front: &Front,
    connection: &Connection,
    principal: &Principal,
    (asked, stream): (ConsoleAsked, Option<Arc<ConsoleStream>>),
    out: &mut Out<'_>,
    err: &mut Out<'_>,
) -> u8 {
    let stdin = asked.stdin.as_deref();
    let context = Context {
        row: CommandRow::default(),
        store: front.sessions.store.clone(),
        facts: RelayFacts::of(
            &front.state,
            front.sessions.recordings.archive(&front.state),
        ),
        now: Timestamp::now(),
        audit: front.audit.clone(),
        actor: principal.into(),
        client: Some(connection.client.address),
        stream,
        // A terminal that says no size has none to fit into.
        width: asked.width.filter(|columns| *columns > 0),
    };
    commands::run(asked.command, &asked.caller, &context, stdin, out, err).await
}

/// Returns the beginning of a line, for listings.
fn shown(work: &ProcessRequest) -> String {
    let ProcessRequest::Exec(line) = work else {
        return String::new();
    };
    let begin = line.get(..MAX_SHOWN_COMMAND).unwrap_or(line);
    String::from_utf8_lossy(begin).into_owned()
}

/// Leaves the client's terminal as it was before the command.
async fn part(out: &mut Out<'_>, parting: &str) -> std::io::Result<()> {
    out.write_all(parting.as_bytes()).await?;
    out.flush().await
}

/// Resolves when a command is to be given up: its client is gone or, at a terminal, has typed Ctrl-C; or
/// it takes too long, unless its answer has no end by itself. Says whether the client wished it so.
async fn over(
    input: &mut InputReceiver,
    streams: bool,
    terminal: bool,
    life: Option<&Life>,
) -> bool {
    let asked_to_end = async {
        while let Some(input) = input.next().await {
            if let (Some(life), Input::Data(data)) = (life, &input) {
                life.count_in(data.len());
                life.touch();
            }
            match input {
                Input::Data(data) if terminal && data.contains(&CTRL_C) => return true,
                Input::Signal(Signal::Int | Signal::Term | Signal::Hup) => return true,
                Input::Data(_) | Input::Eof | Input::Resize(_) | Input::Signal(_) => {}
            }
        }
        false
    };
    if streams {
        return asked_to_end.await;
    }
    // A client that reads no answer does not keep the task.
    let ended = timeout(CONSOLE_TIMEOUT, asked_to_end).await;
    ended.unwrap_or(false)
}

/// Returns the standard input up to its end, or a byte more than a command takes, which it then refuses; `None` if the
/// client went away before the end: half of a document means something else.
async fn read_all(input: &mut InputReceiver, most: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() <= most {
        match input.next().await? {
            Input::Data(data) => bytes.extend_from_slice(&data),
            Input::Eof => break,
            Input::Resize(_) | Input::Signal(_) => {}
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_command_begins_as_ssh_takes_it() {
        let table = [
            ("relay.example.com:2222", "ssh -p 2222 relay.example.com"),
            ("relay.example.com:22", "ssh relay.example.com"),
            ("[2001:db8::1]:2222", "ssh -p 2222 2001:db8::1"),
            ("[2001:db8::1]:22", "ssh 2001:db8::1"),
        ];
        for (address, begins) in table {
            assert_eq!(prefix(address), begins);
        }
    }
}
