//! One device's part: a session like any other, whose output is gathered here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_protocol::ids::Login;
use holdfast_protocol::wire::{Exit, SFTP};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::BulkCaller;
use super::copy::{Copy, Put};
use super::lines::{Beginning, DeviceLines, Line};
use super::outcome::BulkOutcome;
use crate::clock;
use crate::limits::FINAL_STATUS_TIMEOUT;
use crate::model::request::ProcessRequest;
use crate::session::admission::Opened;
use crate::session::client::target::SshTarget;
use crate::session::ending::{Cause, Ending};
use crate::session::input::{Input, InputBudget, InputSender, queue};
use crate::session::output::{Gathered, Piece, gather};
use crate::session::process::start::ProcessAsk;
use crate::session::refusal::Refusal;
use crate::session::registry::LiveSession;
use crate::store::Device;

/// The request for a device.
#[derive(Clone, Debug)]
pub(crate) enum BulkRequest {
    /// Run this, as `ssh DEVICE COMMAND` would.
    Exec(Bytes),
    /// Put a file there.
    Copy(Copy),
}

/// A device's part of an order.
pub(super) struct Job {
    pub(super) caller: BulkCaller,
    pub(super) device: Device,
    pub(super) login: Login,
    pub(super) request: BulkRequest,
    pub(super) timeout: Option<Duration>,
    /// True if output is kept for the outcome, rather than shown.
    pub(super) keeps: bool,
    /// The receiver of output.
    pub(super) lines: mpsc::Sender<Line>,
    /// Cancelled when the result is not wanted any more.
    pub(super) over: CancellationToken,
}

/// A session that runs. Its observer is lost when the sender is dropped.
struct JobSession {
    sender: InputSender,
    /// Brings the live session, as soon as there is one.
    entered: oneshot::Receiver<Arc<LiveSession>>,
    output: Gathered,
}

/// The end: the exit status, if there is one, and what there is to say.
type Ended = (Option<Exit>, Option<String>);

impl Job {
    /// Does it in a task of its own, which tidies up when it is not wanted any more.
    pub(super) async fn guarded(self) -> BulkOutcome {
        let (device, began) = (self.device.name.clone(), clock::instant());
        let done = tokio::spawn(self.run()).await;
        let ((exit, note), kept) = done.unwrap_or_else(|_| {
            let note = "the relay failed: see its log".to_owned();
            ((None, Some(note)), None)
        });
        BulkOutcome {
            device,
            exit,
            note,
            took: began.elapsed(),
            kept,
        }
    }

    async fn run(self) -> (Ended, Option<[Beginning; 2]>) {
        let mut kept = self.keeps.then(<[Beginning; 2]>::default);
        let work = match &self.request {
            BulkRequest::Exec(line) => ProcessRequest::Exec(line.to_vec()),
            BulkRequest::Copy(_) => ProcessRequest::Subsystem(SFTP.to_owned()),
        };
        let ended = match self.start(work).await {
            Err(refusal) => (None, Some(refusal.to_string())),
            Ok(session) => match &self.request {
                BulkRequest::Exec(_) => self.exec(session, kept.as_mut()).await,
                BulkRequest::Copy(copy) => self.copy(session, copy).await,
            },
        };
        (ended, kept)
    }

    /// Returns the way of every session: decided on now, with a slot of its own.
    async fn start(&self, work: ProcessRequest) -> Result<JobSession, Refusal> {
        let BulkCaller {
            sessions, client, ..
        } = &self.caller;
        let target = SshTarget::Device(self.login.clone(), self.device.name.clone());
        // The channel that all of this is one command of was counted when it was opened.
        let opened = sessions.open(client, &target, 0).await?;
        let Opened::Device(way) = opened else {
            return Err(Refusal::NotADevice);
        };
        if way.reach.device().id != self.device.id {
            return Err(Refusal::OtherDevice);
        }
        let (sender, input) = queue(&InputBudget::default());
        let (outlet, output) = gather();
        let (live, entered) = oneshot::channel();
        let ask = ProcessAsk {
            client: client.clone(),
            way: *way,
            login: self.login.clone(),
            work,
            original_command: None,
            pty: None,
            env: vec![],
            input,
            outlet: Arc::new(outlet),
            // No operator's SSH agent goes along to a fleet.
            agent: None,
            entered: Some(live),
        };
        let (sessions, busy) = (sessions.clone(), client.busy());
        tokio::spawn(async move {
            sessions.start(ask).await;
            drop(busy);
        });
        Ok(JobSession {
            sender,
            entered,
            output,
        })
    }

