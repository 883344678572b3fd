//! The splice of a process: one task that moves bytes between an operator's channel and a device's stream by the stream
//! pump, and what is noted of them on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use holdfast_protocol::codec::CodecError;
use holdfast_protocol::codec::frame::{DataStream, SessionMessage};
use holdfast_protocol::limits::CLOSE_STDOUT_MINOR;
use holdfast_protocol::recording::chain::{Closing, SentControl};
use holdfast_protocol::wire::{Open, ResetCode};
use quinn::{SendStream, VarInt, WriteError};
use tokio::time::sleep;
use tracing::warn;

use super::context::SpliceContext;
use super::down::ProcessDown;
use super::files::Files;
use crate::fence::StoreFence;
use crate::session::admission::recorded::Recorded;
use crate::session::client::lease::Lease;
use crate::session::ending::{End, NOT_FOUND, Process};
use crate::session::forward::agent::AgentForwarding;
use crate::session::input::{Input, InputReceiver};
use crate::session::limits::{MAX_ARRIVAL, START_TIMEOUT};
use crate::session::output::Output;
use crate::session::registry::{LiveGuard, LiveSession};
use crate::session::report::Report;
use crate::session::sftp::ahead::ReadPart;
use crate::session::stream::notices::Notices;
use crate::session::stream::{self, Gather, OpenError, Upward, timeouts};
use crate::store::Store;
use crate::tunnel::peer::drains::DrainWatch;
use crate::tunnel::peer::route::{DeviceRoute, DeviceStream};

/// Everything that a session is made of. Without the decision, which `live` holds, there is none.
pub(crate) struct SplicedSession {
    /// The device's tunnel.
    pub route: DeviceRoute,
    /// The request to the device.
    pub open: Open,
    /// The input from the operator.
    pub input: InputReceiver,
    /// The output to the operator.
    pub outlet: Arc<dyn Output>,
    /// Its place in the registry.
    pub live: LiveGuard,
    /// Its slot of the user's quota.
    pub lease: Lease,
    /// The way to its operator's SSH agent.
    pub agent: Option<AgentForwarding>,
    /// The reporter of its events.
    pub report: Report,
    /// The store, for what the device says of its account.
    pub store: Store,
    /// The fence before what passes.
    pub fence: StoreFence,
    /// The digests of what passes, if it is recorded.
    pub recorded: Option<Recorded>,
    /// True if it is what `scp -O` asks for.
    pub runs_scp: bool,
    /// The text that its operator reads before anything else.
    pub warning: Option<String>,
    /// The drains of its relays.
    pub drain: DrainWatch,
}

