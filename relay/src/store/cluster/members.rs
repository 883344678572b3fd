//! The relays of a cluster, and which of them has the tunnel of a device.

use std::fmt;
use std::net::SocketAddr;

use holdfast_protocol::ids::{DeviceId, Generation, PublicKey};

use crate::clock::Timestamp;
use crate::state::MemberId;
use crate::store::backend::connection::StatementTarget;
use crate::store::backend::sql;
use crate::store::limits::MAX_MEMBERS;
use crate::store::meta::{self, AccessPart};
use crate::store::{RelayId, Store, StoreError, Tx};

macro_rules! select_member {
    ($tail:literal) => {
        concat!(
            "SELECT id, name, tunnel_key, public, tunnel_address, ssh_address, bound_ssh, added, state,
            drain_until FROM members ",
            $tail
        )
    };
}

const ALL: &str = select_member!("ORDER BY added, id");
const BY_ID: &str = select_member!("WHERE id = $1");
const BY_KEY: &str = select_member!("WHERE tunnel_key = $1");
const INSERT: &str = "INSERT INTO members (id, name, tunnel_key, public, added)
    VALUES ($1, $2, $3, $4, $5)";
const SERVES: &str = "UPDATE members SET name = $2, tunnel_key = $3, tunnel_address = $4,
        ssh_address = $5, bound_ssh = $6, state = 'active', drain_until = NULL WHERE id = $1";
const LAST_RUNS: &str = "SELECT id FROM relays WHERE member = $1 AND stopped IS NULL";
const PUBLIC: &str = "UPDATE members SET public = $2 WHERE id = $1";
const STATE: &str = "UPDATE members SET state = $2 WHERE id = $1 AND state <> 'removed'";
// A run lives until it is noted that it ended: a heartbeat that is late, as all are where the store was away, ends none.
const LOCATE: &str = "SELECT t.relay, t.generation, m.id, m.name, m.tunnel_key, m.tunnel_address
    FROM tunnels t JOIN relays r ON r.id = t.relay JOIN members m ON m.id = r.member
    WHERE t.device = $1 AND t.closed IS NULL AND r.stopped IS NULL AND m.state <> 'removed'
        AND m.tunnel_address IS NOT NULL";

/// The state of a member, as its administrators set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// It serves.
    Active,
    /// It takes no new logins.
    Draining,
    /// It has left.
    Removed,
}

impl MemberState {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Active, Self::Draining, Self::Removed];

    /// Returns its word.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Removed => "removed",
        }
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Member {
    /// Returns whether it has not left.
    #[must_use]
    pub(crate) fn is_present(&self) -> bool {
        self.state != MemberState::Removed
    }

    /// Returns when it closes the sessions that are left, if it drains.
    #[must_use]
    pub(crate) fn drains_until(&self) -> Option<Timestamp> {
        let drains = self.state == MemberState::Draining;
        self.drain_until.filter(|_| drains)
    }
}

/// A relay of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its identifier.
    pub id: MemberId,
    /// Its name, which no other member has.
    pub name: String,
    /// The key by which devices and the other members know it.
    pub tunnel_key: PublicKey,
    /// The `HOST[:PORT]` that its administrator gave it when it joined.
    pub public: Option<String>,
    /// The `host:port` that devices and the other members dial; `None`: it has never served.
    pub tunnel_address: Option<String>,
    /// The `host:port` that operators dial, which several members may have.
    pub ssh_address: Option<String>,
    /// The address that it listens on for operators.
    pub bound_ssh: Option<SocketAddr>,
    /// The time at which it joined.
    pub added: Timestamp,
    /// Its state.
    pub state: MemberState,
    /// The time at which it closes the sessions that are left, if it drains.
    pub drain_until: Option<Timestamp>,
}

/// The place of the tunnel of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    /// The run that has it.
    pub run: RelayId,
    /// The member whose run that is.
    pub member: MemberId,
    /// The member's name.
    pub name: String,
    /// The member's key.
    pub tunnel_key: PublicKey,
    /// The `host:port` that the member is dialled at.
    pub tunnel_address: String,
    /// The generation of the tunnel.
    pub generation: Generation,
}

/// The facts about a member that begins to serve.
#[derive(Clone, Debug)]
pub(crate) struct ServingMember {
    /// Its identifier.
    pub id: MemberId,
    /// Its key.
    pub tunnel_key: PublicKey,
    /// The `host:port` that devices dial.
    pub tunnel_address: String,
    /// The `host:port` that operators dial, which several members may have.
    pub ssh_address: String,
    /// The address that it listens on for operators.
    pub bound_ssh: SocketAddr,
}

