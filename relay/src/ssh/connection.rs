//! What one SSH connection is, apart from the channels on it: its ends, its principal, and how to end it.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use russh::Disconnect;
use russh::server::Handle;
use tokio::time::sleep;

use super::auth::Principal;
use super::stream::Guard;
use super::target::Target;
use crate::limits::{DISCONNECT_GRACE, MAX_DESCRIPTION};

/// An SSH connection. It is shared by its handler, the sessions on it, and the list of connections.
#[derive(Debug)]
pub struct Connection {
    /// The operator's address.
    pub client: SocketAddr,
    /// The relay's address that they connected to.
    pub server: SocketAddr,
    /// Cuts the TCP connection.
    pub guard: Guard,
    principal: OnceLock<(Principal, Target)>,
    handle: OnceLock<Handle>,
}

impl Connection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(client: SocketAddr, server: SocketAddr, guard: Guard) -> Arc<Self> {
        Arc::new(Self {
            client,
            server,
            guard,
            principal: OnceLock::new(),
            handle: OnceLock::new(),
        })
    }

    /// Who proved to be at the other end, and what they asked for by the user name of that proof.
    #[must_use]
    pub fn principal(&self) -> Option<&(Principal, Target)> {
        self.principal.get()
    }

    /// Notes the proof. The first stands: SSH authenticates a connection once.
    pub fn set_principal(&self, principal: Principal, target: Target) {
        let _ = self.principal.set((principal, target));
        self.guard.set_authenticated();
    }

    /// Notes how to speak to russh.
    pub fn set_handle(&self, handle: Handle) {
        let _ = self.handle.set(handle);
    }

    /// Ends the connection with a sentence, and cuts it if that takes too long.
    pub async fn end(&self, why: &str) {
        if let Some(handle) = self.handle.get() {
            let mut text = why.to_owned();
            text.truncate(text.floor_char_boundary(MAX_DESCRIPTION));
            let said = handle.disconnect(Disconnect::ByApplication, text, String::new());
            let _ = tokio::time::timeout(DISCONNECT_GRACE, said).await;
            sleep(DISCONNECT_GRACE).await;
        }
        self.guard.cut();
    }
}
