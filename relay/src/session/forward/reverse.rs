//! `ssh -R`: a device listens for an operator, and each connection that comes there becomes a channel to them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::forward::AddressPolicy;
use holdfast_protocol::ids::{DeviceName, Login, SessionId};
use holdfast_protocol::session::{ForwardKind, ForwardReport};
use holdfast_protocol::wire::{Incoming, Open, SessionRefusal};
use quinn::{SendStream, VarInt};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::channel::ChannelOpener;
use super::events::EventReader;
use super::{Begun, Through};
use crate::session::Sessions;
use crate::session::admission::names;
use crate::session::client::Client;
use crate::session::client::arrivals::{Arrival, Arrivals};
use crate::session::forward::log::RecordedForward;
use crate::session::limits::{
    ARRIVAL_TIMEOUT, LISTEN_TIMEOUT, MAX_CHANNELS, MAX_FORWARDS, MAX_LISTENERS,
};
use crate::session::refusal::{ForwardEnd, Refusal};
use crate::session::registry::LiveGuard;
use crate::session::registry::destination::{Destination, Direction, Endpoint};
use crate::session::report::ForwardOpening;
use crate::session::stream::{self, OpenError, timeouts};
use crate::store::Store;
use crate::tunnel::peer::drains::DrainWatch;
use crate::tunnel::peer::route::{DeviceRoute, DeviceStream, RouteCount};

/// The ports and Unix sockets of one client that devices listen on.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    all: HashMap<Endpoint, DropGuard>,
}

/// The request of an operator.
pub(crate) struct ListenAsked {
    /// The operator's client.
    pub(crate) client: Arc<Client>,
    /// Opens its channels.
    pub(crate) opener: Arc<dyn ChannelOpener>,
    /// The account on the device.
    pub login: Login,
    /// The device.
    pub device: DeviceName,
    /// The endpoint. On port 0: on any.
    pub place: Endpoint,
}

impl Listeners {
    /// Checks whether there is room for one more.
    ///
    /// # Errors
    /// A sentence.
    fn admit(&self) -> Result<(), Refusal> {
        match self.all.len() < MAX_LISTENERS {
            true => Ok(()),
            false => Err(Refusal::Listeners),
        }
    }

    /// Takes back a port or socket; false if there is none such.
    pub(crate) fn cancel(&mut self, place: &Endpoint) -> bool {
        self.all.remove(place).is_some()
    }
}

/// A port that a device listens on.
struct Listening {
    through: Through,
    opener: Arc<dyn ChannelOpener>,
    to: Destination,
    session: SessionId,
    live: LiveGuard,
    recorded: RecordedForward,
    send: SendStream,
    ear: EventReader,
    cancelled: CancellationToken,
    drain: DrainWatch,
    _count: RouteCount,
}

