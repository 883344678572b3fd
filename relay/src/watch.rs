//! The relay's regular work: its heartbeat, what it tells the store about devices, and what admin commands
//! beside it changed.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_protocol::ids::DeviceId;
use holdfast_protocol::wire::CloseCode;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::clock::Timestamp;
use crate::limits::{PRESENCE_FLUSH, STORE_POLL};
use crate::serve::Relay;
use crate::ssh::auth;
use crate::store::StoreError;

/// Runs until it is aborted.
pub async fn run(relay: Arc<Relay>) {
    let mut poll = interval(STORE_POLL);
    let mut flush = interval(PRESENCE_FLUSH);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Seen::default();
    let mut told = HashMap::new();
    loop {
        let done = tokio::select! {
            _ = poll.tick() => look(&relay, &mut seen).await,
            _ = flush.tick() => tell(&relay, &mut told).await,
        };
        if let Err(error) = done {
            warn!(%error, "the store does not do its regular work");
        }
    }
}

#[derive(Default)]
struct Seen {
    data: i64,
    access: i64,
}

/// Looks whether something was changed beside us that concerns what is alive here.
async fn look(relay: &Arc<Relay>, seen: &mut Seen) -> Result<(), StoreError> {
    let data = relay.store.data_version().await?;
    if data == seen.data {
        return Ok(());
    }
    let access = relay.store.access_version().await?;
    if access != seen.access {
        cut_revoked(relay).await?;
        cut_removed(relay).await;
    }
    *seen = Seen { data, access };
    Ok(())
}

async fn cut_revoked(relay: &Relay) -> Result<(), StoreError> {
    for device in relay.store.revoked_devices().await? {
        if let Some(tunnel) = relay.registry.get(device) {
            info!(%device, "a revoked device is cut off");
            relay
                .live
                .end_where(|session| session.device == device, "the device was revoked");
            relay.registry.remove(&tunnel);
            tunnel.close(CloseCode::Revoked, "this device was revoked");
        }
    }
    Ok(())
}

/// Ends the connections whose key or certificate no longer proves an enabled user with the same roles.
async fn cut_removed(relay: &Arc<Relay>) {
    for connection in relay.connections.all() {
        let Some((principal, _)) = connection.principal() else {
            continue;
        };
        // When the store fails, nobody is anybody.
        let proves = auth::still_proves(&relay.store, principal).await;
        let now = relay.store.user(&principal.user.name).await;
        let same = matches!(now, Ok(Some(now)) if now == principal.user);
        if !(proves.unwrap_or(false) && same) {
            let user = principal.user.name.clone();
            info!(%user, client = %connection.client, "access changed: connection ended");
            let why = "your access to this relay was changed";
            // Those of this connection: another of the same user may stand on a key that is still good.
            let client = connection.client;
            relay
                .live
                .end_where(|session| session.client == client, why);
            let connection = connection.clone();
            tokio::spawn(async move { connection.end(why).await });
        }
    }
}

/// Gives the store the heartbeat, and the devices that were heard since the last time.
async fn tell(relay: &Relay, told: &mut HashMap<DeviceId, Timestamp>) -> Result<(), StoreError> {
    let now = Timestamp::now();
    relay.store.heartbeat(relay.id, now).await?;
    let tunnels = relay.registry.all();
    let heard: Vec<_> = tunnels
        .iter()
        .filter(|tunnel| told.get(&tunnel.device) != Some(&tunnel.heard()))
        .map(|tunnel| {
            let address = tunnel.connection.remote_address();
            (tunnel.device, tunnel.generation, tunnel.heard(), address)
        })
        .collect();
    relay.store.heard(&heard).await?;
    *told = tunnels
        .iter()
        .map(|tunnel| (tunnel.device, tunnel.heard()))
        .collect();
    Ok(())
}
