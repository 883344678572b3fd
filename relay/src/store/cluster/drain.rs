//! A member that drains: until when, and what it still has.

use std::collections::HashMap;

use holdfast_protocol::ids::PublicKey;

use super::members::MemberState;
use crate::clock::Timestamp;
use crate::state::MemberId;
use crate::store::backend::sql;
use crate::store::{RelayId, Store, StoreError, Tx};

const DRAIN: &str = "UPDATE members SET state = $2, drain_until = $3
    WHERE id = $1 AND state <> 'removed'";
const NOTE_LEFT: &str = "UPDATE relays SET drain_tunnels = $2, drain_sessions = $3
    WHERE id = $1 AND stopped IS NULL";

/// The tunnels and sessions that a relay which drains still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DrainLeft {
    /// Tunnels of devices, also those that are kept for the sessions over them alone.
    pub tunnels: i64,
    /// Sessions and forwards whose operators are at it, and those of other relays' operators over its tunnels.
    pub sessions: i64,
}

impl DrainLeft {
    /// Returns whether nothing is left.
    #[must_use]
    pub(crate) fn is_nothing(self) -> bool {
        self.tunnels == 0 && self.sessions == 0
    }
}

impl Store {
    /// Returns until when each member drains that does, by the key under which the others know it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn draining(&self) -> Result<HashMap<PublicKey, Timestamp>, StoreError> {
        let members = self.members().await?.into_iter();
        let draining = members.filter_map(|it| Some((it.tunnel_key, it.drains_until()?)));
        Ok(draining.collect())
    }
}

impl Tx {
    /// Makes a member drain until `until`, if it has not left. Its next start ends that.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn drain_member(
        &mut self,
        id: MemberId,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let drain = sql::query(DRAIN).bind(id.0.as_slice());
        let drain = drain.bind(MemberState::Draining.as_str()).bind(until.0);
        drain.execute(&mut *self.connection().await?).await?;
        Ok(())
    }

    /// Notes what a run that drains still has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn note_drain_left(
        &mut self,
        relay: RelayId,
        left: DrainLeft,
    ) -> Result<(), StoreError> {
        let note = sql::query(NOTE_LEFT).bind(relay.0.as_slice());
        let note = note.bind(left.tunnels).bind(left.sessions);
        note.execute(&mut *self.connection().await?).await?;
        Ok(())
    }
}
