//! Single facts: what the relay is called outside, the roster's epoch, whose database this is.

use crate::store::backend::BOUND_CLUSTER;
use crate::store::backend::connection::StoreConnection;
use crate::store::backend::sql;
use holdfast_protocol::ids::{ClusterFingerprint, PublicKey};

use super::{MemberId, Store, StoreError, Tx};

/// The `host:port` that devices dial; written by a relay when it starts to serve.
pub(crate) const PUBLIC_TUNNEL: &str = "public_tunnel";
/// The roster's epoch, the relays in it and the name of the recordings' key, apart by spaces; written by a relay when
/// it starts, and when the members change.
pub(crate) const ROSTER: &str = "roster";
/// The `host:port` that operators dial.
pub(crate) const PUBLIC_SSH: &str = "public_ssh";
/// The `ip:port` of a relay's health checks, empty without any; written by a relay when it starts to serve. One
/// [`of_member`].
pub(crate) const BOUND_HEALTH: &str = "bound_health";
/// The key of the recordings' storage, as JSON without anything secret; written by a relay when it starts.
pub(crate) const RECORDINGS: &str = "recordings";
/// The key of the recordings' bounds, as JSON; written by a relay when it starts.
pub(crate) const RECORDING_BOUNDS: &str = "recording_bounds";
/// Not empty if a relay writes the audit log to a file, too; written by a relay when it starts to serve. One
/// [`of_member`].
pub(crate) const AUDIT_FILE: &str = "audit_file";
/// The settings that all relays of a cluster have to have alike, as JSON; written by a relay when it starts to serve. One
/// [`of_member`].
pub(crate) const SETTINGS: &str = "settings";
/// The configuration file of a relay, if it has the database's password and other accounts can read it; written by a
/// relay when it starts to serve. One [`of_member`].
pub(crate) const EXPOSED: &str = "exposed";
/// The reason why a serving relay cannot write the audit log; empty if it can. One [`of_member`].
pub(crate) const AUDIT_FAULT: &str = "audit_fault";
/// The remedy for that, if it names one. One [`of_member`].
pub(crate) const AUDIT_REMEDY: &str = "audit_remedy";
/// The name of the cluster's key among the fingerprints.
const CLUSTER_KEY: &str = "cluster.key";

pub(super) const GET: &str = "SELECT value FROM meta WHERE key = $1";
pub(super) const SET: &str = "INSERT INTO meta (key, value) VALUES ($1, $2)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const BUMP: &str = "INSERT INTO meta (key, value) VALUES ($1, '1')
    ON CONFLICT (key) DO UPDATE SET value = CAST(CAST(meta.value AS BIGINT) + 1 AS TEXT)";
const VERSIONS: &str = "SELECT key, CAST(value AS BIGINT) FROM meta
    WHERE key IN ('access_version', 'people_version', 'revocations_version')";
const ACCESS_VERSION: &str = "SELECT CAST(value AS BIGINT) FROM meta WHERE key = 'access_version'";

/// Returns the name of a fact that each member has of its own. That of the first one is as it was before there were
/// others.
#[must_use]
pub(crate) fn of_member(key: &str, member: MemberId) -> String {
    match member {
        MemberId::FIRST => key.to_owned(),
        member => format!("{key}@{member}"),
    }
}

impl Store {
    /// Returns whether it is the database of the cluster with this fingerprint.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn is_of_cluster(
        &self,
        fingerprint: &ClusterFingerprint,
    ) -> Result<bool, StoreError> {
        let noted = self.meta_get(&format!("key:{CLUSTER_KEY}")).await?;
        Ok(noted.is_some_and(|noted| noted == fingerprint.to_string()))
    }

    /// Returns the fact under `key`, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn meta_get(&self, key: &str) -> Result<Option<String>, StoreError> {
        let value = sql::query_scalar(GET).bind(key);
        value.fetch_optional(self.reads()).await
    }

    /// Grows with each change that an admin command makes to users, keys, roles and devices, and with
    /// nothing else: what a relay looks at before it checks its live connections again.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn access_version(&self) -> Result<i64, StoreError> {
        let version = sql::query_scalar(ACCESS_VERSION);
        version.fetch_one(self.reads()).await
    }
}

impl Tx {
    /// Notes a fact.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn meta_set(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        let set = sql::query(SET).bind(key).bind(value);
        set.execute(&mut *self.connection().await?).await?;
        Ok(())
    }

    /// Returns the epoch of a roster with these facts: that of the last one, if they are the same, or else the next.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn roster_epoch(&mut self, facts: &str) -> Result<u64, StoreError> {
        let known = fact(&mut *self.connection().await?, ROSTER).await?;
        let known = known.unwrap_or_default();
        let (epoch, known_facts) = known.split_once(' ').unwrap_or(("0", ""));
        let epoch: u64 = epoch
            .parse()
            .map_err(|_| StoreError::Corrupt("the roster's epoch"))?;
        if known_facts == facts {
            return Ok(epoch);
        }
        let next = epoch.saturating_add(1);
        self.meta_set(ROSTER, &format!("{next} {facts}")).await?;
        Ok(next)
    }

    /// Ties the database to the cluster's key at the first start, and refuses any other key later: a
    /// folder whose files were mixed up must not hand one fleet's devices to another.
    ///
    /// # Errors
    /// [`StoreError::OtherCluster`].
    pub(crate) async fn bind_cluster(&mut self, cluster: &PublicKey) -> Result<(), StoreError> {
        let key = cluster.to_string();
        let bound = fact(&mut *self.connection().await?, BOUND_CLUSTER).await?;
        match bound {
            None => self.meta_set(BOUND_CLUSTER, &key).await,
            Some(bound) if bound == key => Ok(()),
            Some(_) => Err(StoreError::OtherCluster),
        }
    }

    /// Notes a change of who may do what, in the transaction of the change.
    pub(super) async fn access_changed(&mut self, part: AccessPart) -> Result<(), StoreError> {
        let part = match part {
            AccessPart::People => Some("people_version"),
            AccessPart::Revocations => Some("revocations_version"),
            AccessPart::Other => None,
        };
        for key in ["access_version"].into_iter().chain(part) {
            let bump = sql::query(BUMP).bind(key);
            bump.execute(&mut *self.connection().await?).await?;
        }
        Ok(())
    }
}

/// Reads the fact under `key`, inside a transaction.
pub(super) async fn fact(
    read: &mut StoreConnection,
    key: &str,
) -> Result<Option<String>, StoreError> {
    let value = sql::query_scalar(GET).bind(key);
    value.fetch_optional(read).await
}

/// The part of the access data that a change affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccessPart {
    /// Users, keys, principals, roles, or the trusted authorities.
    People,
    /// Revoked keys and certificates.
    Revocations,
    /// Locks, devices, or sessions that are to end: read anew at each version.
    Other,
}

/// The numbers that grow with each change of access, and of its large parts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PolicyVersions {
    pub(super) access: i64,
    pub(super) people: i64,
    pub(super) revocations: i64,
}

/// Reads the versions of the policy and of its parts; a part that never changed has version 0.
pub(super) async fn policy_versions(
    read: &mut StoreConnection,
) -> Result<PolicyVersions, StoreError> {
    let rows: Vec<(String, i64)> = sql::query_as(VERSIONS).fetch_all(read).await?;
    let mut versions = PolicyVersions::default();
    for (key, value) in rows {
        match key.as_str() {
            "access_version" => versions.access = value,
            "people_version" => versions.people = value,
            _ => versions.revocations = value,
        }
    }
    Ok(versions)
}
