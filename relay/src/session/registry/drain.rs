//! A relay that drains: it sends its devices to the other relays with a spread, keeps their tunnels for the sessions over
//! them, and closes what is left at the deadline. That it takes no logins and is not ready is the composition root's.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;

use holdfast_protocol::ids::{DeviceId, Generation};
use holdfast_protocol::wire::{CloseCode, RelayMessage};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::clock::{Coarse, Timestamp};
use crate::limits::DRAIN_REDIAL;
use crate::session::Sessions;
use crate::session::ending::{Cause, Ending};
use crate::session::limits::{DRAIN_CLOSE, DRAIN_RATE, DRAIN_TICK, MAX_DRAIN_SPREAD};
use crate::store::cluster::drain::DrainLeft;
use crate::store::{Durability, StoreError};
use crate::tunnel::Tunnels;
use crate::tunnel::registry::Tunnel;

/// Looks which relays of the cluster drain.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn look(tunnels: &Tunnels) -> Result<(), StoreError> {
    // A relay that is alone cannot drain.
    if tunnels.store.is_shared() {
        let draining = tunnels.store.in_background().draining().await?;
        tunnels.drains.set(draining);
    }
    Ok(())
}

/// Returns how what a drained relay closes ends.
#[must_use]
pub(crate) fn ending() -> Ending {
    Ending {
        cause: Cause::Stopping,
        why: "the relay was drained: log in again, which leads to another one".into(),
    }
}

/// Waits until this relay drains, and drains it from then on.
pub(crate) async fn run(sessions: Arc<Sessions>) -> Infallible {
    let mut drain = sessions.tunnels.drains.watch(None);
    drain.begun().await;
    let mut ticks = interval(DRAIN_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = SentAway::new(sessions.tunnels.registry.all().len());
    let mut known = None;
    let mut noted = None;
    loop {
        ticks.tick().await;
        let Some(until) = drain.deadline() else {
            continue;
        };
        let now = Timestamp::now();
        if known.replace(until) != Some(until) {
            let left = Coarse(until.since(now)).words();
            info!(%until, "the relay drains: what is left in {left} is closed");
        }
        if now >= until {
            sessions.live.end_where(|_| true, &ending());
        }
        let is_over = now >= until.after(DRAIN_CLOSE);
        let left = drain_tunnels(&sessions, &mut away, is_over);
        if noted != Some(left) {
            match note(&sessions, left).await {
                Ok(()) => noted = Some(left),
                Err(error) => warn!(%error, "cannot store what is left of the drained relay"),
            }
        }
    }
}

/// Sends the devices away whose turn it is, and closes the tunnels that nothing needs any more; all of them, if the time
/// is over. Returns what is left.
fn drain_tunnels(sessions: &Sessions, away: &mut SentAway, is_over: bool) -> DrainLeft {
    let registry = &sessions.tunnels.registry;
    let (current, kept) = (registry.all(), registry.kept());
    for tunnel in &kept {
        if is_over || tunnel.is_needless() {
            tunnel.close(
                CloseCode::Replaced,
                "nothing goes over this tunnel any more",
            );
        }
    }
    for tunnel in &current {
        match is_over {
            true => tunnel.close(CloseCode::Stopping, "the relay was drained"),
            false => away.send(tunnel),
        }
    }
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    DrainLeft {
        tunnels: count(current.len() + kept.len()),
        sessions: count(sessions.live.count() + sessions.peers.passages()),
    }
}

async fn note(sessions: &Sessions, left: DrainLeft) -> Result<(), StoreError> {
    let mut tx = sessions.store.begin(Durability::Process).await?;
    tx.note_drain_left(sessions.relay, left).await?;
    tx.commit().await
}

/// The devices that were sent away.
struct SentAway {
    tunnels: HashSet<(DeviceId, Generation)>,
    /// The milliseconds after which they go at the earliest. They take up to twice that.
    after: u32,
}

impl SentAway {
    /// Returns the start of a drain of so many devices.
    fn new(devices: usize) -> Self {
        Self {
            tunnels: HashSet::new(),
            after: spread(devices),
        }
    }

    /// Sends a device away, once. One whose agent would drop what runs over the tunnel stays until nothing does.
    fn send(&mut self, tunnel: &Tunnel) {
        let tunnel_id = (tunnel.device, tunnel.generation);
        if tunnel.may_be_sent_away()
            && !self.tunnels.contains(&tunnel_id)
            && tunnel.try_tell(RelayMessage::Drain(self.after))
        {
            self.tunnels.insert(tunnel_id);
        }
    }
}

/// Returns the milliseconds after which so many devices go at the earliest.
fn spread(devices: usize) -> u32 {
    let millis = devices.saturating_mul(1_000) / DRAIN_RATE;
    let millis = u32::try_from(millis).unwrap_or(u32::MAX);
    millis.clamp(DRAIN_REDIAL, MAX_DRAIN_SPREAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_go_with_a_spread_that_has_bounds() {
        assert_eq!(spread(1), DRAIN_REDIAL);
        assert_eq!(spread(10_000), 20_000);
        // They take up to twice that, and are gone within 75 s.
        assert_eq!(spread(1_000_000), 30_000);
    }
}
