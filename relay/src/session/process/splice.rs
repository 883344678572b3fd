//! The splice: one task that moves bytes between an operator's channel and a device's stream.
//!
//! Back-pressure runs the whole way. Towards the operator a read from the stream is followed by a wait
//! for the channel's window; towards the device a read from the channel's queue is followed by a wait for
//! the stream's flow control. Nothing is buffered here but what is being handed on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use holdfast_protocol::codec::CodecError;
use holdfast_protocol::codec::frame::{DataStream, SessionMessage, data_header};
use holdfast_protocol::recording::chain::{Closing, ControlMessage};
use holdfast_protocol::wire::{Open, ResetCode};
use quinn::{RecvStream, SendStream, VarInt, WriteError};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::down::Down;
use super::ending::{self, End, NOT_FOUND, Notices, Process};
use super::timeouts;
use crate::limits::{
    FAREWELL_TIMEOUT, INTERACTIVE_PRIORITY, MAX_ARRIVAL, RECORDING_NOTE, START_TIMEOUT,
};
use crate::recording::Recordings;
use crate::recording::watched::StreamDigests;
use crate::session::admission::lease::Lease;
use crate::session::forward::agent::AgentForwarding;
use crate::session::input::{Input, InputReceiver};
use crate::session::output::Output;
use crate::session::registry::{LiveGuard, LiveSession};
use crate::session::report::Report;
use crate::session::sftp::ahead::Part;
use crate::session::sftp::files::Files;
use crate::tunnel::registry::Tunnel;

/// Everything that a session is made of. Without the decision, which `live` holds, there is none.
pub(crate) struct Session {
    /// The device's tunnel.
    pub tunnel: Arc<Tunnel>,
    /// The request to the device.
    pub open: Open,
    /// From the operator.
    pub input: InputReceiver,
    /// To the operator.
    pub outlet: Arc<dyn Output>,
    /// Its place in the registry.
    pub live: LiveGuard,
    /// Its slot of the user's quota.
    pub lease: Lease,
    /// The way to its operator's SSH agent.
    pub agent: Option<AgentForwarding>,
    /// The reporter of its events.
    pub report: Report,
    /// The digests of what passes, if it is recorded.
    pub recorded: Option<Recorded>,
    /// The text that its operator reads before anything else.
    pub warning: Option<String>,
}

/// A session that is recorded.
pub(crate) struct Recorded {
    /// The recordings that are notified of it.
    pub recordings: Recordings,
    /// The digests of what passes.
    pub watched: StreamDigests,
}

/// The state that both directions of a splice use.
#[derive(Clone, Copy)]
pub(crate) struct SpliceContext<'a> {
    /// True if the device has accepted the session.
    pub started: &'a AtomicBool,
    /// The digests of what passes, if it is recorded.
    pub watched: Option<&'a StreamDigests>,
    /// The file operations.
    pub files: &'a Files<'a>,
    /// Serves the connections to its agent's socket.
    pub agent: Option<&'a AgentForwarding>,
}

/// The two halves of a stream to a device, from the moment that there is one.
type DeviceStream = Option<(SendStream, RecvStream)>;