impl Sessions {
    /// Has a device listen; gives the port. It listens until that is cancelled or the connection ends.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) async fn listen(
        self: &Arc<Self>,
        asked: ListenAsked,
        channels: u32,
        listeners: &mut Listeners,
    ) -> Result<u16, Refusal> {
        let through = Through {
            client: asked.client,
            login: asked.login,
            device: asked.device,
            channels,
        };
        let admitted = async {
            listeners.admit()?;
            let to = match &asked.place {
                Endpoint::Port(host, port) => Destination::listening(host, *port)?,
                Endpoint::Path(path) => Destination::path(Direction::Listen, path)?,
                Endpoint::Agent => return Err(Refusal::AgentIsNoPort),
            };
            Ok((self.admit_forward(&through, &to).await?, to))
        };
        let admitted: Result<_, Refusal> = admitted.await;
        let (begun, to) = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => {
                let (client, place) = (&through.client, &asked.place);
                let report = &self.report;
                report.forward_refused(client, place, &refusal).await;
                return Err(refusal);
            }
        };
        let session = begun.open.session;
        let Begun {
            live,
            open,
            route,
            version,
            recorded,
            ..
        } = begun;
        let count = route.count_listener();
        let started = timeout(
            LISTEN_TIMEOUT,
            self.start_listening(open, &route, &live, &to),
        );
        let started = match started.await {
            Ok(Ok(started)) => Ok(started),
            Ok(Err(end)) => Err(end),
            Err(_) => Err(ForwardEnd::Failed("the device does not answer".into())),
        };
        let (send, ear) = match started {
            Ok(halves) => halves,
            Err(end) => {
                recorded.end(live.session(), &to, false, &end).await;
                self.report
                    .forward_end(live.session(), &to, ForwardOpening::No, &end)
                    .await;
                return Err(end.into());
            }
        };
        let opened = async {
            let session = live.session();
            self.check(&through.client, session, version).await?;
            self.report
                .forward_open(session, &to, recorded.summary())
                .await
        };
        if let Err(refusal) = opened.await {
            let end = ForwardEnd::Refused(refusal);
            let session = live.session();
            recorded.end(session, &to, true, &end).await;
            self.report
                .forward_end(session, &to, ForwardOpening::No, &end)
                .await;
            return Err(end.into());
        }
        let key = match (asked.place, to.address.get()) {
            (Endpoint::Port(host, _), Some(bound)) => Endpoint::Port(host, bound.port()),
            (place, _) => place,
        };
        let port = key.port();
        let cancelled = CancellationToken::new();
        listeners.all.insert(key, cancelled.clone().drop_guard());
        let listening = Listening {
            through,
            opener: asked.opener,
            to,
            session,
            live,
            recorded,
            send,
            ear,
            cancelled,
            drain: self.tunnels.drains.watch(route.relay()),
            _count: count,
        };
        tokio::spawn(self.clone().serve_port(listening));
        Ok(port)
    }

    async fn start_listening(
        &self,
        open: Open,
        route: &DeviceRoute,
        live: &LiveGuard,
        to: &Destination,
    ) -> Result<(SendStream, EventReader), ForwardEnd> {
        let mut slot = None;
        stream::open(&mut slot, route, &self.tunnels.fence, open, LISTEN_TIMEOUT)
            .await
            .map_err(|error| match error {
                OpenError::Request(error) => ForwardEnd::Prohibited(error.to_string()),
                OpenError::Busy => ForwardEnd::Failed("the device does not answer".into()),
                OpenError::Lost(error) => ForwardEnd::DeviceLost(error),
            })?;
        let Some(DeviceStream { send, receive }) = slot else {
            return Err(ForwardEnd::DeviceLost("no stream".into()));
        };
        let kind = ForwardKind::Listener {
            address: matches!(to.place, Endpoint::Port(..)),
        };
        let mut ear = EventReader::new(receive, kind);
        loop {
            match ear.next().await? {
                ForwardReport::Accepted => {
                    if !matches!(to.place, Endpoint::Port(..)) {
                        return Ok((send, ear));
                    }
                }
                ForwardReport::Address(address) => {
                    let _ = to.address.set(address);
                    return Ok((send, ear));
                }
                ForwardReport::Names(names) => {
                    let accepted = names::accept(&self.store, live.session(), names);
                    accepted.map_err(ForwardEnd::Ordered)?;
                }
                ForwardReport::Refused(why) => {
                    return Err(refused(&self.store, live, to, &why));
                }
                _ => return Err(ForwardEnd::Protocol("no answer".into())),
            }
        }
    }

    async fn serve_port(self: Arc<Self>, mut listening: Listening) {
        let mut live = listening.live;
        let end = tokio::select! {
            biased;
            ending = live.ordered_to_end() => ForwardEnd::Ordered(ending),
            end = listening.recorded.cut() => end,
            ending = timeouts::store_loss(&self.tunnels.fence, None) => ForwardEnd::Ordered(ending),
            ending = timeouts::drained(listening.drain, None) => ForwardEnd::Ordered(ending),
            () = listening.cancelled.cancelled() => ForwardEnd::Closed,
            end = self.tunnels.fence.pass(self.take_arrivals(
                &listening.through, &listening.opener, &listening.to,
                listening.session, &mut listening.ear,
            )) => end,
        };
        let _ = listening.send.reset(VarInt::from_u32(0));
        let _ = listening.ear.receive.stop(VarInt::from_u32(0));
        live.mark_drained();
        let session = live.session();
        listening
            .recorded
            .end(session, &listening.to, true, &end)
            .await;
        self.report
            .forward_end(live.session(), &listening.to, ForwardOpening::Row, &end)
            .await;
    }

    /// Serves each connection that comes, until the device or the port is gone.
    async fn take_arrivals(
        self: &Arc<Self>,
        through: &Through,
        opener: &Arc<dyn ChannelOpener>,
        port: &Destination,
        listener: SessionId,
        ear: &mut EventReader,
    ) -> ForwardEnd {
        let places = Arrivals::of_listener();
        loop {
            let incoming = match ear.next().await {
                Ok(ForwardReport::Incoming(incoming)) => incoming,
                Ok(ForwardReport::OutputEnded) => continue,
                Ok(_) => return ForwardEnd::BrokenOff,
                Err(end) => return end,
            };
            let Some(to) = port.coming(listener, incoming) else {
                return ForwardEnd::Protocol("a connection to no port".into());
            };
            // While there is none, nothing more is read: the stream's flow control holds the device.
            let Some(arrival) = through.client.arrivals.wait(&places).await else {
                return ForwardEnd::Closed;
            };
            let through = Through {
                channels: opener.count(),
                client: through.client.clone(),
                login: through.login.clone(),
                device: through.device.clone(),
            };
            let sessions = self.clone();
            tokio::spawn(sessions.take_one(through, opener.clone(), to, incoming, arrival));
        }
    }

    /// Serves one connection that has come: it waits on the device until its channel is open.
    pub(super) async fn take_one(
        self: Arc<Self>,
        through: Through,
        opener: Arc<dyn ChannelOpener>,
        to: Destination,
        Incoming { peer, .. }: Incoming,
        arrival: Arrival,
    ) {
        let _busy = through.client.busy();
        let most = MAX_CHANNELS + MAX_FORWARDS;
        let admitted = match usize::try_from(through.channels) {
            Ok(channels) if channels < most => self.admit_forward(&through, &to).await,
            _ => Err(Refusal::Channels {
                what: "channels",
                most,
            }),
        };
        let begun = match admitted {
            Ok(begun) => begun,
            Err(refusal) => {
                let (client, place) = (&through.client, &to.place);
                let report = &self.report;
                return report.forward_refused(client, place, &refusal).await;
            }
        };
        let opening = self.tunnels.fence.pass(opener.open(&to.place, peer));
        let opened = timeout(ARRIVAL_TIMEOUT, opening);
        let Ok(Some((input, outlet))) = opened.await else {
            let end = ForwardEnd::Failed("the client does not take the connection".into());
            let session = begun.live.session();
            begun.recorded.end(session, &to, false, &end).await;
            return self
                .report
                .forward_end(session, &to, ForwardOpening::No, &end)
                .await;
        };
        let begun = Begun {
            arrival: Some(arrival),
            ..begun
        };
        self.carry_on(begun, &through.client, &to, input, outlet)
            .await;
    }
}

