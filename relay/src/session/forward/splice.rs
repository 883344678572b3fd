//! The two ways of a forward.

use holdfast_protocol::codec::frame::{DataStream, SessionMessage};
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::session::{ForwardKind, ForwardReport, RelayForward, SessionViolation};
use holdfast_protocol::wire::{Exit, SessionRefusal};
use quinn::{SendStream, WriteError};
use tokio_util::sync::CancellationToken;

use super::channel::OpenReply;
use crate::session::Sessions;
use crate::session::admission::names;
use crate::session::client::Client;
use crate::session::client::arrivals::Arrival;
use crate::session::input::{Input, InputReceiver};
use crate::session::output::{Gone, Output};
use crate::session::refusal::ForwardEnd;
use crate::session::registry::LiveSession;
use crate::session::registry::destination::{Destination, Endpoint};
use crate::session::report::{ForwardLog, ForwardOpening};
use crate::session::stream::{self, BrokenStream, Downward, Gather, Upward, timeouts};
use crate::tunnel::peer::route::{DeviceRoute, DeviceStream};

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
    /// The reply that opens the channel, until it is opened.
    pub(super) reply: Option<Box<dyn OpenReply>>,
    /// Cancelled when bytes may pass.
    pub(super) opened: CancellationToken,
    /// The way that this was reported.
    pub(super) reported: &'a mut ForwardOpening,
    /// The place of a connection that has come to the device, until then.
    pub(super) arrival: Option<Arrival>,
    pub(super) outlet: &'a dyn Output,
}

/// The messages of the device, in its order.
struct ForwardDown<'a, 's> {
    splice: &'a mut Splice<'s>,
    state: RelayForward,
}

/// From the operator to the device.
struct ForwardUp<'a> {
    session: &'a LiveSession,
    said_all: bool,
}

impl From<BrokenStream> for ForwardEnd {
    fn from(broken: BrokenStream) -> Self {
        match broken {
            BrokenStream::ClientGone => Self::ClientGone,
            BrokenStream::Tunnel(error) => Self::DeviceLost(error.to_string()),
            BrokenStream::Stream(error) => Self::DeviceLost(error),
            BrokenStream::Protocol(error) => Self::Protocol(error),
        }
    }
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
        stream: &mut DeviceStream,
        input: &mut InputReceiver,
        route: &DeviceRoute,
    ) -> ForwardEnd {
        let (session, opened) = (self.session, self.opened.clone());
        let fence = &self.sessions.tunnels.fence;
        let gone = input.gone();
        let kind = ForwardKind::Connection {
            address: matches!(self.to.place, Endpoint::Port(..)),
        };
        let mut gather = Gather::new(self.outlet, session, fence);
        let mut down = ForwardDown {
            splice: self,
            state: RelayForward::new(kind),
        };
        let mut up = ForwardUp {
            session,
            said_all: false,
        };
        let device = &session.authorized.device().name;
        let DeviceStream { send, receive } = stream;
        tokio::select! {
            biased;
            end = stream::down(receive, &mut gather, &mut down) => end,
            end = stream::up(input, send, &mut up, fence) => end,
            () = stream::linger(&gone) => ForwardEnd::ClientGone,
            late = timeouts::late(|| opened.is_cancelled(), route, device) => {
                ForwardEnd::Failed(late)
            }
        }
    }
}

impl Downward for ForwardDown<'_, '_> {
    type End = ForwardEnd;

    const MISSING: &'static str = "its stream ended too early";

    async fn data(
        &mut self,
        gather: &mut Gather<'_>,
        stream: DataStream,
        data: &[u8],
        _remaining: usize,
    ) -> Result<(), ForwardEnd> {
        self.state.handle_data(stream)?;
        if stream != DataStream::Stdout || !self.splice.opened.is_cancelled() {
            return Err(SessionViolation::Direction.into());
        }
        Ok(gather.add(stream, data).await?)
    }

    async fn message(
        &mut self,
        gather: &mut Gather<'_>,
        message: SessionMessage,
    ) -> Result<(), ForwardEnd> {
        gather.flush().await?;
        let event = self.state.handle_message(message)?;
        self.follow(event).await
    }
}

impl ForwardDown<'_, '_> {
    async fn follow(&mut self, event: ForwardReport) -> Result<(), ForwardEnd> {
        match event {
            // Behind it comes the address, if there is one.
            ForwardReport::Accepted => match self.splice.to.place {
                Endpoint::Port(..) => Ok(()),
                Endpoint::Path(_) | Endpoint::Agent => self.open().await,
            },
            ForwardReport::Address(address) => {
                let _ = self.splice.to.address.set(address);
                match self.splice.to.place {
                    Endpoint::Port(..) => self.open().await,
                    Endpoint::Path(_) | Endpoint::Agent => Err(SessionViolation::Kind.into()),
                }
            }
            ForwardReport::OutputEnded => Ok(self.splice.outlet.eof().await?),
            ForwardReport::Exited(Exit::Status(0)) => Err(ForwardEnd::Closed),
            ForwardReport::Exited(_) => Err(ForwardEnd::BrokenOff),
            ForwardReport::Refused(why) => Err(refused(self.splice, &why)),
            ForwardReport::Names(names) => {
                let Splice {
                    sessions, session, ..
                } = &*self.splice;
                names::accept(&sessions.store, session, names).map_err(ForwardEnd::Ordered)
            }
            ForwardReport::Incoming(_) => Err(SessionViolation::Kind.into()),
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
            reported,
            arrival,
            outlet: _,
        } = &mut *self.splice;
        let checked = sessions.check(client, session, *version).await;
        checked.map_err(ForwardEnd::Refused)?;
        let noted = sessions.report.forward_open(session, to, *summary).await;
        **reported = noted.map_err(ForwardEnd::Refused)?;
        if let Some(reply) = reply.take() {
            reply.accept().await;
        }
        opened.cancel();
        drop(arrival.take());
        Ok(())
    }
}

impl Upward for ForwardUp<'_> {
    type End = ForwardEnd;

    async fn send(&mut self, send: &mut SendStream, input: Input) -> Result<(), WriteError> {
        match input {
            Input::Data(data) => {
                self.session.count_in(data.len());
                self.session.touch();
                stream::send_data(send, data).await
            }
            Input::Eof => {
                self.said_all = true;
                stream::send_message(send, &SessionMessage::Eof).await
            }
            // A connection has no terminal and no process.
            Input::Resize(_) | Input::Signal(_) | Input::StdoutClosed => Ok(()),
        }
    }

    async fn gone(&mut self) -> ForwardEnd {
        if self.said_all {
            // What it said last may still be under way: `linger` gives it its time.
            return std::future::pending().await;
        }
        ForwardEnd::ClientGone
    }
}

/// Returns the reason why the device dials nothing, in words for the operator.
fn refused(splice: &Splice<'_>, why: &SessionRefusal) -> ForwardEnd {
    let authorized = &splice.session.authorized;
    let (device, to) = (&authorized.device().name, splice.to);
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
            ForwardEnd::Failed(names::sentence(&splice.sessions.store, splice.session, why))
        }
        other => ForwardEnd::Prohibited(names::sentence(
            &splice.sessions.store,
            splice.session,
            other,
        )),
    }
}
