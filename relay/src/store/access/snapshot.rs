//! The policy snapshot of this process: read once per version of access, and shared.
//!
//! A caller that must not decide on anything old reads the version first ([`Store::policy`]). That one SELECT is what
//! a feed of changes replaces where the database has one (`LISTEN` in Postgres): the callers stay as they are.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::locks;
use super::revocations::{self, RevokedThing};
use super::roles::role_of;
use super::users::{self, Head};
use crate::clock;
use crate::model::snapshot::{DamagedRole, PolicyPeople, PolicySnapshot, Revocations};
use crate::store::backend::connection::StoreConnection;
use crate::store::backend::sql;
use crate::store::{Store, StoreError, meta};
use crate::sync::Mutex;

/// The newest snapshot that this process has read. Cloning it is cheap and shares it.
#[derive(Clone, Default)]
pub(crate) struct PolicyCache(Arc<Inner>);

#[derive(Default)]
struct Inner {
    newest: Mutex<Option<Kept>>,
    /// Held while a snapshot is read, so that many callers at a new version read it once.
    loading: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Kept {
    snapshot: Arc<PolicySnapshot>,
    /// The time when the version in the store was last seen to be this one.
    verified: Instant,
}

const USERS: &str = "SELECT id, name, disabled, email FROM users";
const USER_ROLES: &str = "SELECT user_name, role FROM user_roles ORDER BY role";
const KEYS: &str = "SELECT fingerprint, user_name FROM user_keys";
const PRINCIPALS: &str = "SELECT principal, user_name FROM user_principals";
const ROLES: &str = "SELECT name, body FROM roles";
const AUTHORITIES: &str = "SELECT fingerprint FROM authorities";

impl Store {
    /// Returns the policy as it is now: the version is read, and the snapshot only if the version is new here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn policy(&self) -> Result<Arc<PolicySnapshot>, StoreError> {
        let asked = clock::instant();
        let version = self.access_version().await?;
        self.policy_since(version, asked).await
    }

    /// Returns a policy that is at least as new as `version`, which was read from the store no earlier than `asked`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn policy_since(
        &self,
        version: i64,
        asked: Instant,
    ) -> Result<Arc<PolicySnapshot>, StoreError> {
        if let Some(found) = self.policy.verified(version, asked) {
            return Ok(found);
        }
        let _turn = self.policy.0.loading.lock().await;
        if let Some(found) = self.policy.verified(version, asked) {
            return Ok(found);
        }
        let before = self.policy.newest();
        let asked = clock::instant();
        let snapshot = Arc::new(self.load(before.as_deref()).await?);
        self.policy.put(snapshot.clone(), asked);
        Ok(snapshot)
    }

    /// Returns the newest policy that this process has read, if its version was the store's at most `age` ago;
    /// otherwise the version is read again. A change may have been made since: this is for what the enforcement of that
    /// change looks at again, because it is in its reach already.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn policy_within(
        &self,
        age: Duration,
    ) -> Result<Arc<PolicySnapshot>, StoreError> {
        let kept = self.policy.lock().clone();
        match kept.filter(|kept| kept.verified.elapsed() <= age) {
            Some(kept) => Ok(kept.snapshot),
            None => self.policy().await,
        }
    }

    /// Returns the newest policy that this process has read, however old it is: for what is decided again before
    /// anything follows from it.
    #[must_use]
    pub(crate) fn newest_policy(&self) -> Option<Arc<PolicySnapshot>> {
        self.policy.newest()
    }

    /// Reads a snapshot in one transaction, and of the one before takes the parts that are the same.
    async fn load(&self, before: Option<&PolicySnapshot>) -> Result<PolicySnapshot, StoreError> {
        let mut read = self.reads().snapshot().await?;
        let versions = meta::policy_versions(&mut read).await?;
        let people = match before {
            Some(before) if before.people.version == versions.people => before.people.clone(),
            _ => {
                self.count_selects(6);
                Arc::new(people(&mut read, versions.people).await?)
            }
        };
        let revocations = match before {
            Some(before) if before.revocations.version == versions.revocations => {
                before.revocations.clone()
            }
            _ => {
                self.count_selects(1);
                Arc::new(revocations(&mut read, versions.revocations).await?)
            }
        };
        self.count_selects(1);
        Ok(PolicySnapshot {
            version: versions.access,
            people,
            revocations,
            locks: locks::all(&mut read).await?,
        })
    }
}

