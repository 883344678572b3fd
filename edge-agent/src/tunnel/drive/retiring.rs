//! Tunnels to relays that have sent the device away: each is kept beside the current one for the sessions over it.

use std::collections::VecDeque;
use std::sync::Arc;

use holdfast_protocol::wire::CloseCode;
use quinn::{Connection, Endpoint};
use smol::Task;

use super::{TunnelEnd, TunnelRole, drive};
use crate::info;
use crate::os::runtime;
use crate::tunnel::establish::EstablishedTunnel;
use crate::tunnel::limits::MAX_RETIRING;
use crate::tunnel::{Agent, close};

/// The tunnels that are kept, the oldest first.
#[derive(Default)]
pub(in crate::tunnel) struct RetiringTunnels(VecDeque<RetiringTunnel>);

struct RetiringTunnel {
    endpoint: Endpoint,
    connection: Connection,
    _driver: Task<()>,
}

impl RetiringTunnels {
    /// Keeps a tunnel until no session goes over it any more.
    pub(in crate::tunnel) async fn add(&mut self, agent: &Arc<Agent>, standing: EstablishedTunnel) {
        self.0
            .retain(|tunnel| tunnel.connection.close_reason().is_none());
        if self.0.len() >= MAX_RETIRING
            && let Some(oldest) = self.0.pop_front()
        {
            close(&oldest.endpoint, &oldest.connection, CloseCode::Replaced).await;
        }
        info!(
            "the tunnel to {} is kept for the sessions over it",
            standing.address
        );
        let dialled = &standing.dialled;
        let (endpoint, connection) = (dialled.endpoint.clone(), dialled.connection.clone());
        self.0.push_back(RetiringTunnel {
            endpoint,
            connection,
            _driver: runtime::spawn(retire(Arc::clone(agent), standing)),
        });
    }

    /// Closes them all.
    pub(in crate::tunnel) async fn close(&mut self, code: CloseCode) {
        while let Some(tunnel) = self.0.pop_front() {
            close(&tunnel.endpoint, &tunnel.connection, code).await;
        }
    }
}

async fn retire(agent: Arc<Agent>, mut standing: EstablishedTunnel) {
    let end = drive(&agent, &mut standing, TunnelRole::Retiring).await;
    let address = &standing.address;
    if let TunnelEnd::Lost(why) = end {
        info!("the tunnel to {address} that was kept is gone: {why}");
    } else {
        info!("no session goes over the tunnel to {address} any more: closed");
        let dialled = &standing.dialled;
        close(&dialled.endpoint, &dialled.connection, CloseCode::Replaced).await;
    }
}
