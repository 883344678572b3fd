//! The two ways of a forward.

use bytes::{Bytes, BytesMut};
use holdfast_protocol::codec::frame::{
    DataStream, FramePiece, FrameReader, SessionMessage, data_header,
};
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::session::{Carries, RelayEvent, RelaySession, SessionViolation};
use holdfast_protocol::wire::{Exit, SessionRefusal};
use quinn::{RecvStream, SendStream, WriteError};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::arrivals::Arrival;
use super::channel::OpenReply;
use super::{Destination, Endpoint, ForwardEnd};
use crate::limits::{FAREWELL_TIMEOUT, SPLICE_BUFFER, START_TIMEOUT};
use crate::session::Sessions;
use crate::session::admission::refusal;
use crate::session::client::Client;
use crate::session::forward::log::ForwardLog;
use crate::session::input::{Input, InputReceiver};
use crate::session::output::{Gone, Output};
use crate::session::registry::LiveSession;
use crate::tunnel::registry::Tunnel;

/// Chunks that are taken from a stream at once, as for a session.
const CHUNKS: usize = 32;

/// A forward whose stream is open.
pub(super) struct Splice<'a> {
    pub(super) sessions: &'a Sessions,
    pub(super) client: &'a Client,
    pub(super) session: &'a LiveSession,
    pub(super) to: &'a Destination,
    /// The version of access that it was decided on.
    pub(super) version: i64,
    /// The attributes of its recording.
    pub(super) summary: ForwardLog,
    /// Until the channel is opened.
    pub(super) reply: Option<Box<dyn OpenReply>>,
    /// Cancelled when bytes may pass.
    pub(super) opened: CancellationToken,
    /// The place of a connection that has come to the device, until then.
    pub(super) arrival: Option<Arrival>,
    pub(super) outlet: &'a dyn Output,
}

/// The messages of the device, in its order.
struct Down<'a, 's> {
    splice: &'a mut Splice<'s>,
    reader: FrameReader,
    state: RelaySession,
    /// The data that is gathered into one SSH packet.
    buffer: BytesMut,
}

impl From<SessionViolation> for ForwardEnd {
    fn from(violation: SessionViolation) -> Self {
        Self::Protocol(violation.to_string())
    }
}

impl From<Gone> for ForwardEnd {
    fn from(_: Gone) -> Self {
        Self::ClientGone
    }
}

impl Splice<'_> {
    /// Moves bytes both ways until it is over.
    pub(super) async fn run(
        &mut self,
        send: &mut SendStream,
        receive: &mut RecvStream,
        input: &mut InputReceiver,
        tunnel: &Tunnel,
    ) -> ForwardEnd {
        let (session, opened) = (self.session, self.opened.clone());
        let gone = input.gone();
        let carries = Carries::Connection {
            address: matches!(self.to.place, Endpoint::Port(..)),
        };
        let mut down = Down {
            splice: self,
            reader: FrameReader::default(),
            state: RelaySession::new(carries),
            buffer: BytesMut::new(),
        };
        tokio::select! {
            biased;
            end = down.run(receive) => end,
            end = up(input, send, session) => end,
            end = linger(&gone) => end,
            end = late(&opened, session, tunnel) => end,
        }
    }
}

impl Down<'_, '_> {
    async fn run(&mut self, receive: &mut RecvStream) -> ForwardEnd {
        let mut chunks = [const { Bytes::new() }; CHUNKS];
        loop {
            let count = match receive.read_chunks(&mut chunks).await {
                Ok(Some(count)) => count,
                Ok(None) => return ForwardEnd::Protocol("its stream ended too early".into()),
                Err(error) => return ForwardEnd::DeviceLost(error.to_string()),
            };
            for chunk in chunks.iter_mut().take(count) {
                let chunk = std::mem::take(chunk);
                if let Err(end) = self.take(&chunk).await {
                    return end;
                }
            }
            if let Err(Gone) = self.flush().await {
                return ForwardEnd::ClientGone;
            }
        }
    }

    async fn take(&mut self, chunk: &Bytes) -> Result<(), ForwardEnd> {
        let mut input = &chunk[..];
        loop {
            let piece = self.reader.read(&mut input);
            match piece.map_err(|error| ForwardEnd::Protocol(error.to_string()))? {
                None => return Ok(()),
                Some(FramePiece::Data(stream, data)) => {
                    self.state.handle_data(stream)?;
                    if stream != DataStream::Stdout || !self.splice.opened.is_cancelled() {
                        return Err(SessionViolation::Direction.into());
                    }
                    if self.buffer.len() + data.len() > SPLICE_BUFFER {
                        self.flush().await?;
                    }
                    self.buffer.extend_from_slice(data);
                }
                Some(FramePiece::Message(message)) => {
                    self.flush().await?;
                    let event = self.state.handle_message(message)?;
                    self.follow(event).await?;
                }
            }
        }
    }

