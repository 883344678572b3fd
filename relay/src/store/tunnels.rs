//! The newest tunnel of each device: its generation, and when the device was heard on it.

use std::net::SocketAddr;

use holdfast_protocol::ids::{DeviceId, Generation};

use super::{RelayId, Store, StoreError, Survive};
use crate::clock::Timestamp;

/// What is known of a tunnel when it opens.
#[derive(Clone, Debug)]
pub struct TunnelFacts {
    /// The device's address as the relay sees it.
    pub address: SocketAddr,
    /// The agent's version, as it says.
    pub agent_version: String,
    /// The target triple that the agent was built for, as it says.
    pub target: String,
    /// Seconds between two beats of the idle agent.
    pub keepalive_secs: u16,
    /// The address that it sends from, before any NAT, as it says.
    pub local_address: Option<SocketAddr>,
}

// A generation is at least the time in microseconds: so it grows even if the last one was lost with
// the power, or the database came back from a backup.
const OPEN: &str = "INSERT INTO tunnels
        (device, relay, generation, opened, last_heard, keepalive_secs, address, local_address)
    VALUES ($1, $2, $3, $3, $3, $4, $5, $6)
    ON CONFLICT (device) DO UPDATE SET
        relay = excluded.relay,
        generation = CASE WHEN excluded.generation > tunnels.generation
            THEN excluded.generation ELSE tunnels.generation + 1 END,
        opened = excluded.opened, closed = NULL, last_heard = excluded.last_heard,
        keepalive_secs = excluded.keepalive_secs, address = excluded.address,
        local_address = excluded.local_address
    RETURNING generation";
const NOTE_AGENT: &str = "UPDATE devices SET agent_version = $2, target = $3
    WHERE id = $1 AND revoked IS NULL";
const CLOSE: &str = "UPDATE tunnels SET closed = $3
    WHERE device = $1 AND generation = $2 AND closed IS NULL";
const HEARD: &str = "UPDATE tunnels SET last_heard = $3, address = $4
    WHERE device = $1 AND generation = $2 AND closed IS NULL";

impl Store {
    /// A device's tunnel stands on `relay`, and replaces any other. Gives its generation, which is
    /// higher than all before it.
    ///
    /// # Errors
    /// [`StoreError::NotEnrolled`] if the device was revoked in the meantime.
    pub async fn tunnel_opened(
        &self,
        device: DeviceId,
        relay: RelayId,
        facts: TunnelFacts,
        now: Timestamp,
    ) -> Result<Generation, StoreError> {
        let mut write = self.write(Survive::Crash).await?;
        let note = sqlx::query(NOTE_AGENT)
            .bind(device.0.as_slice())
            .bind(&facts.agent_version)
            .bind(&facts.target);
        if note.execute(&mut *write).await?.rows_affected() == 0 {
            return Err(StoreError::NotEnrolled);
        }
        let generation: i64 = sqlx::query_scalar(OPEN)
            .bind(device.0.as_slice())
            .bind(relay.0.as_slice())
            .bind(now.0)
            .bind(i64::from(facts.keepalive_secs))
            .bind(facts.address.to_string())
            .bind(facts.local_address.map(|address| address.to_string()))
            .fetch_one(&mut *write)
            .await?;
        write.commit().await?;
        let generation = u64::try_from(generation);
        generation
            .map(Generation)
            .map_err(|_| StoreError::Corrupt("a generation"))
    }

    /// The tunnel of that generation is closed; nothing happens if a newer one stands.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn tunnel_closed(
        &self,
        device: DeviceId,
        generation: Generation,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut write = self.write(Survive::Crash).await?;
        let close = sqlx::query(CLOSE)
            .bind(device.0.as_slice())
            .bind(column(generation))
            .bind(now.0);
        close.execute(&mut *write).await?;
        write.commit().await
    }

    /// These devices were heard, at these times, from these addresses. One transaction: collect for a
    /// second, then call.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn heard(
        &self,
        heard: &[(DeviceId, Generation, Timestamp, SocketAddr)],
    ) -> Result<(), StoreError> {
        if heard.is_empty() {
            return Ok(());
        }
        let mut write = self.write(Survive::Crash).await?;
        for (device, generation, at, address) in heard {
            let heard = sqlx::query(HEARD)
                .bind(device.0.as_slice())
                .bind(column(*generation))
                .bind(at.0)
                .bind(address.to_string());
            heard.execute(&mut *write).await?;
        }
        write.commit().await
    }
}

fn column(generation: Generation) -> i64 {
    i64::try_from(generation.0).unwrap_or(i64::MAX)
}
