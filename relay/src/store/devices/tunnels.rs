//! The newest tunnel of each device: its generation, and when the device was heard on it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use holdfast_protocol::ids::{DeviceId, Generation};

use holdfast_protocol::limits::{MAX_KEEPALIVE, TUNNEL_IDLE_TIMEOUT};

use crate::clock::Timestamp;
use crate::store::backend::sql;
use crate::store::limits::MAX_RESETS;
use crate::store::{ClonePair, MemberId, RelayId, Store, StoreError, Tx};

/// A QUIC connection id that the relay issued, of the length that quinn's generator makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TunnelId(pub [u8; Self::LENGTH]);

impl TunnelId {
    /// Its length.
    pub(crate) const LENGTH: usize = 8;
}

/// A tunnel of an earlier run of a relay that nothing has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeftTunnel {
    /// The device.
    pub device: DeviceId,
    /// The address from which the device was heard last.
    pub address: SocketAddr,
    /// The connection id by which it spoke.
    pub id: TunnelId,
}

/// A tunnel that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenedTunnel {
    /// Its generation.
    pub generation: Generation,
    /// The other run that has a tunnel of the device, until it closes it.
    pub replaced: Option<RelayId>,
}

/// The facts about a tunnel when it opens.
#[derive(Clone, Debug)]
pub(crate) struct TunnelFacts {
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
    /// The connection id by which it speaks, if that is known yet.
    pub connection_id: Option<TunnelId>,
}

// A generation is at least the time in microseconds: so it grows even if the last one was lost with
// the power, or the database came back from a backup.
const OPEN: &str = "INSERT INTO tunnels
        (device, relay, member, generation, opened, last_heard, keepalive_secs, address,
        local_address, connection_id)
    SELECT $1, r.id, r.member, $3, $3, $3, $4, $5, $6, $7
    FROM relays r WHERE r.id = $2 AND r.stopped IS NULL
    ON CONFLICT (device) DO UPDATE SET
        relay = excluded.relay, member = excluded.member,
        generation = CASE WHEN excluded.generation > tunnels.generation
            THEN excluded.generation ELSE tunnels.generation + 1 END,
        opened = excluded.opened, closed = NULL, last_heard = excluded.last_heard,
        keepalive_secs = excluded.keepalive_secs, address = excluded.address,
        local_address = excluded.local_address, connection_id = excluded.connection_id
    RETURNING generation";
// A run that has ended has no tunnels any more.
const REPLACED: &str = "SELECT t.relay, t.generation
    FROM tunnels t JOIN relays r ON r.id = t.relay
    WHERE t.device = $1 AND t.relay <> $2 AND t.closed IS NULL AND r.stopped IS NULL";
const NOTE_REPLACED: &str = "INSERT INTO replaced_tunnels (relay, device, generation)
    VALUES ($1, $2, $3)
    ON CONFLICT (relay, device) DO UPDATE SET generation = excluded.generation";
const TAKE_REPLACED: &str =
    "DELETE FROM replaced_tunnels WHERE relay = $1 RETURNING device, generation";
const HAS_REPLACED: &str = "SELECT EXISTS (SELECT 1 FROM replaced_tunnels WHERE relay = $1)";
const NOTE_AGENT: &str = "UPDATE devices SET agent_version = $2, target = $3
    WHERE id = $1 AND revoked IS NULL";
const CLOSE: &str = "UPDATE tunnels SET closed = $3, connection_id = NULL
    WHERE device = $1 AND generation = $2 AND closed IS NULL";
const HEARD: &str = "UPDATE tunnels SET last_heard = $3, address = $4
    WHERE device = $1 AND generation = $2 AND closed IS NULL";

const NOTE_ID: &str = "UPDATE tunnels SET connection_id = $3
    WHERE device = $1 AND generation = $2 AND closed IS NULL";
// Those that were never closed, even if they were marked as closed since. The one that was heard last comes first.
const LEFT: &str = "SELECT device, address, connection_id FROM tunnels
    WHERE member = $3 AND connection_id IS NOT NULL AND last_heard >= $1
    ORDER BY last_heard DESC LIMIT $2";