/// Runs a session to its end.
pub(crate) async fn run(session: Session) {
    let Session {
        tunnel,
        open,
        mut input,
        outlet,
        mut live,
        lease,
        agent,
        report,
        recorded,
        warning,
    } = session;
    let _count = tunnel.count_session();
    let terminal = open.pty.is_some();
    let this = live.session().clone();
    let notices = Notices {
        outlet: &*outlet,
        terminal,
    };
    if let Some(warning) = &warning {
        notices.say(warning).await;
    }
    let runs_scp = ending::runs_scp(&open.work);
    let files = Files::of(&this, &report, recorded.as_ref());
    let watched = recorded.as_ref().map(|recorded| &recorded.watched);
    let mut wire = None;
    let started = AtomicBool::new(false);
    let ways = SpliceContext {
        started: &started,
        watched,
        files: &files,
        agent: agent.as_ref(),
    };
    let end = tokio::select! {
        // A session that was ordered to end says why, even if the tunnel was closed in the same moment; and one that
        // was ordered before the beginning asks nothing of the device.
        biased;
        ending = live.ordered_to_end() => End::Ordered(ending),
        end = splice(&mut wire, open, &tunnel, &mut input, &this, notices, ways) => end,
        never = note(recorded.as_ref()) => never,
        ending = timeouts::cutoff(&this, Some(notices)) => End::Ordered(ending),
    };
    let refused =
        wire.is_none() || (matches!(end, End::Refused(_)) && !started.load(Ordering::Relaxed));
    if let Some(wire) = wire {
        finish(&end, wire);
        if matches!(end, End::Ordered(_)) {
            arrived(&tunnel).await;
        }
    }
    if let Some(agent) = &agent {
        agent.end(this.id);
    }
    live.mark_drained();
    files.end().await;
    let has_started = started.load(Ordering::Relaxed);
    let process = Process::of(&end, &this, (terminal, tunnel.minor)).filter(|_| has_started);
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
        warn!(session = %watched.id, %error, "what was seen of a session is not kept");
    }
}

/// Waits as long as a packet takes: what was under way when the stream was reset has reached the device by then,
/// or never will, and the one that asked for the end may learn that nothing more comes.
async fn arrived(tunnel: &Tunnel) {
    sleep(tunnel.connection.rtt().min(MAX_ARRIVAL)).await;
}

/// Opens the stream and moves bytes both ways until one side is done. The stream stays in `wire`.
async fn splice(
    wire: &mut DeviceStream,
    open: Open,
    tunnel: &Tunnel,
    input: &mut InputReceiver,
    session: &LiveSession,
    notices: Notices<'_>,
    ways: SpliceContext<'_>,
) -> End {
    let (send, receive) = match begin(wire, tunnel, open).await {
        Ok(halves) => halves,
        Err(end) => return end,
    };
    let device = &session.authorized.device().name;
    let mut down = Down::new(notices.outlet, session, ways);
    let gone = input.gone();
    tokio::select! {
        biased;
        end = down.run(receive) => end,
        end = up(input, send, session, ways) => end,
        end = linger(&gone) => end,
        never = timeouts::silence(tunnel, device, notices) => never,
        late = timeouts::start(ways.started, tunnel, device) => late,
    }
}

async fn begin<'w>(
    wire: &'w mut DeviceStream,
    tunnel: &Tunnel,
    open: Open,
) -> Result<(&'w mut SendStream, &'w mut RecvStream), End> {
    let lost = |error: &dyn std::fmt::Display| End::DeviceLost(error.to_string());
    let interactive = open.pty.is_some();
    let frame = SessionMessage::Open(open)
        .encode()
        .map_err(|error| match error {
            CodecError::Unsendable { bound } => End::Refused(format!(
                "the command and environment are longer than {bound} bytes"
            )),
            other => End::Protocol(other.to_string()),
        })?;
    let opened = timeout(START_TIMEOUT, tunnel.connection.open_bi()).await;
    let streams = match opened {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => return Err(lost(&error)),
        Err(_) => {
            return Err(End::Refused(
                "the device has reached its limit of streams on this tunnel".into(),
            ));
        }
    };
    // From here on it is reset, whatever ends the session: a stream that is merely dropped would still bring
    // its device what it holds.
    let (send, receive) = wire.insert(streams);
    if interactive {
        let _ = send.set_priority(INTERACTIVE_PRIORITY);
    }
    send.write_chunk(frame.into())
        .await
        .map_err(|error| lost(&error))?;
    Ok((send, receive))
}

