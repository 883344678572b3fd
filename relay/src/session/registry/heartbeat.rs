//! The heartbeat of a relay, and what it does for the others: it declares runs dead whose heartbeats have ceased, and
//! closes its own tunnels whose devices have gone to another relay.
//!
//! A relay judges the others only after its own heartbeats have come without a pause for as long as they may be missing.
//! So an outage of the database that all relays see declares none of them dead, and a relay that was paused has noticed,
//! by its own heartbeat, what was declared of it before it judges another.

use std::sync::Arc;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::audit::{Event, EventKind};
use crate::clock::{self, Timestamp};
use crate::limits::{CLOCK_STEP, HEARTBEAT, HEARTBEAT_PAUSE, PRESENCE_FLUSH};
use crate::session::Sessions;
use crate::store::cluster::relays::DeadRun;
use crate::store::{Durability, RELAY_HEARTBEAT_STALE, StoreError};

/// The time since which this relay's own heartbeats have come without a pause.
pub(super) struct Unbroken {
    since: Instant,
    last: Instant,
}

/// Notes regularly that this run lives, until it turns out that it was declared dead.
pub(crate) async fn run(sessions: &Arc<Sessions>) -> StoreError {
    let mut beats = interval(match sessions.store.is_shared() {
        true => HEARTBEAT,
        // Only the commands beside it look.
        false => PRESENCE_FLUSH,
    });
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unbroken = Unbroken::new(clock::instant());
    loop {
        beats.tick().await;
        match beat(sessions, &mut unbroken).await {
            Ok(()) => {}
            Err(StoreError::RunOver) => return why_over(sessions).await,
            Err(error) => warn!(%error, "the heartbeat was not stored"),
        }
    }
}

/// Returns why this run is over: its member has left the cluster, or it was declared dead.
async fn why_over(sessions: &Sessions) -> StoreError {
    match sessions.store.member(sessions.tunnels.member).await {
        Ok(Some(member)) if !member.is_present() => StoreError::MemberLeft(member.name),
        _ => StoreError::RunOver,
    }
}

async fn beat(sessions: &Sessions, unbroken: &mut Unbroken) -> Result<(), StoreError> {
    let store = &sessions.store;
    let before = Timestamp::now();
    let asked = clock::instant();
    let offset = store.follow_clock().await?;
    let expected = before.after(asked.elapsed());
    // What the others read of it is the time behind this moment.
    let sent = clock::since_boot();
    let now = Timestamp::now();
    if now.since(expected).max(expected.since(now)) > CLOCK_STEP {
        warn!(%now, %expected, "the database's clock was set");
        unbroken.begin_again(clock::instant());
    }
    let mut tx = store.begin(Durability::Process).await?;
    tx.heartbeat(sessions.relay, now).await?;
    if let Some(offset) = offset {
        tx.note_clock_offset(sessions.relay, offset).await?;
    }
    tx.commit().await?;
    sessions.tunnels.fence.beat(sent);
    unbroken.beat(clock::instant());
    if store.is_shared() {
        close_replaced(sessions).await?;
        if unbroken.may_judge(clock::instant()) {
            end_stale_runs(sessions).await?;
            sessions.peers.close_dead(Timestamp::now()).await?;
        }
    }
    Ok(())
}

/// Closes the tunnels whose devices have a newer one at another relay.
async fn close_replaced(sessions: &Sessions) -> Result<(), StoreError> {
    let store = sessions.store.in_background();
    if !store.has_replaced_tunnels(sessions.relay).await? {
        return Ok(());
    }
    let mut tx = store.begin(Durability::Process).await?;
    let replaced = tx.take_replaced_tunnels(sessions.relay).await?;
    tx.commit().await?;
    for (device, generation) in replaced {
        if let Some(tunnel) = sessions.tunnels.registry.get(device)
            && tunnel.generation <= generation
        {
            sessions.tunnels.replaced(&tunnel);
        }
    }
    Ok(())
}

/// Declares runs dead whose heartbeats have ceased.
async fn end_stale_runs(sessions: &Sessions) -> Result<(), StoreError> {
    let store = sessions.store.in_background();
    let now = Timestamp::now();
    if !store.has_stale_runs(sessions.relay, now).await? {
        return Ok(());
    }
    let mut tx = store.begin(Durability::Disk).await?;
    let dead = tx.end_stale_runs(sessions.relay, now).await?;
    for run in &dead {
        let event = Event::new(EventKind::RelayDied).with("member", run.member.as_str());
        let event = event.with("last_heartbeat", run.heartbeat.rfc3339());
        tx.audit(sessions.tunnels.audit.entry(event));
    }
    sessions.recordings.ended_runs_over(&mut tx, now).await?;
    tx.commit().await?;
    for DeadRun { member, .. } in dead {
        info!(%member, "a relay was declared dead: its heartbeats have ceased");
    }
    Ok(())
}

impl Unbroken {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            last: now,
        }
    }

    /// Notes that heartbeats from before say nothing, because the clock that they are of was set.
    pub(super) fn begin_again(&mut self, now: Instant) {
        self.since = now;
    }

    /// Notes a heartbeat that was stored.
    pub(super) fn beat(&mut self, now: Instant) {
        if now.duration_since(self.last) > HEARTBEAT_PAUSE {
            self.since = now;
        }
        self.last = now;
    }

    /// Returns whether the heartbeats of others may be judged.
    pub(super) fn may_judge(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= RELAY_HEARTBEAT_STALE
            && now.duration_since(self.last) <= HEARTBEAT_PAUSE
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn relay_judges_others_only_after_an_interval_of_its_own() {
        let start = clock::instant();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut unbroken = Unbroken::new(start);
        for second in (2..10).step_by(2) {
            unbroken.beat(at(second));
            assert!(!unbroken.may_judge(at(second)), "{second}");
        }
        unbroken.beat(at(10));
        assert!(unbroken.may_judge(at(10)));
        // Paused between a heartbeat and the judgement.
        assert!(!unbroken.may_judge(at(16)));
        // The database was away.
        for second in [40, 42, 44, 46, 48] {
            unbroken.beat(at(second));
            assert!(!unbroken.may_judge(at(second)), "{second}");
        }
        unbroken.beat(at(50));
        assert!(unbroken.may_judge(at(50)));
    }
}