/// Runs a session to its end.
pub(crate) async fn run(session: SplicedSession) {
    let SplicedSession {
        route,
        open,
        mut input,
        outlet,
        mut live,
        lease,
        agent,
        report,
        store,
        fence,
        recorded,
        warning,
        runs_scp,
        drain,
    } = session;
    let _count = route.count_session();
    let terminal = open.pty.is_some();
    let this = live.session().clone();
    let notices = Notices {
        outlet: &*outlet,
        terminal,
    };
    if let Some(warning) = &warning {
        notices.say(warning).await;
    }
    let files = Files::of(&this, &report, recorded.as_ref());
    let watched = recorded.as_ref().map(|recorded| &recorded.watched);
    let mut wire = None;
    let started = AtomicBool::new(false);
    let ways = SpliceContext {
        started: &started,
        watched,
        fence: &fence,
        store: &store,
        files: &files,
        agent: agent.as_ref(),
    };
    let end = tokio::select! {
        // A session that was ordered to end says why, even if the tunnel was closed in the same moment; and one that
        // was ordered before the beginning asks nothing of the device.
        biased;
        ending = live.ordered_to_end() => End::Ordered(ending),
        end = splice(&mut wire, open, &route, &mut input, &this, notices, ways) => end,
        ending = timeouts::cutoff(&this, Some(notices)) => End::Ordered(ending),
        ending = timeouts::store_loss(&fence, Some(notices)) => End::Ordered(ending),
        ending = timeouts::drained(drain, Some(notices)) => End::Ordered(ending),
    };
    let refused =
        wire.is_none() || (matches!(end, End::Refused(_)) && !started.load(Ordering::Relaxed));
    if let Some(wire) = wire {
        finish(&end, wire);
        if matches!(end, End::Ordered(_)) {
            arrived(&route).await;
        }
    }
    if let Some(agent) = &agent {
        agent.end(this.id);
    }
    live.mark_drained();
    files.end().await;
    let has_started = started.load(Ordering::Relaxed);
    let on_disconnect = this.authorized.terms().on_disconnect;
    let process = Process::of(&end, on_disconnect, (terminal, route.minor()));
    let process = process.filter(|_| has_started);
    report.session_end(&this, &end, process).await;
    let kept = keep(recorded.as_ref(), &end, refused);
    let said = async {
        if runs_scp && matches!(end, End::Exited(NOT_FOUND)) {
            let device = &this.authorized.device().name;
            let advice = format!("no scp on {device}: without -O, scp needs none there");
            notices.say(&advice).await;
        }
        if !notices
            .send_final_status(&end, &this.authorized.device().name)
            .await
        {
            warn!(session = %this.id, "the client did not take the session's final status");
        }
    };
    tokio::join!(kept, said);
    // In this order: who opens the next session because this one is closed finds its slot free.
    lease.release().await;
    drop(live);
    outlet.close().await;
}

/// Keeps what was seen of a session that was recorded.
async fn keep(recorded: Option<&Recorded>, end: &End, refused: bool) {
    let Some(Recorded {
        recordings,
        watched,
    }) = recorded
    else {
        return;
    };
    let closing = Closing {
        exit: match end {
            End::Exited(exit) => Some(*exit),
            _ => None,
        },
    };
    if let Err(error) = recordings.over(watched, closing, refused).await {
        warn!(session = %watched.id, %error, "cannot store a session's digests");
    }
}

/// Waits as long as a packet takes: what was under way when the stream was reset has reached the device by then,
/// or never will, and the one that asked for the end may learn that nothing more comes.
async fn arrived(route: &DeviceRoute) {
    sleep(route.rtt().min(MAX_ARRIVAL)).await;
}

/// Opens the stream and moves bytes both ways until one side is done. The stream stays in `wire`.
async fn splice(
    wire: &mut Option<DeviceStream>,
    open: Open,
    route: &DeviceRoute,
    input: &mut InputReceiver,
    session: &LiveSession,
    notices: Notices<'_>,
    ways: SpliceContext<'_>,
) -> End {
    let opened = stream::open(wire, route, ways.fence, open, START_TIMEOUT).await;
    let DeviceStream { send, receive } = match opened {
        Ok(stream) => stream,
        Err(OpenError::Request(CodecError::Unsendable { bound })) => {
            return End::Refused(format!(
                "the command and environment are longer than {bound} bytes"
            ));
        }
        Err(OpenError::Request(error)) => return End::Protocol(error.to_string()),
        Err(OpenError::Busy) => {
            return End::Refused(
                "the device has reached its limit of streams on this tunnel".into(),
            );
        }
        Err(OpenError::Lost(error)) => return End::DeviceLost(error),
    };
    let device = &session.authorized.device().name;
    let mut gather = Gather::new(notices.outlet, session, ways.fence);
    let mut down = ProcessDown::new(session, ways);
    let minor = route.minor();
    let mut up = ProcessUp {
        session,
        ways,
        minor,
    };
    let gone = input.gone();
    tokio::select! {
        biased;
        end = stream::down(receive, &mut gather, &mut down) => end,
        end = stream::up(input, send, &mut up, ways.fence) => end,
        () = stream::linger(&gone) => End::ClientGone,
        never = timeouts::silence(route, device, notices) => never,
        late = timeouts::late(|| ways.started.load(Ordering::Relaxed), route, device) => {
            End::NoAnswer(late)
        }
    }
}