    async fn exec(&self, session: JobSession, mut kept: Option<&mut [Beginning; 2]>) -> Ended {
        let JobSession {
            sender,
            entered,
            mut output,
        } = session;
        let mut lines = [DeviceLines::default(), DeviceLines::default()];
        let shown = async {
            let _ = sender.push(Input::Eof).await;
            while let Some(piece) = output.next().await {
                let (which, data) = match piece {
                    Piece::Stdout(data) => (0, data),
                    Piece::Stderr(data) => (1, data),
                };
                match &mut kept {
                    Some(kept) => kept[which].take(&data),
                    None => self.show(which == 1, lines[which].take(&data)).await,
                }
            }
        };
        let cut = tokio::select! {
            () = shown => None,
            cut = self.cut() => Some(cut),
        };
        for (which, lines) in lines.iter_mut().enumerate() {
            self.show(which == 1, lines.rest()).await;
        }
        match cut {
            None => last(&output),
            Some(cut) => {
                hang_up(sender, entered, cut.ending(), output).await;
                (None, Some(cut.to_string()))
            }
        }
    }

    async fn copy(&self, session: JobSession, copy: &Copy) -> Ended {
        let JobSession {
            sender,
            entered,
            mut output,
        } = session;
        let mut put = Put::new(&sender, &mut output, copy);
        let failed = tokio::select! {
            done = put.run() => done.err().map(|why| (why.to_string(), None)),
            cut = self.cut() => Some((cut.to_string(), cut.ending())),
        };
        let Some((failed, ending)) = failed else {
            let _ = sender.push(Input::Eof).await;
            let _ = timeout(FINAL_STATUS_TIMEOUT, drain(&mut output)).await;
            return (Some(Exit::Status(0)), None);
        };
        let _ = timeout(FINAL_STATUS_TIMEOUT, put.tidy()).await;
        // Why there is no session any more says more than that there is none.
        let (_, notice) = last(&output);
        hang_up(sender, entered, ending, output).await;
        (None, Some(notice.unwrap_or(failed)))
    }

    async fn show(&self, is_error: bool, lines: impl IntoIterator<Item = String>) {
        for text in lines {
            let device = self.device.name.clone();
            let line = Line {
                device,
                is_error,
                text,
            };
            // Who wants none of it any more has cancelled it.
            let _ = self.lines.send(line).await;
        }
    }

    /// Resolves when it is to end before it is done.
    async fn cut(&self) -> Cut {
        let late = async {
            match self.timeout {
                Some(timeout) => sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.over.cancelled() => match self.caller.interrupted.is_cancelled() {
                true => Cut::Interrupted,
                false => Cut::ClientGone,
            },
            () = late => Cut::Late(self.timeout.unwrap_or_default()),
        }
    }
}

/// The reason why a part ends before it is done.
enum Cut {
    /// It took too long.
    Late(Duration),
    /// The operator gave it up.
    Interrupted,
    /// The client is gone: an observer is lost, as with any session.
    ClientGone,
}

impl Cut {
    /// Returns the reason with which its session is ended; `None` if it only loses its observer.
    fn ending(&self) -> Option<Ending> {
        let cause = match self {
            Self::Late(_) => Cause::Timeout,
            Self::Interrupted => Cause::Interrupted,
            Self::ClientGone => return None,
        };
        let why = self.to_string();
        Some(Ending { cause, why })
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(span) => {
                let span = humantime::format_duration(*span);
                write!(f, "not done after {span}: hung up")
            }
            Self::Interrupted | Self::ClientGone => f.write_str("given up"),
        }
    }
}

fn last(output: &Gathered) -> Ended {
    let last = output.last();
    (last.exit, last.notice)
}

/// Ends a session, by order or as a client does that goes away, and waits for it a moment: its slot is free then.
async fn hang_up(
    sender: InputSender,
    mut entered: oneshot::Receiver<Arc<LiveSession>>,
    ending: Option<Ending>,
    mut output: Gathered,
) {
    // What has not begun by now never does.
    entered.close();
    if let Some(ending) = ending
        && let Ok(live) = entered.try_recv()
    {
        live.end(ending);
    }
    drop(sender);
    let _ = timeout(FINAL_STATUS_TIMEOUT, drain(&mut output)).await;
}

async fn drain(output: &mut Gathered) {
    while output.next().await.is_some() {}
}
