//! Joining: the relay says who it is, the device says its secret, and becomes a member.

pub(crate) mod join;
mod relay;
pub(super) mod roster;

use std::sync::Arc;

use holdfast_protocol::limits::MAX_LABELS;
use holdfast_protocol::tunnel::control::ControlViolation;
use holdfast_protocol::wire::{AgentMessage, Enrol, MembershipGrant, Refusal, RelayMessage};
use tokio::time::timeout;
use tracing::{info, warn};

use super::Tunnels;
use super::control::{ControlError, DialingDevice, refuse};
use crate::audit::{Event, EventKind};
use crate::clock::Timestamp;
use crate::log_limit::{self, LimitedLine};
use crate::model::source::Source;
use crate::store::{Device, Durability, EnrolError, Enrolment};
use crate::tunnel::limits::ENROL_TIMEOUT;

pub(crate) use relay::join_relay;

/// Serves a connection that wants to join. It may speak of nothing else.
///
/// # Errors
/// [`ControlError`] if it does, or is lost.
pub(crate) async fn join(
    tunnels: &Arc<Tunnels>,
    mut caller: DialingDevice,
) -> Result<(), ControlError> {
    let AgentMessage::Enrol(enrol) = identify(tunnels, &mut caller).await? else {
        return Err(ControlViolation::NotEnrol.into());
    };
    if enrol.labels.len() > MAX_LABELS {
        refuse(
            caller,
            Refusal::Protocol(format!("a device has at most {MAX_LABELS} labels")),
        )
        .await;
        return Ok(());
    }
    let address = caller.connection.remote_address();
    match enter(tunnels, &caller, enrol).await {
        Ok(device) => {
            info!(device = %device.name, id = %device.id, %address, "device enrolled");
            let granted = MembershipGrant {
                id: device.id,
                name: device.name,
                roster: tunnels.cluster.roster(),
            };
            if let Some(key) = tunnels.cluster.release_key {
                caller.send.send(&RelayMessage::ReleaseKey(key)).await?;
            }
            let granted = RelayMessage::Enrolled(granted);
            let _ = timeout(ENROL_TIMEOUT, caller.send.send_last(&granted)).await;
        }
        Err(error) => refuse_join(tunnels, caller, &error).await,
    }
    Ok(())
}

/// Says which cluster this relay is of, and returns what it hears then.
async fn identify(
    tunnels: &Tunnels,
    caller: &mut DialingDevice,
) -> Result<AgentMessage, ControlError> {
    let identity = RelayMessage::Identity(tunnels.cluster.roster());
    caller.send.send(&identity).await?;
    // Most that go away here do because this relay is not of the cluster that their token names.
    let heard = timeout(ENROL_TIMEOUT, caller.receive.next()).await;
    heard.unwrap_or(Err(ControlError::Protocol("no enrolment in time")))
}

/// Refuses who wants to join, and notes it.
async fn refuse_join(tunnels: &Tunnels, caller: DialingDevice, error: &EnrolError) {
    if let EnrolError::Store(error) = error {
        warn!(%error, "the store cannot enrol");
    }
    let address = caller.connection.remote_address();
    let source = Source::of(address.ip());
    if let Some(left_out) = log_limit::admits(LimitedLine::Enrolment, source) {
        info!(%address, %error, left_out, "a device or a relay was not enrolled");
    }
    let event = Event::new(EventKind::TokenUsed).client(address);
    let event = event.refused(error.to_string());
    tunnels.audit.note_failure(source, event).await;
    refuse(caller, error.refusal()).await;
}

async fn enter(
    tunnels: &Tunnels,
    caller: &DialingDevice,
    enrol: Enrol,
) -> Result<Device, EnrolError> {
    let enrolment = Enrolment {
        secret: &enrol.secret,
        key: caller.key,
        name: enrol.name,
        labels: enrol.labels.into_iter().collect(),
        agent_version: caller.hello.agent_version.clone(),
        target: caller.hello.target.clone(),
        now: Timestamp::now(),
    };
    let mut tx = tunnels.store.begin(Durability::Disk).await?;
    for kind in [EventKind::TokenUsed, EventKind::DeviceEnrolled] {
        let event = Event::new(kind).client(caller.connection.remote_address());
        let mut entry = tunnels.audit.entry(event);
        entry.device_address = caller
            .hello
            .local_address
            .map(|address| address.to_string());
        tx.audit(entry);
    }
    let device = tx.enrol(enrolment).await?;
    tx.commit().await?;
    Ok(device)
}
