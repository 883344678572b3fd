//! `ssh -A`: what connects to a session's socket on its device becomes a channel to the operator's SSH agent.

use std::sync::Arc;

use holdfast_protocol::ids::{DeviceName, Login, SessionId};
use holdfast_protocol::limits::TERMS_MINOR;
use holdfast_protocol::wire::Incoming;
use tokio::sync::Semaphore;

use super::Through;
use super::channel::ChannelOpener;
use crate::access::policy::Ability;
use crate::session::Sessions;
use crate::session::client::Client;
use crate::session::ending::{Cause, Ending};
use crate::session::limits::MAX_AGENT_CHANNELS;
use crate::session::refusal::Refusal;
use crate::session::registry::destination::{Destination, Direction, Endpoint};

/// The way from one session to its operator's SSH agent.
pub(crate) struct AgentForwarding {
    /// The service of sessions.
    pub(crate) sessions: Arc<Sessions>,
    /// The operator's client.
    pub(crate) client: Arc<Client>,
    /// The account on the device.
    pub login: Login,
    /// The device.
    pub device: DeviceName,
    /// Opens its channels.
    pub opener: Arc<dyn ChannelOpener>,
    /// Places for channels.
    pub places: Arc<Semaphore>,
}

impl Sessions {
    /// Checks whether an operator may take their SSH agent along to a device; an error is a sentence for them.
    ///
    /// # Errors
    /// A sentence why not.
    pub(crate) async fn admit_agent(
        &self,
        client: &Client,
        login: &Login,
        device: &DeviceName,
    ) -> Result<(), Refusal> {
        let (principal, _) = client.principal().ok_or(Refusal::NotAuthenticated)?;
        if !principal.proof.grant().agent_forwarding {
            return Err(Refusal::Certificate("agent forwarding"));
        }
        // It is a request on a channel that was counted.
        let way = self.find_way(client, login, device, 0).await?;
        let authorized = way.authorize(login, Ability::AgentForward)?;
        match way.route.minor() < TERMS_MINOR {
            true => Err(Refusal::OldAgent {
                device: authorized.device().name.clone(),
                what: "forward SSH agents".to_owned(),
            }),
            false => Ok(()),
        }
    }
}

impl AgentForwarding {
    /// Returns it as many channels at once as one session may have.
    #[must_use]
    pub(crate) fn places() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_AGENT_CHANNELS))
    }

    /// Serves a connection that has come to the socket of `session`. One for which there is no place now is refused, and
    /// not waited for as on a port: the stream that announces it carries the session's output too, and a program may
    /// well write some before it lets go of its connections.
    pub(crate) async fn come(&self, session: SessionId, incoming: Incoming) {
        let to = Destination {
            direction: Direction::In {
                listener: session,
                number: incoming.number,
                bound: None,
            },
            place: Endpoint::Agent,
            address: Arc::default(),
        };
        let place = self.places.clone().try_acquire_owned().ok();
        let arrival = self.client.arrivals.try_take();
        let Some((place, arrival)) = place.zip(arrival) else {
            let full = Refusal::AgentChannels;
            let report = &self.sessions.report;
            return report.forward_refused(&self.client, &to.place, &full).await;
        };
        let through = Through {
            client: self.client.clone(),
            login: self.login.clone(),
            device: self.device.clone(),
            channels: self.opener.count(),
        };
        let (sessions, opener) = (self.sessions.clone(), self.opener.clone());
        tokio::spawn(async move {
            sessions
                .take_one(through, opener, to, incoming, arrival)
                .await;
            drop(place);
        });
    }

    /// Notes that the session is over: it uses the operator's agent no more.
    pub(crate) fn end(&self, session: SessionId) {
        let of_session = |live: &crate::session::registry::LiveSession| {
            let to = live.destination.as_ref();
            to.is_some_and(
                |to| matches!(to.direction, Direction::In { listener, .. } if listener == session),
            )
        };
        let ending = Ending {
            cause: Cause::Over,
            why: "its session is over".into(),
        };
        self.sessions.live.end_where(of_session, &ending);
    }
}
