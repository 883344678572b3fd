//! From the device to the operator.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use holdfast_protocol::codec::frame::{DataStream, FrameReader, Piece};
use holdfast_protocol::session::{RelayEvent, RelaySession, SessionViolation};
use quinn::{ReadError, RecvStream};

use super::bridge::Ways;
use super::ending::End;
use super::files::Files;
use super::forward::agent::AgentWay;
use super::live::LiveSession;
use super::refusal;
use super::sink::Sink;
use crate::access::role::Ability;
use crate::limits::SPLICE_BUFFER;
use crate::recording::watched::Watched;
use crate::ssh::outlet::Gone;

/// Chunks that are taken from a stream at once: of about 1.2 KiB each, they fill a splice buffer.
const CHUNKS: usize = 32;

/// The downward half of a splice.
pub struct Down<'a> {
    outlet: &'a Sink,
    session: &'a LiveSession,
    /// Whether the device has accepted the session.
    started: &'a AtomicBool,
    files: &'a Files<'a>,
    agent: Option<&'a AgentWay>,
    /// Takes the digests of what passes, if the session is recorded.
    watched: Option<&'a Watched>,
    reader: FrameReader,
    state: RelaySession,
    /// Output that is gathered into one SSH packet, and which stream it is of.
    buffer: BytesMut,
    stream: DataStream,
}

impl<'a> Down<'a> {
    /// The half of a session; `started` is set when the device accepts it.
    #[must_use]
    pub fn new(outlet: &'a Sink, session: &'a LiveSession, ways: Ways<'a>) -> Self {
        let Ways {
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
            state: RelaySession::default(),
            buffer: BytesMut::new(),
            stream: DataStream::Stdout,
        }
    }

    /// Runs until the session is over.
    pub async fn run(&mut self, receive: &mut RecvStream) -> End {
        let mut chunks = [const { Bytes::new() }; CHUNKS];
        loop {
            let count = match receive.read_chunks(&mut chunks).await {
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
                Some(Piece::Data(stream, data)) => {
                    self.state.handle_data(stream)?;
                    if stream == DataStream::Stdout {
                        self.files.answered(data).await;
                    }
                    if let Some(watched) = self.watched {
                        watched.pass(stream, data, self.reader.remaining());
                    }
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
            RelayEvent::Incoming(incoming) => match self.agent {
                Some(agent) => {
                    agent.come(self.session.id, incoming).await;
                    Ok(())
                }
                None => Err(SessionViolation::Direction.into()),
            },
            RelayEvent::Address(_) => Err(SessionViolation::Direction.into()),
            RelayEvent::Refused(why) => {
                let authorized = &self.session.authorized;
                let (device, login) = (&authorized.device().name, authorized.login());
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
        let length = data.len();
        match self.stream {
            DataStream::Stderr => self.outlet.stderr(data).await?,
            DataStream::Stdout | DataStream::Stdin => self.outlet.stdout(data).await?,
        }
        self.session.count_out(length);
        // A download is work, even if its client says nothing for an hour.
        if self.session.authorized.ability() == Ability::Sftp {
            self.session.touch();
        }
        Ok(())
    }
}
