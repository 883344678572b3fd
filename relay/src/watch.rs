//! The relay's regular work: its heartbeat, the facts about devices and about itself that others read from the store, and
//! what admin commands beside it changed.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use holdfast_protocol::ids::DeviceId;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::clock::{self, Timestamp};
use crate::limits::{PRESENCE_FLUSH, STORE_POLL};
use crate::model::invalid::Fault;
use crate::session::Sessions;
use crate::session::admission::enforce;
use crate::session::registry::drain;
use crate::session::registry::heartbeat;
use crate::ssh::Front;
use crate::store::{Durability, StoreError, meta};
use crate::tunnel::registry::Tunnel;

/// Runs until this run of the relay is over because another relay declared it dead. Returns that error.
pub(crate) async fn run(sessions: Arc<Sessions>, front: Arc<Front>) -> StoreError {
    tokio::select! {
        over = heartbeat::run(&sessions) => {
            sessions.tunnels.fence.shut();
            over
        }
        never = sessions.tunnels.fence.watch() => match never {},
        never = work(&sessions, &front) => match never {},
    }
}

/// Does the regular work, for ever.
async fn work(sessions: &Arc<Sessions>, front: &Arc<Front>) -> Infallible {
    let mut poll = interval(STORE_POLL);
    let mut flush = interval(PRESENCE_FLUSH);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = SeenVersions::default();
    let mut flushed = Flushed::default();
    loop {
        let done = tokio::select! {
            _ = poll.tick() => look(sessions, front, &mut seen).await,
            _ = flush.tick() => flush_facts(sessions, front, &mut flushed).await,
        };
        if let Err(error) = done {
            warn!(%error, "regular work on the store failed");
        }
    }
}

/// The facts that the store has.
#[derive(Default)]
struct Flushed {
    heard: HashMap<DeviceId, Timestamp>,
    refusals: [u64; 3],
    /// The fault why the audit log cannot be written, if it cannot; `None` before the first time.
    audit_fault: Option<Option<Fault>>,
}

#[derive(Default)]
struct SeenVersions {
    data: i64,
    access: i64,
    /// The reason why the host keys could not be read the last time, if they could not.
    host_keys: Option<String>,
}

/// Looks whether something was changed beside us that concerns what is alive here.
async fn look(
    sessions: &Arc<Sessions>,
    front: &Arc<Front>,
    seen: &mut SeenVersions,
) -> Result<(), StoreError> {
    // Read first: what is read of the store behind it is new enough for the fence to open.
    let began = clock::since_boot();
    let fence = &sessions.tunnels.fence;
    let awaits_fence = fence.awaits_enforcement();
    let data = sessions.store.data_version().await?;
    let is_unjudged = sessions.live.take_unjudged();
    if data == seen.data && !is_unjudged && !awaits_fence {
        return Ok(());
    }
    reload_host_keys(front, seen).await;
    drain::look(&sessions.tunnels).await?;
    sessions.peers.close_removed().await?;
    // Read before the facts: what is read after it is at least as new.
    let access = sessions.store.in_background().access_version().await?;
    if access != seen.access || is_unjudged || awaits_fence {
        let judged = enforce::enforce(sessions).await;
        if is_unjudged && !matches!(judged, Ok(true)) {
            sessions.live.set_unjudged();
        }
        sessions.tunnels.renew_roster().await?;
        // A device is online all the same if it learns its new name later.
        rename(sessions).await?;
        if !judged? {
            warn!("a session did not end yet: checking again");
            return Ok(());
        }
        let mut tx = sessions.store.begin(Durability::Process).await?;
        tx.relay_confirms(sessions.relay, access).await?;
        tx.commit().await?;
        fence.enforced(began);
    }
    (seen.data, seen.access) = (data, access);
    Ok(())
}

/// Sends their names to devices that were renamed.
async fn rename(sessions: &Sessions) -> Result<(), StoreError> {
    let tunnels = sessions.tunnels.registry.all();
    if tunnels.is_empty() {
        return Ok(());
    }
    let names = sessions.store.in_background().device_names().await?;
    for tunnel in tunnels {
        if let Some(name) = names.get(&tunnel.device) {
            tunnel.rename(name);
        }
    }
    Ok(())
}

/// Reads the host keys again. A command that changes them is in the audit log, so the store changes after it.
async fn reload_host_keys(front: &Arc<Front>, seen: &mut SeenVersions) {
    let reader = front.clone();
    let read = spawn_blocking(move || reader.host_keys.reload(&reader.state)).await;
    let failed = match read {
        Ok(read) => read.err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(error) = &failed
        && seen.host_keys != failed
    {
        warn!(%error, "cannot read the SSH host keys again: clients are sent those from before");
    }
    seen.host_keys = failed;
}

/// Gives the store the connection ids of devices that changed theirs, as roaming ones do.
async fn note_ids(sessions: &Sessions, tunnels: &[Arc<Tunnel>]) -> Result<(), StoreError> {
    let address = |tunnel: &Arc<Tunnel>| tunnel.connection.remote_address();
    let changed = |tunnel: &Arc<Tunnel>| {
        let id = sessions.tunnels.noted_ids.of(address(tunnel))?;
        (tunnel.stored_id() != Some(id)).then(|| (tunnel.clone(), id))
    };
    let changed: Vec<_> = tunnels.iter().filter_map(changed).collect();
    let rows: Vec<_> = changed
        .iter()
        .map(|(tunnel, id)| (tunnel.device, tunnel.generation, *id))
        .collect();
    if !rows.is_empty() {
        let mut tx = sessions.store.begin(Durability::Process).await?;
        tx.note_connection_ids(&rows).await?;
        tx.commit().await?;
    }
    for (tunnel, id) in changed {
        tunnel.set_stored_id(Some(id));
    }
    sessions
        .tunnels
        .noted_ids
        .prune(tunnels.iter().map(address));
    Ok(())
}

/// Gives the store what has changed since the last time: devices that were heard, refusals, and whether
/// the audit log can be written.
async fn flush_facts(
    sessions: &Sessions,
    front: &Front,
    flushed: &mut Flushed,
) -> Result<(), StoreError> {
    let refusals = sessions.leases.refusals();
    let audit_fault = front.audit.fault();
    let tunnels = sessions.tunnels.registry.all();
    let heard: Vec<_> = tunnels
        .iter()
        .filter(|tunnel| flushed.heard.get(&tunnel.device) != Some(&tunnel.heard()))
        .map(|tunnel| {
            let address = tunnel.connection.remote_address();
            (tunnel.device, tunnel.generation, tunnel.heard(), address)
        })
        .collect();
    let mut tx = sessions.store.begin(Durability::Process).await?;
    if flushed.refusals != refusals {
        tx.note_refusals(sessions.relay, refusals).await?;
    }
    if flushed.audit_fault.as_ref() != Some(&audit_fault) {
        let Fault { found, remedy } = audit_fault.clone().unwrap_or_default();
        let remedy = remedy.unwrap_or_default();
        for (fact, text) in [(meta::AUDIT_FAULT, found), (meta::AUDIT_REMEDY, remedy)] {
            let fact = meta::of_member(fact, sessions.tunnels.member);
            tx.meta_set(&fact, &text).await?;
        }
    }
    tx.heard(&heard).await?;
    tx.commit().await?;
    flushed.refusals = refusals;
    flushed.audit_fault = Some(audit_fault);
    note_ids(sessions, &tunnels).await?;
    flushed.heard = tunnels
        .iter()
        .map(|tunnel| (tunnel.device, tunnel.heard()))
        .collect();
    Ok(())
}
