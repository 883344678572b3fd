//! The console: `ssh -p 2222 relay COMMAND`. The commands, and who may run them, are the command tree's;
//! here a channel's bytes become a line and a standard input, and back.

mod ask;
mod bulk;
mod counted;
mod fenced;
mod lines;

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use holdfast_protocol::wire::{Exit, Signal};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::ask::{ConsoleAsked, ask};
use self::counted::Counted;
use self::fenced::FencedWriter;
use self::lines::TerminalLines;
use crate::bulk::BulkCaller;
use crate::clock::Timestamp;
use crate::commands::{self, Caller, CommandRow, Context, Out, RelayFacts};
use crate::fence::StoreFence;
use crate::identity::Principal;
use crate::limits::FINAL_STATUS_TIMEOUT;
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
use crate::ssh::connection::Connection;
use crate::ssh::console::{ConsoleCall, ConsoleService};
use crate::ssh::limits::CONSOLE_TIMEOUT;

/// The byte that a terminal in raw mode sends for the key that interrupts.
const CTRL_C: u8 = 3;

/// The exit status of what was interrupted, as a shell has it: 128 and SIGINT.
const INTERRUPTED: u8 = 130;

/// The exit status of what the relay ended, as of a session.
const CUT_OFF: u8 = 255;

/// The console.
#[derive(Debug)]
pub(crate) struct CommandConsole;

impl ConsoleService for CommandConsole {
    fn run(&self, front: Arc<Front>, call: ConsoleCall) -> BoxFuture<'static, ()> {
        Box::pin(run(front, call))
    }
}

async fn run(front: Arc<Front>, call: ConsoleCall) {
    let ConsoleCall {
        connection,
        principal,
        work,
        mut input,
        outlet,
        terminal: size,
    } = call;
    let (mut out, mut err) = (outlet.writer(), outlet.error_writer());
    let terminal = size.is_some();
    if terminal {
        out = Box::pin(TerminalLines::new(out));
        err = Box::pin(TerminalLines::new(err));
    }
    let status = match ask(&front, &connection, &principal, &work, &mut input).await {
        Ok(asked) => {
            let width = size.map(|size| usize::from(size.columns));
            let asked = ConsoleAsked { width, ..asked };
            let desk = Desk {
                front: &front,
                connection: &connection,
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
                    .session_rejected(&self.connection.client, &refused, None, &refusal)
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
        // What has no end by itself, and bulk work, passes what a lock may forbid.
        let fence = stream.as_ref().and_then(|_| self.fence());
        let out: Pin<Box<dyn AsyncWrite + Send>> = match &fence {
            Some(fence) => Box::pin(FencedWriter::new(out, Some(fence.clone()))),
            None => out,
        };
        let mut out: Pin<Box<dyn AsyncWrite + Send>> = match &life {
            Some(life) => Box::pin(Counted::new(out, life.clone())),
            None => out,
        };
        let mut err = FencedWriter::new(err, fence);
        let parting = asked.command.parting();
        let interrupted = CancellationToken::new();
        let done = tokio::select! {
            // A command that was ordered to end says why, even if it ended in the same moment.
            biased;
            ending = self.cut(entered.as_mut(), &interrupted) => Err(ending),
            done = self.answer(asked, stream.clone(), input, &mut out, &mut err, &interrupted) => Ok(done),
        };
        if let Some(life) = &life {
            life.mark_drained();
        }
        let ending = match done {
            Ok(Ok(status)) => return Some(status),
            Ok(Err(interrupted)) => {
                self.part(&mut out, parting).await;
                return interrupted.then_some(INTERRUPTED);
            }
            Err(ending) => ending,
        };
        self.part(&mut out, parting).await;
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

    /// Returns the fence, if there is one.
    fn fence(&self) -> Option<StoreFence> {
        let fence = &self.front.sessions.tunnels.fence;
        fence.is_needed().then(|| fence.clone())
    }

    /// Leaves the client's terminal as it was before the command, also while nothing else passes.
    async fn part(&self, out: &mut Out<'_>, parting: &'static str) {
        let parted = async {
            if self.front.sessions.tunnels.fence.is_open() {
                out.write_all(parting.as_bytes()).await?;
                out.flush().await?;
            } else if !parting.is_empty() {
                let parting = Bytes::from_static(parting.as_bytes());
                let _: Result<(), Gone> = self.notices.outlet.stdout(parting).await;
            }
            Ok::<_, std::io::Error>(())
        };
        let _ = timeout(FINAL_STATUS_TIMEOUT, parted).await;
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
            ending = timeouts::store_loss(&self.front.sessions.tunnels.fence, Some(self.notices)) => ending,
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
                // Who reads no more is gone for an answer that may have no end; a short one ends by itself.
                Input::StdoutClosed if streams => return false,
                Input::Data(_)
                | Input::Eof
                | Input::Resize(_)
                | Input::Signal(_)
                | Input::StdoutClosed => {}
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
