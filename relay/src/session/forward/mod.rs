//! A forward: a connection that the device dials, spliced with an operator's channel.
//!
//! It is decided on as a session is, is in the registry and in the audit log, and has no text of its own: what
//! there is to say is said when the channel is refused, never in the data.

use std::sync::Arc;

use holdfast_protocol::ids::{DeviceName, Login};
use holdfast_protocol::limits::{FORWARD_MINOR, PATH_MINOR, TERMS_MINOR};
use holdfast_protocol::wire::{Open, SessionTerms};
use quinn::VarInt;
use tokio_util::sync::CancellationToken;

use crate::session::Sessions;
use crate::session::admission::names;
use crate::session::client::Client;
use crate::session::client::arrivals::Arrival;
use crate::session::input::InputReceiver;
use crate::session::limits::START_TIMEOUT;
use crate::session::output::Output;
use crate::session::refusal::{ForwardEnd, Refusal};
use crate::session::registry::LiveGuard;
use crate::session::registry::destination::{Destination, Endpoint};
use crate::session::report::ForwardOpening;
use crate::session::stream::{self, OpenError, timeouts};
use crate::tunnel::peer::route::{DeviceRoute, DeviceStream};

pub(crate) mod agent;
pub(crate) mod channel;
mod events;
mod log;
pub(crate) mod reverse;
mod splice;

use channel::{NotOpened, OpenReply};
use log::RecordedForward;
use splice::Splice;

/// The request of an operator.
pub(crate) struct ForwardAsk {
    /// The way there.
    pub through: Through,
    /// The destination.
    pub to: Destination,
    /// Opens the channel, or refuses it.
    pub reply: Box<dyn OpenReply>,
    /// The input from the operator.
    pub input: InputReceiver,
    /// The output to the operator.
    pub outlet: Arc<dyn Output>,
}

/// The way that a forward goes.
pub(crate) struct Through {
    /// The operator's client.
    pub(crate) client: Arc<Client>,
    /// The account on the device.
    pub login: Login,
    /// The device.
    pub device: DeviceName,
    /// The channels that the connection has besides.
    pub channels: u32,
}

/// A forward that was admitted.
struct Begun {
    live: LiveGuard,
    open: Open,
    route: DeviceRoute,
    /// The version of access that it was decided on.
    version: i64,
    /// The place where it is recorded.
    recorded: RecordedForward,
    /// Opens its channel, or refuses it; none where the channel is open.
    reply: Option<Box<dyn OpenReply>>,
    /// The place of a connection that has come to the device.
    arrival: Option<Arrival>,
}

impl Sessions {
    /// Serves a forward to its end, or says why there is none.
    pub(crate) async fn forward(self: &Arc<Self>, ask: ForwardAsk) {
        let ForwardAsk {
            through,
            to,
            reply,
            input,
            outlet,
        } = ask;
        match self.admit_forward(&through, &to).await {
            Ok(begun) => {
                let client = &through.client;
                let begun = Begun {
                    reply: Some(reply),
                    ..begun
                };
                self.carry_on(begun, client, &to, input, outlet).await;
            }
            Err(refusal) => {
                let (client, place) = (&through.client, &to.place);
                let report = &self.report;
                report.forward_refused(client, place, &refusal).await;
                reply
                    .refuse(NotOpened::Prohibited(refusal.to_string()))
                    .await;
            }
        }
    }

    /// Serves a forward that was admitted. With a `reply` its channel is opened when the device has dialled; without,
    /// the channel is open.
    async fn carry_on(
        &self,
        begun: Begun,
        client: &Client,
        to: &Destination,
        mut input: InputReceiver,
        outlet: Arc<dyn Output>,
    ) {
        let Begun {
            mut live,
            open,
            route,
            version,
            recorded,
            reply,
            arrival,
        } = begun;
        let _count = route.count_forward();
        let drain = self.tunnels.drains.watch(route.relay());
        let session = live.session().clone();
        let mut wire = None;
        let mut reported = ForwardOpening::No;
        let mut splice = Splice {
            sessions: self,
            client,
            session: &session,
            to,
            version,
            summary: recorded.summary(),
            reply,
            opened: CancellationToken::new(),
            reported: &mut reported,
            arrival,
            outlet: &*outlet,
        };
        let end = tokio::select! {
            // As with a session: one that was ended before the beginning asks nothing of the device.
            biased;
            ending = live.ordered_to_end() => ForwardEnd::Ordered(ending),
            end = recorded.cut() => end,
            end = carry(&mut wire, open, &route, &mut input, &mut splice) => end,
            ending = timeouts::cutoff(&session, None) => ForwardEnd::Ordered(ending),
            ending = timeouts::store_loss(&self.tunnels.fence, None) => ForwardEnd::Ordered(ending),
            ending = timeouts::drained(drain, None) => ForwardEnd::Ordered(ending),
        };
        let (opened, reply) = (splice.opened.is_cancelled(), splice.reply.take());
        if let Some(stream) = wire {
            leave(&end, stream);
        }
        live.mark_drained();
        // At once, so that both are in one commit of the store.
        tokio::join!(
            recorded.end(&session, to, opened, &end),
            self.report.forward_end(&session, to, reported, &end)
        );
        drop(live);
        match reply {
            Some(reply) => reply.refuse(failure(&end)).await,
            None => outlet.close().await,
        }
    }