    async fn follow(&mut self, event: RelayEvent) -> Result<(), ForwardEnd> {
        match event {
            // Behind it comes the address, if there is one.
            RelayEvent::Accepted => match self.splice.to.place {
                Endpoint::Port(..) => Ok(()),
                Endpoint::Path(_) | Endpoint::Agent => self.open().await,
            },
            RelayEvent::Address(address) => {
                let _ = self.splice.to.address.set(address);
                match self.splice.to.place {
                    Endpoint::Port(..) => self.open().await,
                    Endpoint::Path(_) | Endpoint::Agent => Err(SessionViolation::Kind.into()),
                }
            }
            RelayEvent::OutputEnded => Ok(self.splice.outlet.eof().await?),
            RelayEvent::Exited(Exit::Status(0)) => Err(ForwardEnd::Closed),
            RelayEvent::Exited(_) => Err(ForwardEnd::BrokenOff),
            RelayEvent::Refused(why) => Err(refused(self.splice, &why)),
            RelayEvent::Incoming(_) => Err(SessionViolation::Kind.into()),
        }
    }

    /// Opens the channel after the device has dialled, if that is still allowed and is in the log.
    async fn open(&mut self) -> Result<(), ForwardEnd> {
        let Splice {
            sessions,
            client,
            session,
            to,
            version,
            summary,
            reply,
            opened,
            arrival,
            outlet: _,
        } = &mut *self.splice;
        let checked = sessions.check(client, session, *version).await;
        checked.map_err(ForwardEnd::Prohibited)?;
        let noted = sessions.report.forward_open(session, to, *summary).await;
        noted.map_err(ForwardEnd::Prohibited)?;
        if let Some(reply) = reply.take() {
            reply.accept().await;
        }
        opened.cancel();
        drop(arrival.take());
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = self.buffer.split().freeze();
        let length = data.len();
        self.splice.outlet.stdout(data).await?;
        self.splice.session.count_out(length);
        Ok(())
    }
}

/// Copies from the operator to the device. Ends only when the client is gone.
async fn up(input: &mut InputReceiver, send: &mut SendStream, session: &LiveSession) -> ForwardEnd {
    let mut said_all = false;
    while let Some(input) = input.next().await {
        let sent = match input {
            Input::Data(data) => {
                session.count_in(data.len());
                session.touch();
                let header = data_header(DataStream::Stdin, data.len());
                let mut chunks = [Bytes::copy_from_slice(&header), data];
                send.write_all_chunks(&mut chunks).await
            }
            Input::Eof => {
                said_all = true;
                match SessionMessage::Eof.encode() {
                    Ok(frame) => send.write_chunk(frame.into()).await,
                    // It has no body that could be too long.
                    Err(_) => Ok(()),
                }
            }
            // A connection has no terminal and no process.
            Input::Resize(_) | Input::Signal(_) => Ok(()),
        };
        match sent {
            // The device takes no more: the other direction will say how it ended.
            Ok(()) | Err(WriteError::Stopped(_)) => {}
            Err(error) => return ForwardEnd::DeviceLost(error.to_string()),
        }
    }
    if said_all {
        // What it said last may still be under way: `linger` gives it its time.
        return std::future::pending().await;
    }
    ForwardEnd::ClientGone
}

/// Waits after the client has gone for what it sent last, which is waited for a moment and no longer.
async fn linger(gone: &CancellationToken) -> ForwardEnd {
    gone.cancelled().await;
    sleep(FAREWELL_TIMEOUT).await;
    ForwardEnd::ClientGone
}

/// Gives up a device that says neither yes nor no.
async fn late(opened: &CancellationToken, session: &LiveSession, tunnel: &Tunnel) -> ForwardEnd {
    sleep(START_TIMEOUT).await;
    if opened.is_cancelled() {
        return std::future::pending().await;
    }
    let (device, seconds) = (
        &session.authorized.device().name,
        tunnel.silence().as_secs(),
    );
    ForwardEnd::Failed(format!(
        "{device} does not answer (silent for {seconds} s): try again when it is back"
    ))
}

/// Returns the reason why the device dials nothing, in words for the operator.
fn refused(splice: &Splice<'_>, why: &SessionRefusal) -> ForwardEnd {
    let authorized = &splice.session.authorized;
    let (device, login, to) = (&authorized.device().name, authorized.login(), splice.to);
    match why {
        SessionRefusal::NotPermitted(address) => {
            let _ = to.address.set(*address);
            ForwardEnd::Prohibited(format!(
                "user \"{}\" may not forward to {to} on {device}, which is {address} there",
                authorized.user().name
            ))
        }
        SessionRefusal::NotPermittedPath(real) => ForwardEnd::Prohibited(format!(
            "user \"{}\" may not forward to {to} on {device}, which is {} there",
            authorized.user().name,
            Escaped(real)
        )),
        SessionRefusal::Unreachable(why) => {
            ForwardEnd::Failed(format!("{device} cannot reach {to}: {}", Escaped(why)))
        }
        SessionRefusal::TooManyForwards(_) | SessionRefusal::Failed(_) => {
            ForwardEnd::Failed(refusal::sentence(device, login, why))
        }
        other => ForwardEnd::Prohibited(refusal::sentence(device, login, other)),
    }
}
