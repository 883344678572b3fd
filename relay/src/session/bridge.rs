//! The splice: one task that moves bytes between an operator's channel and a device's stream.
//!
//! Back-pressure runs the whole way. Towards the operator a read from the stream is followed by a wait
//! for the channel's window; towards the device a read from the channel's queue is followed by a wait for
//! the stream's flow control. Nothing is buffered here but what is being handed on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use holdfast_protocol::codec::CodecError;
use holdfast_protocol::codec::frame::{
    DataStream, FrameReader, Piece, SessionMessage, data_header,
};
use holdfast_protocol::session::{RelayEvent, RelaySession, SessionViolation};
use holdfast_protocol::wire::{Exit, Open};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::live::LiveGuard;
use super::refusal;
use crate::access::decision::Authorized;
use crate::limits::{
    FAREWELL_TIMEOUT, INTERACTIVE_PRIORITY, SILENCE_NOTICE, SILENCE_POLL, SPLICE_BUFFER,
    START_TIMEOUT,
};
use crate::ssh::outlet::{Gone, Outlet};
use crate::ssh::queue::{Input, InputReceiver};
use crate::tunnel::registry::Tunnel;

/// What OpenSSH's client gives for any failure of its own, and we for a session that did not happen or
/// was cut.
const FAILED: Exit = Exit::Status(255);

/// Chunks that are taken from a stream at once: of about 1.2 KiB each, they fill a splice buffer.
const CHUNKS: usize = 32;

/// Everything that a session is made of. Without the decision there is none.
pub struct Session {
    /// The decision.
    pub authorized: Authorized,
    /// The device's tunnel.
    pub tunnel: Arc<Tunnel>,
    /// What is asked of the device.
    pub open: Open,
    /// From the operator.
    pub input: InputReceiver,
    /// To the operator.
    pub outlet: Outlet,
    /// Its place on the board.
    pub live: LiveGuard,
}

/// How a session ended.
#[derive(Debug, Error)]
enum End {
    #[error("exited: {0:?}")]
    Exited(Exit),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    NoAnswer(String),
    #[error("the client went away")]
    ClientGone,
    #[error("{0}")]
    Told(String),
    #[error("the device was lost: {0}")]
    DeviceLost(String),
    #[error("the device broke the protocol: {0}")]
    Protocol(String),
}

/// Runs a session to its end.
pub async fn run(session: Session) {
    let Session {
        authorized,
        tunnel,
        open,
        mut input,
        outlet,
        mut live,
    } = session;
    let _count = tunnel.count_session();
    let terminal = open.pty.is_some();
    let (id, device) = (open.session, authorized.device().name.clone());
    info!(session = %id, user = %open.user, %device, login = %open.login, work = ?open.work,
        client = %open.client, "session start");
    let end = match begin(&tunnel, open).await {
        Ok((mut send, mut receive)) => {
            let started = AtomicBool::new(false);
            let mut down = Down::new(&outlet, &authorized, &started);
            let gone = input.gone();
            let end = tokio::select! {
                // Whoever was told to end says why, even if the tunnel was closed in the same moment.
                biased;
                why = live.told_to_end() => End::Told(why),
                end = down.run(&mut receive) => end,
                end = up(&mut input, &mut send) => end,
                end = linger(&gone) => end,
                never = watch_silence(&tunnel, &outlet, &device, terminal) => never,
                late = wait_start(&started, &tunnel, &device) => late,
            };
            finish(&end, &mut send, &mut receive);
            end
        }
        Err(end) => end,
    };
    info!(session = %id, %end, "session end");
    let words = farewell(&end, &outlet, &device, terminal);
    if timeout(FAREWELL_TIMEOUT, words).await.is_err() {
        warn!(session = %id, "the client did not take the session's last words");
    }
    outlet.close().await;
}

async fn begin(tunnel: &Tunnel, open: Open) -> Result<(SendStream, RecvStream), End> {
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
    let (mut send, receive) = match opened {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => return Err(lost(&error)),
        Err(_) => {
            return Err(End::Refused(
                "the device bears no more sessions on this tunnel".into(),
            ));
        }
    };
    if interactive {
        let _ = send.set_priority(INTERACTIVE_PRIORITY);
    }
    send.write_chunk(frame.into())
        .await
        .map_err(|error| lost(&error))?;
    Ok((send, receive))
}