/// From the operator to the device.
struct ProcessUp<'a> {
    session: &'a LiveSession,
    ways: SpliceContext<'a>,
    /// The minor version that the device's agent speaks.
    minor: u16,
}

impl Upward for ProcessUp<'_> {
    type End = End;

    /// Returns what the relay asks the device for on its own, when there is something.
    async fn own(&self) -> Bytes {
        match self.ways.files.ahead() {
            Some(ahead) => ahead.for_device().await,
            None => std::future::pending().await,
        }
    }

    async fn send_own(&mut self, send: &mut SendStream, data: Bytes) -> Result<(), WriteError> {
        pass(send, data, self.ways).await
    }

    async fn send(&mut self, send: &mut SendStream, input: Input) -> Result<(), WriteError> {
        let ways = self.ways;
        match input {
            Input::Data(data) => {
                self.session.count_in(data.len());
                self.session.touch();
                pass_on(send, data, ways).await
            }
            Input::Eof => {
                self.session.input_ended();
                end_input(send, ways).await
            }
            Input::Resize(size) => {
                pass_control(ways, SentControl::Resize(size));
                stream::send_message(send, &SessionMessage::Resize(size)).await
            }
            Input::Signal(signal) => {
                pass_control(ways, SentControl::Signal(signal));
                stream::send_message(send, &SessionMessage::Signal(signal)).await
            }
            // What was done with files is seen by the answers, whether the client reads them or not.
            Input::StdoutClosed if ways.files.ahead().is_some() => Ok(()),
            Input::StdoutClosed if self.minor >= CLOSE_STDOUT_MINOR => {
                stream::send_message(send, &SessionMessage::CloseStdout).await
            }
            Input::StdoutClosed => Ok(()),
        }
    }
}

/// Passes on what the client sent, but for what the relay answers itself.
async fn pass_on(
    send: &mut SendStream,
    data: Bytes,
    ways: SpliceContext<'_>,
) -> Result<(), WriteError> {
    let Some(ahead) = ways.files.ahead() else {
        return pass(send, data, ways).await;
    };
    for part in ahead.requests(&data) {
        let part = match part {
            ReadPart::Same(range) => data.slice(range),
            ReadPart::Other(bytes) => bytes.into(),
        };
        pass(send, part, ways).await?;
    }
    Ok(())
}

async fn end_input(send: &mut SendStream, ways: SpliceContext<'_>) -> Result<(), WriteError> {
    if let Some(asked) = ways.files.ahead().map(|ahead| ahead.end())
        && !asked.is_empty()
    {
        pass(send, asked, ways).await?;
    }
    if let Some(watched) = ways.watched {
        watched.pass_eof();
    }
    stream::send_message(send, &SessionMessage::Eof).await
}

/// Notes what goes to the device beside data, before it is sent.
fn pass_control(ways: SpliceContext<'_>, control: SentControl) {
    if let Some(watched) = ways.watched {
        watched.pass_control(control);
    }
}

async fn pass(
    send: &mut SendStream,
    data: Bytes,
    ways: SpliceContext<'_>,
) -> Result<(), WriteError> {
    ways.files.sent(&data).await;
    // Before it is sent: of a frame that is cut off the device may have had a part.
    if let Some(watched) = ways.watched {
        watched.pass(DataStream::Stdin, &data, 0);
    }
    stream::send_data(send, data).await
}

/// Leaves the stream so that the device knows: finished after an exit, reset in every other case, which
/// takes back what waits to be sent. The code tells the device whether the process is to stop.
fn finish(end: &End, stream: DeviceStream) {
    if end.is_orderly() {
        return stream.finish();
    }
    let code = match end.is_order() {
        true => ResetCode::Ended,
        false => ResetCode::Lost,
    };
    stream.reset(VarInt::from_u32(code as u32));
}