/// Copies from the operator to the device. Ends only when the client is gone; after its EOF it goes on, for
/// signals and sizes.
async fn up(
    input: &mut InputReceiver,
    send: &mut SendStream,
    session: &LiveSession,
    ways: SpliceContext<'_>,
) -> End {
    loop {
        let input = tokio::select! {
            // What is asked of a file goes before what closes it.
            biased;
            asked = guessed(ways.files) => match pass(send, asked, ways).await {
                Ok(()) | Err(WriteError::Stopped(_)) => continue,
                Err(WriteError::ConnectionLost(error)) => return End::from(&error),
                Err(error) => return End::DeviceLost(error.to_string()),
            },
            input = input.next() => input,
        };
        let Some(input) = input else {
            return End::ClientGone;
        };
        let sent = match input {
            Input::Data(data) => {
                session.count_in(data.len());
                session.touch();
                pass_on(send, data, ways).await
            }
            Input::Eof => {
                session.input_ended();
                end_input(send, ways).await
            }
            Input::Resize(size) => {
                pass_control(ways, ControlMessage::Resize(size));
                write(send, &SessionMessage::Resize(size)).await
            }
            Input::Signal(signal) => {
                pass_control(ways, ControlMessage::Signal(signal));
                write(send, &SessionMessage::Signal(signal)).await
            }
        };
        match sent {
            Ok(()) => {}
            // The device takes no more: the process is gone, and the other direction will say how. What
            // the operator still types goes nowhere, as with sshd.
            Err(WriteError::Stopped(_)) => {}
            Err(WriteError::ConnectionLost(error)) => return End::from(&error),
            Err(error) => return End::DeviceLost(error.to_string()),
        }
    }
}

/// Returns what the relay asks the device for on its own, when there is something.
async fn guessed(files: &Files<'_>) -> Bytes {
    match files.ahead() {
        Some(ahead) => ahead.for_device().await,
        None => std::future::pending().await,
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
            Part::Same(range) => data.slice(range),
            Part::Other(bytes) => bytes.into(),
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
    write(send, &SessionMessage::Eof).await
}

/// Notes what goes to the device beside data, before it is sent.
fn pass_control(ways: SpliceContext<'_>, control: ControlMessage) {
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
    let header = data_header(DataStream::Stdin, data.len());
    let mut chunks = [Bytes::copy_from_slice(&header), data];
    send.write_all_chunks(&mut chunks).await
}

/// Waits after the client has gone for what it sent last, and a device that takes none of it must not keep its
/// process: it is waited for a moment, and no longer.
async fn linger(gone: &CancellationToken) -> End {
    gone.cancelled().await;
    sleep(FAREWELL_TIMEOUT).await;
    End::ClientGone
}

async fn write(send: &mut SendStream, message: &SessionMessage) -> Result<(), WriteError> {
    // These messages have a fixed size, far below their bound.
    let Ok(frame) = message.encode() else {
        return Ok(());
    };
    send.write_chunk(frame.into()).await
}

/// Writes down now and then what was seen of a session that is recorded.
async fn note(recorded: Option<&Recorded>) -> End {
    let Some(Recorded {
        recordings,
        watched,
    }) = recorded
    else {
        return std::future::pending().await;
    };
    let mut noted = watched.seen();
    loop {
        sleep(RECORDING_NOTE).await;
        let seen = watched.seen();
        if seen == noted {
            continue;
        }
        match recordings.note(watched).await {
            Ok(()) => noted = seen,
            Err(error) => {
                warn!(session = %watched.id, %error, "what is seen of a session is not kept")
            }
        }
    }
}

/// Leaves the stream so that the device knows: finished after an exit, reset in every other case, which
/// takes back what waits to be sent. The code tells the device whether the process is to stop.
fn finish(end: &End, (mut send, mut receive): (SendStream, RecvStream)) {
    if end.is_orderly() {
        let _ = send.finish();
    } else {
        let code = match end.is_order() {
            true => ResetCode::Ended,
            false => ResetCode::Lost,
        };
        let code = VarInt::from_u32(code as u32);
        let _ = send.reset(code);
        let _ = receive.stop(code);
    }
}
