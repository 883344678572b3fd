//! The runs of members, and the names that listings show of them.

use std::collections::{HashMap, HashSet};

use holdfast_protocol::ids::{DeviceId, PublicKey};

use super::drain::DrainLeft;
use super::members::CORRUPT;
use crate::clock::Timestamp;
use crate::state::MemberId;
use crate::store::backend::sql;
use crate::store::{RELAY_HEARTBEAT_STALE, RelayId, Store, StoreError};

const RUNS: &str = "SELECT r.member, r.version, r.stopped, r.heartbeat, r.clock_offset,
        (SELECT COUNT(*) FROM tunnels t WHERE t.relay = r.id AND t.closed IS NULL),
        (SELECT COUNT(*) FROM sessions s WHERE s.relay = r.id), r.drain_tunnels, r.drain_sessions
    FROM relays r";
const SEVERAL: &str = "SELECT COUNT(*) > 1 FROM members WHERE state <> 'removed'";
const OF_RUNS: &str = "SELECT r.id, m.name FROM relays r JOIN members m ON m.id = r.member";
const OF_DEVICES: &str = "SELECT t.device, m.name
    FROM tunnels t JOIN relays r ON r.id = t.relay JOIN members m ON m.id = r.member
    WHERE t.closed IS NULL AND r.stopped IS NULL";

const LIVING: &str = "SELECT m.tunnel_key FROM members m JOIN relays r ON r.member = m.id
    WHERE r.stopped IS NULL AND r.heartbeat > $1";

/// The facts about the last run of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberRun {
    /// The version of its program.
    pub version: String,
    /// The time at which it stopped in good order.
    pub stopped: Option<Timestamp>,
    /// Its last heartbeat.
    pub heartbeat: Timestamp,
    /// The microseconds by which the clock of its machine is ahead of the database's.
    pub clock_offset: i64,
    /// The number of devices that have a tunnel to it.
    pub devices: i64,
    /// The number of sessions whose operators are at it.
    pub sessions: i64,
    /// The tunnels and sessions that are left, if it drains and knows it.
    pub left: Option<DrainLeft>,
}

impl MemberRun {
    /// Returns whether it lives, as far as its heartbeats tell.
    #[must_use]
    pub(crate) fn lives(&self, now: Timestamp) -> bool {
        self.stopped.is_none() && now.since(self.heartbeat) < RELAY_HEARTBEAT_STALE
    }
}

impl Store {
    /// Returns the last run of each member that has one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn member_runs(&self) -> Result<HashMap<MemberId, MemberRun>, StoreError> {
        let rows: Vec<RunColumns> = sql::query_as(RUNS).fetch_all(self.reads()).await?;
        let read = |row: RunColumns| {
            let (member, version, stopped, heartbeat, clock_offset, devices, sessions, ..) = row;
            let left = row.7.zip(row.8);
            let left = left.map(|(tunnels, sessions)| DrainLeft { tunnels, sessions });
            let run = MemberRun {
                version,
                stopped: stopped.map(Timestamp),
                heartbeat: Timestamp(heartbeat),
                clock_offset,
                devices,
                sessions,
                left,
            };
            Some((MemberId(member.try_into().ok()?), run))
        };
        rows.into_iter()
            .map(|row| read(row).ok_or(CORRUPT))
            .collect()
    }

    /// Returns the tunnel keys of the members that live, as far as their heartbeats tell.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn living_members(
        &self,
        now: Timestamp,
    ) -> Result<HashSet<PublicKey>, StoreError> {
        let living = sql::query_scalar(LIVING).bind(now.before(RELAY_HEARTBEAT_STALE).0);
        let keys: Vec<Vec<u8>> = living.fetch_all(self.reads()).await?;
        let read = |key: Vec<u8>| Some(PublicKey(key.try_into().ok()?));
        keys.into_iter()
            .map(|key| read(key).ok_or(CORRUPT))
            .collect()
    }

    /// Returns whether the cluster has more than one relay: listings then say which.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn has_several_members(&self) -> Result<bool, StoreError> {
        sql::query_scalar(SEVERAL).fetch_one(self.reads()).await
    }

    /// Returns the names of the members to which the runs belong.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn names_of_runs(&self) -> Result<HashMap<RelayId, String>, StoreError> {
        let rows: Vec<(Vec<u8>, String)> = sql::query_as(OF_RUNS).fetch_all(self.reads()).await?;
        let read = |(id, name): (Vec<u8>, String)| Some((RelayId(id.try_into().ok()?), name));
        rows.into_iter()
            .map(|row| read(row).ok_or(CORRUPT))
            .collect()
    }

    /// Returns the names of the members at which devices have their tunnels.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn names_of_devices(&self) -> Result<HashMap<DeviceId, String>, StoreError> {
        let rows = sql::query_as(OF_DEVICES).fetch_all(self.reads());
        let rows: Vec<(Vec<u8>, String)> = rows.await?;
        let read = |(id, name): (Vec<u8>, String)| Some((DeviceId(id.try_into().ok()?), name));
        rows.into_iter()
            .map(|row| read(row).ok_or(CORRUPT))
            .collect()
    }
}

type RunColumns = (
    Vec<u8>,
    String,
    Option<i64>,
    i64,
    i64,
    i64,
    i64,
    Option<i64>,
    Option<i64>,
);