impl Store {
    /// Returns the `host:port` at which devices dial a member; that of the relay which served last, if it never has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tunnel_address(&self, id: MemberId) -> Result<Option<String>, StoreError> {
        match self.member(id).await?.and_then(|it| it.tunnel_address) {
            Some(own) => Ok(Some(own)),
            None => self.meta_get(meta::PUBLIC_TUNNEL).await,
        }
    }

    /// Returns the `host:port` at which operators dial a member; that of the relay which served last, if it never has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn ssh_address(&self, id: MemberId) -> Result<Option<String>, StoreError> {
        match self.member(id).await?.and_then(|it| it.ssh_address) {
            Some(own) => Ok(Some(own)),
            None => self.meta_get(meta::PUBLIC_SSH).await,
        }
    }

    /// Returns where the tunnel of a device is, if a run that lives has it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn locate(&self, device: DeviceId) -> Result<Option<Located>, StoreError> {
        let row = sql::query_as(LOCATE).bind(device.0.as_slice());
        let row: Option<LocatedColumns> = row.fetch_optional(self.reads()).await?;
        let read = |(run, generation, id, name, key, address): LocatedColumns| {
            Some(Located {
                run: RelayId(run.try_into().ok()?),
                member: MemberId(id.try_into().ok()?),
                name,
                tunnel_key: PublicKey(key.try_into().ok()?),
                tunnel_address: address,
                generation: Generation(u64::try_from(generation).ok()?),
            })
        };
        row.map(|row| read(row).ok_or(CORRUPT)).transpose()
    }

    /// Returns all members, in the order in which they joined, also those that have left.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn members(&self) -> Result<Vec<Member>, StoreError> {
        let rows: Vec<Row> = sql::query_as(ALL).fetch_all(self.reads()).await?;
        rows.into_iter().map(Row::read).collect()
    }

    /// Returns a member, also one that has left.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn member(&self, id: MemberId) -> Result<Option<Member>, StoreError> {
        by_id(id, self.reads()).await
    }

    /// Returns the member with a key, also one that has left.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn member_by_key(
        &self,
        key: &PublicKey,
    ) -> Result<Option<Member>, StoreError> {
        let row = sql::query_as(BY_KEY).bind(key.0.as_slice());
        let row: Option<Row> = row.fetch_optional(self.reads()).await?;
        row.map(Row::read).transpose()
    }
}

impl Tx {
    /// Returns all members, also those that have left.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn members(&mut self) -> Result<Vec<Member>, StoreError> {
        let rows: Vec<Row> = sql::query_as(ALL)
            .fetch_all(&mut *self.connection().await?)
            .await?;
        rows.into_iter().map(Row::read).collect()
    }

    /// Adds a member, whose name is the host or begins with it. Returns the name.
    ///
    /// # Errors
    /// [`StoreError::ClusterFull`].
    pub(crate) async fn add_member(
        &mut self,
        id: MemberId,
        tunnel_key: PublicKey,
        host: &str,
        public: Option<&str>,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let members = self.members().await?;
        let taken: Vec<&str> = present(&members).map(|member| &*member.name).collect();
        if taken.len() >= MAX_MEMBERS {
            return Err(StoreError::ClusterFull);
        }
        let name = free_name(host, &taken);
        let insert = sql::query(INSERT).bind(id.0.as_slice()).bind(&name);
        let insert = insert.bind(tunnel_key.0.as_slice()).bind(public);
        let insert = insert.bind(now.0);
        insert.execute(&mut *self.connection().await?).await?;
        self.access_changed(AccessPart::Other).await?;
        Ok(name)
    }

    /// Notes that a member begins to serve: the first of all is added by that. Returns its name. That of a relay which is
    /// alone follows its address.
    ///
    /// # Errors
    /// [`StoreError::NotMember`]; [`StoreError::MemberLeft`]; [`StoreError::AddressTaken`].
    pub(crate) async fn member_serves(
        &mut self,
        serving: &ServingMember,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let ServingMember { id, tunnel_key, .. } = serving;
        let host = host_of(&serving.tunnel_address);
        let members = self.members().await?;
        let known = members.iter().find(|member| member.id == *id);
        let name = match known {
            None if members.is_empty() && *id == MemberId::FIRST => {
                self.add_member(*id, *tunnel_key, host, None, now).await?
            }
            None => return Err(StoreError::NotMember),
            Some(left) if left.state == MemberState::Removed => {
                return Err(StoreError::MemberLeft(left.name.clone()));
            }
            Some(_) if present(&members).count() == 1 => host.to_owned(),
            Some(known) => known.name.clone(),
        };
        let same = |other: &&Member| {
            other.id != *id && other.tunnel_address.as_ref() == Some(&serving.tunnel_address)
        };
        if let Some(other) = present(&members).find(same) {
            return Err(StoreError::AddressTaken {
                address: serving.tunnel_address.clone(),
                other: other.name.clone(),
            });
        }
        let serves = sql::query(SERVES).bind(id.0.as_slice()).bind(&name);
        serves
            .bind(tunnel_key.0.as_slice())
            .bind(&serving.tunnel_address)
            .bind(&serving.ssh_address)
            .bind(serving.bound_ssh.to_string())
            .execute(&mut *self.connection().await?)
            .await?;
        let address = known.and_then(|known| known.tunnel_address.as_ref());
        let is_known = address == Some(&serving.tunnel_address)
            && known.is_some_and(|known| known.tunnel_key == *tunnel_key);
        if !is_known {
            // The others give their devices a new roster.
            self.access_changed(AccessPart::Other).await?;
        }
        Ok(name)
    }

    /// Removes a member from the cluster: its run ends with all that it has. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn remove_member(
        &mut self,
        id: MemberId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        if !self.set_member_state(id, MemberState::Removed).await? {
            return Ok(false);
        }
        let runs = sql::query_scalar(LAST_RUNS).bind(id.0.as_slice());
        let runs: Vec<Vec<u8>> = runs.fetch_all(&mut *self.connection().await?).await?;
        for run in runs {
            let run = run.try_into().map(RelayId).map_err(|_| CORRUPT)?;
            self.relay_stopped(run, now).await?;
        }
        self.access_changed(AccessPart::Other).await?;
        Ok(true)
    }

    /// Notes what the administrator of a relay that joins calls it now.
    pub(in crate::store) async fn set_member_public(
        &mut self,
        id: MemberId,
        public: &str,
    ) -> Result<(), StoreError> {
        let set = sql::query(PUBLIC).bind(id.0.as_slice()).bind(public);
        set.execute(&mut *self.connection().await?).await?;
        Ok(())
    }

    /// Notes a new state of a member that has not left; says whether there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn set_member_state(
        &mut self,
        id: MemberId,
        state: MemberState,
    ) -> Result<bool, StoreError> {
        let set = sql::query(STATE).bind(id.0.as_slice()).bind(state.as_str());
        let set = set.execute(&mut *self.connection().await?).await?;
        Ok(set.rows_affected() > 0)
    }
}