    /// Decides whether a forward may be, and enters it in the registry.
    async fn admit_forward(
        self: &Arc<Self>,
        through: &Through,
        to: &Destination,
    ) -> Result<Begun, Refusal> {
        let Through {
            client,
            login,
            device,
            channels,
        } = through;
        self.report.admits()?;
        let (principal, _) = client.principal().ok_or(Refusal::NotAuthenticated)?;
        let (grant, ability) = (principal.proof.grant(), to.place.ability());
        let permitted = match to.place {
            Endpoint::Agent => grant.agent_forwarding,
            Endpoint::Port(..) | Endpoint::Path(_) => grant.port_forwarding,
        };
        if !permitted {
            let what = ability.noun();
            return Err(Refusal::Certificate(what));
        }
        let way = self.find_way(client, login, device, *channels).await?;
        let authorized = way.authorize(login, ability)?;
        let bounded = authorized.may_connect().is_bounded()
            && authorized.may_listen().is_bounded()
            && authorized.may_connect_paths().is_bounded()
            && authorized.may_listen_paths().is_bounded();
        if !bounded {
            return Err(Refusal::ForwardRules(authorized.user().name.clone()));
        }
        let (needs, what) = match to.place {
            Endpoint::Port(..) => (FORWARD_MINOR, "forward"),
            Endpoint::Path(_) => (PATH_MINOR, "forward Unix sockets"),
            Endpoint::Agent => (TERMS_MINOR, "forward SSH agents"),
        };
        if way.route.minor() < needs {
            return Err(Refusal::OldAgent {
                device: authorized.device().name.clone(),
                what: what.to_owned(),
            });
        }
        let mut open = Open {
            session: Self::new_session_id()?,
            user: authorized.user().name.clone(),
            login: login.clone(),
            request: to.request(&authorized).into(),
            pty: None,
            env: Vec::new(),
            client: client.address,
            server: client.server,
            original_command: None,
            recording: None,
            terms: SessionTerms {
                denied_logins: names::denied_logins(&authorized, way.route.minor())?,
                ..SessionTerms::default()
            },
            forward_log: None,
        };
        // First into the registry, then the check.
        let live = self.enter_forward(&open, authorized, &way.route, (client, principal), to);
        self.check(client, live.session(), way.version).await?;
        names::deny_locked(
            &self.store,
            live.session(),
            way.route.minor(),
            &mut open.terms,
        );
        let recorded = self.record_forward(client, live.session(), &way.route);
        let recorded = recorded.await?;
        let open = Open {
            forward_log: recorded.log_ref(),
            ..open
        };
        Ok(Begun {
            live,
            recorded,
            open,
            route: way.route,
            version: way.version,
            reply: None,
            arrival: None,
        })
    }
}

/// Opens the stream and moves bytes both ways until it is over. The stream stays in `wire`.
async fn carry(
    wire: &mut Option<DeviceStream>,
    open: Open,
    route: &DeviceRoute,
    input: &mut InputReceiver,
    splice: &mut Splice<'_>,
) -> ForwardEnd {
    let fence = &splice.sessions.tunnels.fence;
    match stream::open(wire, route, fence, open, START_TIMEOUT).await {
        Ok(stream) => splice.run(stream, input, route).await,
        Err(OpenError::Request(_)) => {
            ForwardEnd::Prohibited("the request is longer than the device takes".into())
        }
        Err(OpenError::Busy) => {
            ForwardEnd::Failed("the device has reached its limit of streams on this tunnel".into())
        }
        Err(OpenError::Lost(error)) => ForwardEnd::DeviceLost(error),
    }
}

/// Leaves the stream so that the device knows: finished after an exit, reset in every other case, which makes
/// the device break its connection off.
fn leave(end: &ForwardEnd, stream: DeviceStream) {
    match end {
        ForwardEnd::Closed | ForwardEnd::BrokenOff | ForwardEnd::Failed(_) => stream.finish(),
        _ => stream.reset(VarInt::from_u32(0)),
    }
}

/// Returns why a channel is not opened, for its client.
fn failure(end: &ForwardEnd) -> NotOpened {
    match end {
        ForwardEnd::Prohibited(sentence) => NotOpened::Prohibited(sentence.clone()),
        ForwardEnd::Refused(refusal) => NotOpened::Prohibited(refusal.to_string()),
        ForwardEnd::Ordered(ending) => NotOpened::Prohibited(ending.why.clone()),
        other => NotOpened::Failed(other.to_string()),
    }
}