impl PolicyCache {
    /// Returns the newest snapshot if it is as new as this version, and notes when the store had that version.
    fn verified(&self, version: i64, asked: Instant) -> Option<Arc<PolicySnapshot>> {
        let mut newest = self.lock();
        let kept = newest.as_mut()?;
        if kept.snapshot.version < version {
            return None;
        }
        if kept.snapshot.version == version {
            kept.verified = kept.verified.max(asked);
        }
        Some(kept.snapshot.clone())
    }

    fn newest(&self) -> Option<Arc<PolicySnapshot>> {
        self.lock().as_ref().map(|kept| kept.snapshot.clone())
    }

    fn put(&self, snapshot: Arc<PolicySnapshot>, verified: Instant) {
        *self.lock() = Some(Kept { snapshot, verified });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Kept>> {
        self.0.newest.lock()
    }
}

impl From<DamagedRole> for StoreError {
    fn from(DamagedRole: DamagedRole) -> Self {
        Self::Corrupt("a role")
    }
}

async fn people(read: &mut StoreConnection, version: i64) -> Result<PolicyPeople, StoreError> {
    let heads: Vec<Head> = sql::query_as(USERS).fetch_all(&mut *read).await?;
    let rows: Vec<(String, String)> = sql::query_as(USER_ROLES).fetch_all(&mut *read).await?;
    let mut of_user: HashMap<String, Vec<String>> = HashMap::new();
    for (user, role) in rows {
        of_user.entry(user).or_default().push(role);
    }
    let user = |head: Head| {
        let roles = of_user.remove(&head.1).unwrap_or_default();
        // A name that cannot be read back is the name of a user who cannot log in.
        users::user(head, roles)
            .ok()
            .map(|user| (user.name.clone(), user))
    };
    let users: HashMap<_, _> = heads.into_iter().filter_map(user).collect();
    let owned = |rows: Vec<(String, String)>| {
        let owner = |(thing, owner): (String, String)| Some((thing, owner.parse().ok()?));
        rows.into_iter().filter_map(owner).collect()
    };
    let keys = sql::query_as(KEYS).fetch_all(&mut *read).await?;
    let principals = sql::query_as(PRINCIPALS).fetch_all(&mut *read).await?;
    let roles: Vec<(String, String)> = sql::query_as(ROLES).fetch_all(&mut *read).await?;
    let role = |(name, body): (String, String)| {
        let role = role_of(&name, &body).ok();
        (name, role)
    };
    let authorities: Vec<String> = sql::query_scalar(AUTHORITIES).fetch_all(read).await?;
    Ok(PolicyPeople {
        version,
        users,
        keys: owned(keys),
        principals: owned(principals),
        roles: roles.into_iter().map(role).collect(),
        authorities: authorities.into_iter().collect::<HashSet<_>>(),
    })
}

async fn revocations(read: &mut StoreConnection, version: i64) -> Result<Revocations, StoreError> {
    let mut all = Revocations {
        version,
        ..Revocations::default()
    };
    for revocation in revocations::all(read).await? {
        match revocation.thing {
            RevokedThing::Key(fingerprint) => {
                all.keys.insert(fingerprint);
            }
            RevokedThing::Serials { authority, serials } => {
                let authority = authority.unwrap_or_default();
                all.serials.entry(authority).or_default().push(serials);
            }
            RevokedThing::KeyId { authority, id } => {
                let authority = authority.unwrap_or_default();
                all.key_ids.entry(authority).or_default().insert(id);
            }
        }
    }
    Ok(all)
}
