//! Forwards, as a client asks for them: what its words mean on this connection, and who is told of a refusal.

use holdfast_protocol::ids::{DeviceName, Login as Account};
use russh::server::Handle;

use super::Handler;
use crate::session::forward::Destination;
use crate::session::forward::reverse::Asked;
use crate::ssh::channels::Purpose;
use crate::ssh::target::{self, Target};

/// To who wants to forward to or from a path.
pub(super) const NO_SOCKETS: &str = "Unix sockets are not forwarded: forward a TCP port instead";

impl Handler {
    /// Has the device of this connection listen; gives the port.
    pub(super) async fn listen(
        &mut self,
        host: &str,
        port: u32,
        handle: Handle,
    ) -> Result<u16, String> {
        let asked = match self.asked(host, port, handle) {
            Ok(asked) => asked,
            Err(sentence) => {
                self.refused(host, port, &sentence).await;
                return Err(sentence);
            }
        };
        let channels = self.channels.present();
        let relay = self.relay.clone();
        relay.listen(asked, channels, &mut self.listeners).await
    }

    /// Tells the log of a forward that is refused. A Unix socket has no port.
    pub(super) async fn refused(&self, host: &str, port: u32, sentence: &str) {
        let (report, connection) = (&self.relay.report, &self.connection);
        report
            .forward_refused(connection, host, port, sentence)
            .await;
    }

    fn asked(&self, host: &str, port: u32, handle: Handle) -> Result<Asked, String> {
        let target = self.connection.principal().map(|(_, target)| target);
        let (login, device) = match target {
            Some(Target::Device(login, device)) => (login.clone(), device.clone()),
            Some(Target::Unusable(sentence)) => return Err(sentence.clone()),
            Some(Target::Relay) | None => {
                return Err("the relay listens for nobody: name a device".into());
            }
        };
        Ok(Asked {
            connection: self.connection.clone(),
            handle,
            login,
            device,
            host: host.to_owned(),
            port: u16::try_from(port).map_err(|_| format!("there is no port {port}"))?,
        })
    }

    /// Where a forward leads: through the device that the connection is for, or, where it is for the relay, to a
    /// device as a jump. Gives the other channels, too.
    pub(super) fn leads(&mut self, host: &str, port: u32) -> Result<(u32, Leads), String> {
        let target = self.connection.principal().map(|(_, target)| target);
        let leads = match target {
            Some(Target::Device(login, device)) => {
                let to = Destination::new(host, port)?;
                Leads::Through(login.clone(), device.clone(), to)
            }
            Some(Target::Unusable(sentence)) => return Err(sentence.clone()),
            Some(Target::Relay) | None => {
                let device = target::forward(host, port).map_err(|error| error.to_string())?;
                Leads::Jump(device)
            }
        };
        let count = self.channels.count(leads.purpose())?;
        Ok((count, leads))
    }
}

/// Where a `direct-tcpip` channel leads.
pub(super) enum Leads {
    /// To the inside of a device's own connection.
    Jump(DeviceName),
    /// To somebody whom a device dials, for this login.
    Through(Account, DeviceName, Destination),
}

impl Leads {
    pub(super) fn purpose(&self) -> Purpose {
        match self {
            Self::Jump(_) => Purpose::Session,
            Self::Through(..) => Purpose::Forward,
        }
    }
}
