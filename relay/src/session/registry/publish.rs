//! The registry of live sessions, copied into the store: what began and ended at once, what moved each second.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_protocol::ids::SessionId;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::warn;

use crate::session::Sessions;
use crate::session::limits::{LEASE_RETRY, REGISTRY_FLUSH, TRAFFIC_FLUSH};
use crate::session::registry::{Live, LiveSession};
use crate::store::{BoardChange, Durability, SessionRow, StoreError, Traffic};

/// Runs until it is aborted.
pub(crate) async fn run(sessions: Arc<Sessions>) {
    let mut ticks = interval(TRAFFIC_FLUSH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut published = Published::default();
    loop {
        tokio::select! {
            () = sessions.live.changed() => {}
            _ = ticks.tick() => {}
        }
        let change = published.change(&sessions.live);
        if change == BoardChange::default() {
            continue;
        }
        match publish(&sessions, &change).await {
            Ok(()) => {
                published.note(&change);
                // Whatever begins in the meantime goes into one transaction.
                sleep(REGISTRY_FLUSH).await;
            }
            Err(error) => {
                warn!(%error, "cannot store the list of live sessions");
                sleep(LEASE_RETRY).await;
            }
        }
    }
}

async fn publish(sessions: &Sessions, change: &BoardChange) -> Result<(), StoreError> {
    let mut tx = sessions.store.begin(Durability::Process).await?;
    tx.publish_sessions(sessions.relay, change).await?;
    tx.commit().await
}

/// The sessions and traffic that the store has.
#[derive(Debug, Default)]
struct Published(HashMap<SessionId, Traffic>);

impl Published {
    fn change(&self, live: &Live) -> BoardChange {
        let sessions = live.all();
        let mut change = BoardChange::default();
        let mut gone = self.0.clone();
        for session in &sessions {
            match gone.remove(&session.id) {
                None => change.begun.push(row(session)),
                Some(known) if known != session.traffic() => {
                    change.moved.push((session.id, session.traffic()));
                }
                Some(_) => {}
            }
        }
        for stream in live.consoles() {
            match gone.remove(&stream.id) {
                None => change.consoles.push(stream.row()),
                Some(known) if known != stream.traffic() => {
                    change.moved.push((stream.id, stream.traffic()));
                }
                Some(_) => {}
            }
        }
        change.ended = gone.into_keys().collect();
        change
    }

    fn note(&mut self, change: &BoardChange) {
        let begun = change.begun.iter().map(|row| (row.session.id, row.traffic));
        self.0.extend(begun);
        let consoles = change.consoles.iter().map(|row| (row.id, row.traffic));
        self.0.extend(consoles);
        self.0.extend(change.moved.iter().copied());
        for id in &change.ended {
            self.0.remove(id);
        }
    }
}

fn row(session: &LiveSession) -> SessionRow {
    SessionRow {
        session: session.facts(),
        traffic: session.traffic(),
    }
}