const ELSEWHERE: &str = "SELECT t.device FROM tunnels t JOIN relays r ON r.id = t.relay
    WHERE t.closed IS NULL AND r.stopped IS NULL AND r.id <> $1";

/// A device with a tunnel that was heard before this has given its connection up by itself.
const LEFT_SINCE: Duration = TUNNEL_IDLE_TIMEOUT.saturating_add(MAX_KEEPALIVE);
const CLONED: &str = "UPDATE devices SET cloned = $2, cloned_first = $3, cloned_second = $4
    WHERE id = $1";

impl Store {
    /// Returns tunnels that no run of this member has closed in good order and whose devices may still believe in them.
    /// One whose facts cannot be read is left out: its device comes back without help.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn left_tunnels(
        &self,
        member: MemberId,
        now: Timestamp,
    ) -> Result<Vec<LeftTunnel>, StoreError> {
        let rows: Vec<(Vec<u8>, String, Vec<u8>)> = sql::query_as(LEFT)
            .bind(now.before(LEFT_SINCE).0)
            .bind(i64::from(MAX_RESETS))
            .bind(member.0.as_slice())
            .fetch_all(self.reads())
            .await?;
        let left = rows.into_iter().filter_map(|(device, address, id)| {
            Some(LeftTunnel {
                device: DeviceId(device.try_into().ok()?),
                address: address.parse().ok()?,
                id: TunnelId(id.try_into().ok()?),
            })
        });
        Ok(left.collect())
    }

    /// Returns whether a device of this run has a newer tunnel at another. A cheap look before
    /// [`Tx::take_replaced_tunnels`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn has_replaced_tunnels(&self, relay: RelayId) -> Result<bool, StoreError> {
        let has = sql::query_scalar(HAS_REPLACED).bind(relay.0.as_slice());
        has.fetch_one(self.reads()).await
    }
}

impl Store {
    /// Returns the devices whose tunnels other runs have that live.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tunnels_elsewhere(
        &self,
        relay: RelayId,
    ) -> Result<HashSet<DeviceId>, StoreError> {
        let rows: Vec<(Vec<u8>,)> = sql::query_as(ELSEWHERE)
            .bind(relay.0.as_slice())
            .fetch_all(self.reads())
            .await?;
        let devices = rows.into_iter().map(|(id,)| id.try_into().map(DeviceId));
        devices
            .collect::<Result<_, _>>()
            .map_err(|_| StoreError::Corrupt("a device"))
    }
}

