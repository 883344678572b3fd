//! Joining, of a relay: it gets the keys that all members of the cluster have.

use std::sync::Arc;

use holdfast_protocol::identity::token::is_address;
use holdfast_protocol::tunnel::control::ControlViolation;
use holdfast_protocol::wire::{AgentMessage, EnrolRelay, Refusal, RelayGrant, RelayMessage};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{identify, refuse_join};
use crate::audit::{Event, EventKind};
use crate::clock::Timestamp;
use crate::store::{Durability, EnrolError, MemberId};
use crate::tunnel::Tunnels;
use crate::tunnel::control::{ControlError, DialingDevice, refuse};
use crate::tunnel::limits::ENROL_TIMEOUT;

/// Serves a connection that wants to join as a relay. It may speak of nothing else.
///
/// # Errors
/// [`ControlError`] if it does, or is lost.
pub(crate) async fn join_relay(
    tunnels: &Arc<Tunnels>,
    mut caller: DialingDevice,
) -> Result<(), ControlError> {
    let AgentMessage::EnrolRelay(enrol) = identify(tunnels, &mut caller).await? else {
        return Err(ControlViolation::NotEnrol.into());
    };
    let public = &enrol.public;
    if !is_address(public) && !is_address(&format!("{public}:1")) {
        let why = "a relay's public address is HOST or HOST:PORT".to_owned();
        refuse(caller, Refusal::Protocol(why)).await;
        return Ok(());
    }
    if let Some(why) = tunnels.cluster.alone() {
        refuse(caller, Refusal::Protocol(why.to_owned())).await;
        return Ok(());
    }
    let keys = match tunnels.cluster.shared_keys() {
        Ok(keys) => keys,
        Err(error) => {
            warn!(%error, "a relay cannot join: the common keys cannot be read");
            refuse(caller, Refusal::Unavailable).await;
            return Ok(());
        }
    };
    match enter_relay(tunnels, &caller, &enrol).await {
        Ok((member, name)) => {
            let address = caller.connection.remote_address();
            info!(%name, %address, "a relay joined the cluster");
            let granted = RelayMessage::EnrolledRelay(RelayGrant {
                member: member.0,
                name,
                keys,
            });
            let _ = timeout(ENROL_TIMEOUT, caller.send.send_last(&granted)).await;
        }
        Err(error) => refuse_join(tunnels, caller, &error).await,
    }
    Ok(())
}

async fn enter_relay(
    tunnels: &Tunnels,
    caller: &DialingDevice,
    enrol: &EnrolRelay,
) -> Result<(MemberId, String), EnrolError> {
    let mut tx = tunnels.store.begin(Durability::Disk).await?;
    for kind in [EventKind::TokenUsed, EventKind::RelayJoined] {
        let event = Event::new(kind).client(caller.connection.remote_address());
        tx.audit(tunnels.audit.entry(event));
    }
    let joined = tx
        .enrol_relay(&enrol.secret, caller.key, &enrol.public, Timestamp::now())
        .await?;
    tx.commit().await?;
    Ok(joined)
}