/// Returns what to ask for instead of an address that the device may not listen on, behind the sentence that refuses
/// it.
fn remedy(address: SocketAddr, policy: &AddressPolicy) -> String {
    let loopback = match address.ip() {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let port = address.port();
    if !address.ip().is_loopback()
        && policy.permits_listening("localhost", SocketAddr::new(loopback, port))
    {
        return format!(": use the device's loopback, as in `-R {port}:HOST:PORT`");
    }
    match &policy.allow {
        Some(rules) if rules.is_empty() => ": your roles let it listen nowhere".to_owned(),
        _ => ": use an address and port of `forward.listen` of your roles".to_owned(),
    }
}

fn refused(store: &Store, live: &LiveGuard, to: &Destination, why: &SessionRefusal) -> ForwardEnd {
    let authorized = &live.session().authorized;
    let (device, user) = (&authorized.device().name, &authorized.user().name);
    match why {
        SessionRefusal::NotPermitted(address) => ForwardEnd::Prohibited(format!(
            "user \"{user}\" may not have {device} listen on {address}{}",
            remedy(*address, &authorized.may_listen())
        )),
        SessionRefusal::NotPermittedPath(real) => ForwardEnd::Prohibited(format!(
            "user \"{user}\" may not have {device} listen on {to}, which is {} there",
            Escaped(real)
        )),
        SessionRefusal::Unreachable(why) => {
            ForwardEnd::Failed(format!("{device} cannot listen on {to}: {}", Escaped(why)))
        }
        other => ForwardEnd::Prohibited(names::sentence(store, live.session(), other)),
    }
}
