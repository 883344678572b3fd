//! From the device to the operator.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use holdfast_protocol::codec::frame::{DataStream, FramePiece, FrameReader, SessionMessage};
use holdfast_protocol::session::{Carries, RelayEvent, RelaySession, SessionViolation};
use quinn::{ReadError, RecvStream};

use super::ending::End;
use crate::limits::SPLICE_BUFFER;
use crate::recording::watched::StreamDigests;
use crate::session::admission::refusal;
use crate::session::forward::agent::AgentForwarding;
use crate::session::output::Gone;
use crate::session::output::Output;
use crate::session::process::splice::SpliceContext;
use crate::session::registry::LiveSession;
use crate::session::sftp::ahead::Part;
use crate::session::sftp::files::Files;

/// Chunks that are taken from a stream at once: of about 1.2 KiB each, they fill a splice buffer.
const CHUNKS: usize = 32;

/// Returns the answers that the relay gives the client on its own, when there are some.
async fn relay_answers(files: &Files<'_>) -> Bytes {
    match files.ahead() {
        Some(ahead) => ahead.for_client().await,
        None => std::future::pending().await,
    }
}

/// The downward half of a splice.
pub(crate) struct Down<'a> {
    outlet: &'a dyn Output,
    session: &'a LiveSession,
    /// True if the device has accepted the session.
    started: &'a AtomicBool,
    files: &'a Files<'a>,
    agent: Option<&'a AgentForwarding>,
    /// Takes the digests of what passes, if the session is recorded.
    watched: Option<&'a StreamDigests>,
    reader: FrameReader,
    state: RelaySession,
    /// Output that is gathered into one SSH packet, and which stream it is of.
    buffer: BytesMut,
    stream: DataStream,
}

impl<'a> Down<'a> {
    /// Returns the half of a session; `started` is set when the device accepts it.
    #[must_use]
    pub(crate) fn new(
        outlet: &'a dyn Output,
        session: &'a LiveSession,
        ways: SpliceContext<'a>,
    ) -> Self {
        let SpliceContext {
            started,
            watched,
            files,
            agent,
        } = ways;
        Self {
            outlet,
            session,
            started,
            files,
            agent,
            watched,
            reader: FrameReader::default(),
            state: RelaySession::new(Carries::Process {
                agent: agent.is_some(),
            }),
            buffer: BytesMut::new(),
            stream: DataStream::Stdout,
        }
    }

    /// Runs until the session is over.
    pub(crate) async fn run(&mut self, receive: &mut RecvStream) -> End {
        let mut chunks = [const { Bytes::new() }; CHUNKS];
        loop {
            let read = tokio::select! {
                read = receive.read_chunks(&mut chunks) => read,
                answers = relay_answers(self.files) => {
                    let gathered = self.gather(DataStream::Stdout, &answers).await;
                    if gathered.is_err() || self.flush().await.is_err() {
                        return End::ClientGone;
                    }
                    continue;
                }
            };
            let count = match read {
                Ok(Some(count)) => count,
                Ok(None) => return End::Protocol("its stream ended before the exit status".into()),
                Err(ReadError::ConnectionLost(error)) => return End::from(&error),
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
                Some(FramePiece::Data(stream, data)) => {
                    self.state.handle_data(stream)?;
                    if stream == DataStream::Stdout {
                        self.files.answered(data).await;
                    }
                    if let Some(watched) = self.watched {
                        watched.pass(stream, data, self.reader.remaining());
                    }
                    self.pass(stream, data)
                        .await
                        .map_err(|Gone| End::ClientGone)?;
                }
                Some(FramePiece::Message(message)) => {
                    if let SessionMessage::Eof | SessionMessage::Exit(_) = message {
                        self.rest().await.map_err(|Gone| End::ClientGone)?;
                    }
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
            RelayEvent::Incoming(incoming) => match self.agent {
                Some(agent) => {
                    agent.come(self.session.id, incoming).await;
                    Ok(())
                }
                None => Err(SessionViolation::Kind.into()),
            },
            RelayEvent::Address(_) => Err(SessionViolation::Kind.into()),
            RelayEvent::Refused(why) => {
                let authorized = &self.session.authorized;
                let (device, login) = (&authorized.device().name, authorized.login());
                Err(End::Refused(refusal::sentence(device, login, &why)))
            }
        }
    }

    /// Passes on what the device sent, but for what only the relay asked for.
    async fn pass(&mut self, stream: DataStream, data: &[u8]) -> Result<(), Gone> {
        let ahead = self.files.ahead();
        let Some(ahead) = ahead.filter(|_| stream == DataStream::Stdout) else {
            return self.gather(stream, data).await;
        };
        for part in ahead.answers(data) {
            match part {
                Part::Same(range) => {
                    let data = data.get(range).unwrap_or_default();
                    self.gather(stream, data).await?;
                }
                Part::Other(bytes) => self.gather(stream, &bytes).await?,
            }
        }
        Ok(())
    }

    /// Flushes at the end of the output: half of a packet is shown as it is.
    async fn rest(&mut self) -> Result<(), Gone> {
        let rest = self.files.ahead().map(|ahead| ahead.rest());
        match rest.filter(|rest| !rest.is_empty()) {
            Some(rest) => self.gather(DataStream::Stdout, &rest).await,
            None => Ok(()),
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
        let length = data.len();
        match self.stream {
            DataStream::Stderr => self.outlet.stderr(data).await?,
            DataStream::Stdout | DataStream::Stdin => self.outlet.stdout(data).await?,
        }
        // A download is work, even if its client says nothing for an hour.
        self.session.count_out(length);
        Ok(())
    }
}