impl Tx {
    /// Notes that a device is two machines.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn device_cloned(
        &mut self,
        device: DeviceId,
        pair: ClonePair,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let cloned = sql::query(CLONED)
            .bind(device.0.as_slice())
            .bind(now.0)
            .bind(pair.first.to_string())
            .bind(pair.second.to_string());
        cloned.execute(&mut *self.connection().await?).await?;
        Ok(())
    }

    /// Notes that a device's tunnel is established on `relay`, and replaces any other. Returns its generation, which is
    /// higher than all before it, and the run whose tunnel it replaces.
    ///
    /// # Errors
    /// [`StoreError::NotEnrolled`] if the device was revoked in the meantime; [`StoreError::RunOver`] if the run ended.
    pub(crate) async fn tunnel_opened(
        &mut self,
        device: DeviceId,
        relay: RelayId,
        facts: TunnelFacts,
        now: Timestamp,
    ) -> Result<OpenedTunnel, StoreError> {
        let note = sql::query(NOTE_AGENT)
            .bind(device.0.as_slice())
            .bind(&facts.agent_version)
            .bind(&facts.target);
        if note
            .execute(&mut *self.connection().await?)
            .await?
            .rows_affected()
            == 0
        {
            return Err(StoreError::NotEnrolled);
        }
        let replaced = self.replace_tunnel(device, relay).await?;
        let generation: Option<i64> = sql::query_scalar(OPEN)
            .bind(device.0.as_slice())
            .bind(relay.0.as_slice())
            .bind(now.0)
            .bind(i64::from(facts.keepalive_secs))
            .bind(facts.address.to_string())
            .bind(facts.local_address.map(|address| address.to_string()))
            .bind(facts.connection_id.map(|id| id.0.to_vec()))
            .fetch_optional(&mut *self.connection().await?)
            .await?;
        let generation = u64::try_from(generation.ok_or(StoreError::RunOver)?);
        let generation = generation.map_err(|_| StoreError::Corrupt("a generation"))?;
        Ok(OpenedTunnel {
            generation: Generation(generation),
            replaced,
        })
    }

    /// Notes for the run that has the tunnel of a device, if it is another one, that it is replaced. Returns that run.
    async fn replace_tunnel(
        &mut self,
        device: DeviceId,
        relay: RelayId,
    ) -> Result<Option<RelayId>, StoreError> {
        let replaced = sql::query_as(REPLACED).bind(device.0.as_slice());
        let replaced = replaced.bind(relay.0.as_slice());
        let replaced: Option<(Vec<u8>, i64)> = replaced
            .fetch_optional(&mut *self.connection().await?)
            .await?;
        let Some((run, generation)) = replaced else {
            return Ok(None);
        };
        let note = sql::query(NOTE_REPLACED).bind(run.as_slice());
        let note = note.bind(device.0.as_slice()).bind(generation);
        note.execute(&mut *self.connection().await?).await?;
        let run = run.try_into().map(RelayId);
        run.map(Some)
            .map_err(|_| StoreError::Corrupt("a run of a relay"))
    }

    /// Takes the tunnels of this run in whose place another run has newer ones: they are to be closed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn take_replaced_tunnels(
        &mut self,
        relay: RelayId,
    ) -> Result<Vec<(DeviceId, Generation)>, StoreError> {
        let rows = sql::query_as(TAKE_REPLACED).bind(relay.0.as_slice());
        let rows: Vec<(Vec<u8>, i64)> = rows.fetch_all(&mut *self.connection().await?).await?;
        let read = |(device, generation): (Vec<u8>, i64)| {
            let generation = u64::try_from(generation).ok()?;
            Some((DeviceId(device.try_into().ok()?), Generation(generation)))
        };
        let corrupt = || StoreError::Corrupt("a tunnel that was replaced");
        rows.into_iter()
            .map(|row| read(row).ok_or_else(corrupt))
            .collect()
    }

    /// Notes that the tunnel of that generation is closed; nothing happens if there is a newer one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn tunnel_closed(
        &mut self,
        device: DeviceId,
        generation: Generation,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let close = sql::query(CLOSE)
            .bind(device.0.as_slice())
            .bind(column(generation))
            .bind(now.0);
        close.execute(&mut *self.connection().await?).await?;
        Ok(())
    }

    /// Notes the connection ids that these devices use. One transaction.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn note_connection_ids(
        &mut self,
        ids: &[(DeviceId, Generation, TunnelId)],
    ) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        for (device, generation, id) in ids {
            let note = sql::query(NOTE_ID)
                .bind(device.0.as_slice())
                .bind(column(*generation))
                .bind(id.0.as_slice());
            note.execute(&mut *self.connection().await?).await?;
        }
        Ok(())
    }

    /// Notes when, and from which addresses, these devices were heard. One transaction: collect for a
    /// second, then call.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn heard(
        &mut self,
        heard: &[(DeviceId, Generation, Timestamp, SocketAddr)],
    ) -> Result<(), StoreError> {
        if heard.is_empty() {
            return Ok(());
        }
        for (device, generation, at, address) in heard {
            let heard = sql::query(HEARD)
                .bind(device.0.as_slice())
                .bind(column(*generation))
                .bind(at.0)
                .bind(address.to_string());
            heard.execute(&mut *self.connection().await?).await?;
        }
        Ok(())
    }
}

fn column(generation: Generation) -> i64 {
    i64::try_from(generation.0).unwrap_or(i64::MAX)
}