/// From the operator to the device. Ends only when the client is gone; after its EOF it goes on, for
/// signals and sizes.
async fn up(input: &mut InputReceiver, send: &mut SendStream) -> End {
    while let Some(input) = input.next().await {
        let sent = match input {
            Input::Data(data) => {
                let header = data_header(DataStream::Stdin, data.len());
                let mut chunks = [Bytes::copy_from_slice(&header), data];
                send.write_all_chunks(&mut chunks).await
            }
            Input::Eof => write(send, &SessionMessage::Eof).await,
            Input::Resize(size) => write(send, &SessionMessage::Resize(size)).await,
            Input::Signal(signal) => write(send, &SessionMessage::Signal(signal)).await,
        };
        match sent {
            Ok(()) => {}
            // The device takes no more: the process is gone, and the other direction will say how. What
            // the operator still types goes nowhere, as with sshd.
            Err(WriteError::Stopped(_)) => {}
            Err(error) => return End::DeviceLost(error.to_string()),
        }
    }
    End::ClientGone
}

/// A client that has gone leaves what it sent last, and a device that takes none of it must not keep its
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

/// From the device to the operator.
struct Down<'a> {
    outlet: &'a Outlet,
    authorized: &'a Authorized,
    /// Whether the device has accepted the session.
    started: &'a AtomicBool,
    reader: FrameReader,
    state: RelaySession,
    /// Output that is gathered into one SSH packet, and which stream it is of.
    buffer: BytesMut,
    stream: DataStream,
}

impl<'a> Down<'a> {
    fn new(outlet: &'a Outlet, authorized: &'a Authorized, started: &'a AtomicBool) -> Self {
        Self {
            outlet,
            authorized,
            started,
            reader: FrameReader::default(),
            state: RelaySession::default(),
            buffer: BytesMut::new(),
            stream: DataStream::Stdout,
        }
    }

    async fn run(&mut self, receive: &mut RecvStream) -> End {
        let mut chunks = [const { Bytes::new() }; CHUNKS];
        loop {
            let count = match receive.read_chunks(&mut chunks).await {
                Ok(Some(count)) => count,
                Ok(None) => return End::Protocol("its stream ended before the exit status".into()),
                Err(ReadError::ConnectionLost(error)) => return End::DeviceLost(error.to_string()),
                Err(error) => return End::DeviceLost(error.to_string()),
            };
            for chunk in chunks.iter_mut().take(count) {
                let chunk = std::mem::take(chunk);
                if let Err(end) = self.take(&chunk).await {
                    return end;
                }
            }
            // What has come is shown at once: gathering never waits for more.
            if self.flush().await.is_err() {
                return End::ClientGone;
            }
        }
    }

    async fn take(&mut self, chunk: &Bytes) -> Result<(), End> {
        let mut input = &chunk[..];
        loop {
            match self
                .reader
                .read(&mut input)
                .map_err(|error| End::Protocol(error.to_string()))?
            {
                None => return Ok(()),
                Some(Piece::Data(stream, data)) => {
                    self.state.handle_data(stream)?;
                    self.gather(stream, data)
                        .await
                        .map_err(|Gone| End::ClientGone)?;
                }
                Some(Piece::Message(message)) => {
                    self.flush().await.map_err(|Gone| End::ClientGone)?;
                    let event = self.state.handle_message(message)?;
                    self.follow(event).await?;
                }
            }
        }
    }

    async fn follow(&mut self, event: RelayEvent) -> Result<(), End> {
        match event {
            RelayEvent::Accepted => {
                self.started.store(true, Ordering::Relaxed);
                Ok(())
            }
            // The operator's EOF comes behind the exit status. OpenSSH closes a channel as soon as both
            // sides have sent EOF, and russh forgets a channel that is closed: a status sent after that
            // would be lost, and `ssh` would exit with 255.
            RelayEvent::OutputEnded => Ok(()),
            RelayEvent::Exited(exit) => Err(End::Exited(exit)),
            RelayEvent::Refused(why) => {
                let (device, login) = (&self.authorized.device().name, self.authorized.login());
                Err(End::Refused(refusal::sentence(device, login, &why)))
            }
        }
    }