/// Returns those that have not left.
pub(crate) fn present(members: &[Member]) -> impl Iterator<Item = &Member> {
    members.iter().filter(|member| member.is_present())
}

/// Returns the host of a `host:port`, without brackets.
pub(crate) fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_matches(['[', ']'])
}

/// Returns a name that is not taken: the host, or the host with a number.
fn free_name(host: &str, taken: &[&str]) -> String {
    let numbered = (2..).map(|number| format!("{host}-{number}"));
    let mut names = std::iter::once(host.to_owned()).chain(numbered);
    let free = names.find(|name| !taken.contains(&name.as_str()));
    free.unwrap_or_default()
}

async fn by_id<'c>(
    id: MemberId,
    on: impl Into<StatementTarget<'c>>,
) -> Result<Option<Member>, StoreError> {
    let row = sql::query_as(BY_ID).bind(id.0.as_slice());
    let row: Option<Row> = row.fetch_optional(on).await?;
    row.map(Row::read).transpose()
}

pub(super) const CORRUPT: StoreError = StoreError::Corrupt("a member");

type LocatedColumns = (Vec<u8>, i64, Vec<u8>, String, Vec<u8>, String);

#[derive(sqlx::FromRow)]
struct Row {
    id: Vec<u8>,
    name: String,
    tunnel_key: Vec<u8>,
    public: Option<String>,
    tunnel_address: Option<String>,
    ssh_address: Option<String>,
    bound_ssh: Option<String>,
    added: i64,
    state: String,
    drain_until: Option<i64>,
}

impl Row {
    fn read(self) -> Result<Member, StoreError> {
        self.try_read().ok_or(CORRUPT)
    }

    fn try_read(self) -> Option<Member> {
        let mut states = MemberState::ALL.into_iter();
        Some(Member {
            id: MemberId(self.id.try_into().ok()?),
            name: self.name,
            tunnel_key: PublicKey(self.tunnel_key.try_into().ok()?),
            public: self.public,
            tunnel_address: self.tunnel_address,
            ssh_address: self.ssh_address,
            bound_ssh: match self.bound_ssh {
                Some(bound) => Some(bound.parse().ok()?),
                None => None,
            },
            added: Timestamp(self.added),
            state: states.find(|state| state.as_str() == self.state)?,
            drain_until: self.drain_until.map(Timestamp),
        })
    }
}
