//! Forwards, as a client asks for them: what its words mean on this connection, and where a refusal is reported.

use holdfast_protocol::ids::{DeviceName, Login as Account};
use russh::ChannelId;
use russh::server::Handle;

use super::Handler;
use crate::session::client::target::{self, SshTarget};
use crate::session::forward::reverse::ListenAsked;
use crate::session::refusal::Refusal;
use crate::session::registry::destination::{Destination, Direction, Endpoint};
use crate::ssh::channels::Purpose;
use crate::ssh::channels::opener::Opener;

impl Handler {
    /// Has the device of this connection listen on a port; gives which.
    pub(super) async fn listen(
        &mut self,
        host: &str,
        port: u32,
        handle: Handle,
    ) -> Result<u16, Refusal> {
        let place = match u16::try_from(port) {
            Ok(port) => Endpoint::Port(host.to_owned(), port),
            Err(_) => {
                let refusal = Refusal::Port(port);
                self.refused(host, port, &refusal).await;
                return Err(refusal);
            }
        };
        self.listen_at(place, handle).await
    }

    /// Has the device of this connection listen; gives the port, or 0 where there is none.
    pub(super) async fn listen_at(
        &mut self,
        place: Endpoint,
        handle: Handle,
    ) -> Result<u16, Refusal> {
        let (login, device) = match self.through("accepts no reverse forwards") {
            Ok(through) => through,
            Err(refusal) => {
                self.refused_at(&place, &refusal).await;
                return Err(refusal);
            }
        };
        let asked = ListenAsked {
            client: self.connection.client.clone(),
            opener: Opener::new(handle, self.confirmed.clone()),
            login,
            device,
            place,
        };
        let channels = self.channels.present();
        let front = self.front.clone();
        front
            .sessions
            .listen(asked, channels, &mut self.listeners)
            .await
    }

    /// Lets a session's processes use the client's SSH agent.
    pub(super) async fn forward_agent(
        &mut self,
        channel: ChannelId,
        handle: Handle,
    ) -> Result<(), Refusal> {
        let (login, device) = self.through("has no SSH agent")?;
        let admitted = self
            .front
            .sessions
            .admit_agent(&self.connection.client, &login, &device);
        admitted.await?;
        let waiting = self.channels.waiting(channel);
        let waiting = waiting.ok_or(Refusal::Begun)?;
        waiting.agent = Some(Opener::new(handle, self.confirmed.clone()));
        Ok(())
    }

    /// Tells the log of a forward that is refused. What is no port is what the client sent.
    pub(super) async fn refused(&self, host: &str, port: u32, refusal: &Refusal) {
        let port = u16::try_from(port).unwrap_or(0);
        let place = Endpoint::Port(host.to_owned(), port);
        self.refused_at(&place, refusal).await;
    }

    /// Does the same of any place.
    pub(super) async fn refused_at(&self, place: &Endpoint, refusal: &Refusal) {
        let (report, connection) = (&self.front.sessions.report, &self.connection.client);
        report.forward_refused(connection, place, refusal).await;
    }

    /// Returns the login and device of this connection; where it is for the relay, that one does not do it.
    fn through(&self, does_not: &'static str) -> Result<(Account, DeviceName), Refusal> {
        match self.connection.principal().map(|(_, target)| target) {
            Some(SshTarget::Device(login, device)) => Ok((login.clone(), device.clone())),
            Some(SshTarget::Unusable(error)) => Err(error.clone().into()),
            Some(SshTarget::Relay) | None => Err(Refusal::NotAtRelay(does_not)),
        }
    }

    /// Returns where a forward to a Unix socket leads, and the number of other channels.
    pub(super) fn route_to_path(&mut self, path: &str) -> Result<(u32, ChannelRoute), Refusal> {
        let (login, device) = self.through("forwards no Unix sockets")?;
        let to = Destination::path(Direction::Out, path)?;
        let count = self.channels.count(Purpose::Forward)?;
        Ok((count, ChannelRoute::Through(login, device, to)))
    }

    /// Returns where a forward leads: through the device that the connection is for, or, where it is for the relay, to
    /// a device as a jump. Returns the number of other channels, too.
    pub(super) fn route_channel(
        &mut self,
        host: &str,
        port: u32,
    ) -> Result<(u32, ChannelRoute), Refusal> {
        let target = self.connection.principal().map(|(_, target)| target);
        let route = match target {
            Some(SshTarget::Device(login, device)) => {
                let to = Destination::new(host, port)?;
                ChannelRoute::Through(login.clone(), device.clone(), to)
            }
            Some(SshTarget::Unusable(error)) => return Err(error.clone().into()),
            Some(SshTarget::Relay) | None => {
                let device = target::forward(host, port)?;
                ChannelRoute::Jump(device)
            }
        };
        let count = self.channels.count(route.purpose())?;
        Ok((count, route))
    }
}

/// The destination of a `direct-tcpip` channel.
pub(super) enum ChannelRoute {
    /// The inside of a device's own connection.
    Jump(DeviceName),
    /// A host that a device dials, for this login.
    Through(Account, DeviceName, Destination),
}

impl ChannelRoute {
    pub(super) fn purpose(&self) -> Purpose {
        match self {
            Self::Jump(_) => Purpose::Session,
            Self::Through(..) => Purpose::Forward,
        }
    }
}