    async fn gather(&mut self, stream: DataStream, data: &[u8]) -> Result<(), Gone> {
        if stream != self.stream || self.buffer.len() + data.len() > SPLICE_BUFFER {
            self.flush().await?;
        }
        self.stream = stream;
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = self.buffer.split().freeze();
        match self.stream {
            DataStream::Stderr => self.outlet.stderr(data).await,
            DataStream::Stdout | DataStream::Stdin => self.outlet.stdout(data).await,
        }
    }
}

impl From<SessionViolation> for End {
    fn from(violation: SessionViolation) -> Self {
        Self::Protocol(violation.to_string())
    }
}

/// Gives up a device that neither accepts nor refuses: its tunnel stands for minutes after it lost its
/// power. Never ends once the session has started.
async fn wait_start(
    started: &AtomicBool,
    tunnel: &Tunnel,
    device: &holdfast_protocol::ids::DeviceName,
) -> End {
    sleep(START_TIMEOUT).await;
    if started.load(Ordering::Relaxed) {
        return std::future::pending().await;
    }
    let seconds = tunnel.silence().as_secs();
    End::NoAnswer(format!(
        "{device} does not answer (silent for {seconds} s): try again when it is back"
    ))
}

/// Tells a terminal when its device falls silent, and when it is back. Never ends.
async fn watch_silence(
    tunnel: &Tunnel,
    outlet: &Outlet,
    device: &holdfast_protocol::ids::DeviceName,
    terminal: bool,
) -> End {
    if !terminal {
        return std::future::pending().await;
    }
    let mut ticks = interval(SILENCE_POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        ticks.tick().await;
        let silence = tunnel.silence();
        if !told && silence >= SILENCE_NOTICE {
            told = true;
            let seconds = silence.as_secs();
            let text = format!("{device} is not answering ({seconds} s). Waiting; ~. gives up.");
            // A client that does not read is told nothing, and must not hold up the rest.
            let _ = timeout(FAREWELL_TIMEOUT, notice(outlet, terminal, &text)).await;
        } else if told && silence < SILENCE_NOTICE {
            told = false;
            let text = format!("{device} is back");
            let _ = timeout(FAREWELL_TIMEOUT, notice(outlet, terminal, &text)).await;
        }
    }
}

/// A line of our own: on the terminal, or on stderr where there is none; never in the data of a command.
async fn notice(outlet: &Outlet, terminal: bool, text: &str) -> Result<(), Gone> {
    if terminal {
        outlet
            .stdout(format!("\r\n[holdfast] {text}\r\n").into())
            .await
    } else {
        outlet.stderr(format!("[holdfast] {text}\n").into()).await
    }
}

async fn farewell(
    end: &End,
    outlet: &Outlet,
    device: &holdfast_protocol::ids::DeviceName,
    terminal: bool,
) -> Result<(), Gone> {
    let exit = match end {
        End::ClientGone => return Ok(()),
        End::Exited(exit) => *exit,
        End::Refused(sentence) | End::NoAnswer(sentence) => {
            outlet.stderr(format!("{sentence}\r\n").into()).await?;
            FAILED
        }
        End::Told(why) => {
            notice(outlet, terminal, &format!("closed: {why}")).await?;
            FAILED
        }
        End::DeviceLost(_) => {
            notice(
                outlet,
                terminal,
                &format!("closed: the tunnel to {device} was lost"),
            )
            .await?;
            FAILED
        }
        End::Protocol(_) => {
            let text = format!("closed: {device} broke the protocol (is its agent too new?)");
            notice(outlet, terminal, &text).await?;
            FAILED
        }
    };
    outlet.exit(exit).await?;
    outlet.eof().await
}

/// Leaves the stream so that the device knows: finished after an exit, reset in every other case, which
/// makes it hang up the process.
fn finish(end: &End, send: &mut SendStream, receive: &mut RecvStream) {
    match end {
        End::Exited(_) | End::Refused(_) => {
            let _ = send.finish();
        }
        _ => {
            let _ = send.reset(VarInt::from_u32(0));
            let _ = receive.stop(VarInt::from_u32(0));
        }
    }
}

/// Says why nothing starts on a channel, and closes it.
pub async fn refuse(outlet: &Outlet, sentence: &str) {
    let words = async {
        outlet.stderr(format!("{sentence}\r\n").into()).await?;
        outlet.exit(FAILED).await?;
        outlet.eof().await
    };
    let _ = timeout(FAREWELL_TIMEOUT, words).await;
    outlet.close().await;
}
