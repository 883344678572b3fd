//! The whole policy at one version of access: what every decision is made on, read once per version and shared.
//!
//! A snapshot never changes. What depends on the time, such as a lock's expiry or a certificate's validity, is
//! judged when it is used.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use holdfast_protocol::ids::UserName;
use thiserror::Error;

use super::lock::Lock;
use super::presets;
use super::role::Role;
use super::user::{Prints, Subject, User};

/// Users, keys, roles, authorities, revocations and locks, all of one moment. Devices are not part of it: each
/// decision reads its device together with the version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicySnapshot {
    /// The version of access that this is.
    pub version: i64,
    /// Shared with the snapshot before if no user, role or authority changed.
    pub people: Arc<PolicyPeople>,
    /// Shared with the snapshot before if no revocation changed.
    pub revocations: Arc<Revocations>,
    /// All locks, oldest first; those that have expired may be among them.
    pub locks: Vec<Lock>,
}

/// Users with what proves them, their roles, and the authorities that are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PolicyPeople {
    /// The number that grows with each change of these.
    pub version: i64,
    /// Each user, with the names of the roles in order.
    pub users: HashMap<UserName, User>,
    /// The owner of each key, by `SHA256:…`.
    pub keys: HashMap<String, UserName>,
    /// The user whom each principal of certificates means.
    pub principals: HashMap<String, UserName>,
    /// The roles without the presets; `None`: the row cannot be read back.
    pub roles: HashMap<String, Option<Role>>,
    /// `SHA256:…` of the keys of the trusted authorities.
    pub authorities: HashSet<String>,
}

/// Keys and certificates that are revoked. An authority of `""` means whichever it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Revocations {
    /// The number that grows with each change of these.
    pub version: i64,
    /// `SHA256:…` or `SHA1:…` of keys.
    pub keys: HashSet<String>,
    /// Serial numbers, by authority.
    pub serials: HashMap<String, Vec<RangeInclusive<u64>>>,
    /// Key ids, by authority.
    pub key_ids: HashMap<String, HashSet<String>>,
}

/// A role of a user cannot be read back from the store, so nothing can be decided for that user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the database is damaged: a role cannot be read back; restore it from a backup")]
pub(crate) struct DamagedRole;

impl PolicySnapshot {
    /// Returns the owner of a key. The fingerprint is `SHA256:…`, as OpenSSH prints it.
    #[must_use]
    pub(crate) fn user_by_key(&self, fingerprint: &str) -> Option<&User> {
        self.user(self.people.keys.get(fingerprint)?)
    }

    /// Returns the user whom a certificate's principal means.
    #[must_use]
    pub(crate) fn user_by_principal(&self, principal: &str) -> Option<&User> {
        self.user(self.people.principals.get(principal)?)
    }

    /// Returns the user of that name.
    #[must_use]
    pub(crate) fn user(&self, name: &UserName) -> Option<&User> {
        self.people.users.get(name)
    }

    /// Returns a user with the roles that exist. Names of roles that do not exist stay in [`User::roles`] and mean
    /// nothing.
    ///
    /// # Errors
    /// [`DamagedRole`].
    pub(crate) fn subject(&self, name: &UserName) -> Result<Option<Subject>, DamagedRole> {
        let Some(user) = self.user(name) else {
            return Ok(None);
        };
        let mut roles = Vec::with_capacity(user.roles.len());
        for name in &user.roles {
            roles.extend(match self.people.roles.get(name) {
                Some(role) => Some(role.clone().ok_or(DamagedRole)?),
                None => presets::preset(name),
            });
        }
        let user = user.clone();
        Ok(Some(Subject {
            user,
            roles,
            elsewhere: None,
        }))
    }

    /// Returns whether any authority is trusted.
    #[must_use]
    pub(crate) fn has_authorities(&self) -> bool {
        !self.people.authorities.is_empty()
    }

    /// Returns whether the authority of that fingerprint is trusted.
    #[must_use]
    pub(crate) fn is_trusted(&self, fingerprint: &str) -> bool {
        self.people.authorities.contains(fingerprint)
    }

    /// Returns whether a key is revoked.
    #[must_use]
    pub(crate) fn is_key_revoked(&self, key: &Prints) -> bool {
        let revoked = &self.revocations.keys;
        revoked.contains(&key.sha256) || revoked.contains(&key.sha1)
    }

    /// Returns whether a certificate is revoked, apart from the keys in it. Serial number zero is none: an authority
    /// that does not number its certificates gives it to all of them.
    #[must_use]
    pub(crate) fn is_certificate_revoked(
        &self,
        authority: &str,
        serial: u64,
        key_id: &str,
    ) -> bool {
        let Revocations {
            serials, key_ids, ..
        } = &*self.revocations;
        [authority, ""].into_iter().any(|authority| {
            let ids = key_ids.get(authority);
            let mut ranges = serials.get(authority).into_iter().flatten();
            ids.is_some_and(|ids| ids.contains(key_id))
                || (serial != 0 && ranges.any(|range| range.contains(&serial)))
        })
    }
}
