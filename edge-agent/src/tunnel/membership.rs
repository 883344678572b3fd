//! The device's membership: its name, and the cluster that it pinned when it joined.

use holdfast_protocol::identity::roster::{Roster, RosterError, SignedRoster};
use holdfast_protocol::ids::{ClusterFingerprint, DeviceId, DeviceName, PublicKey};
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::os::state::{StateDir, StateDirError};
use crate::recording::RecordingDevice;

pub(crate) const FILE: &str = "membership";

/// Stored as postcard; new fields go to the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    id: DeviceId,
    name: DeviceName,
    cluster: PublicKey,
    roster: SignedRoster,
}

/// A device's membership, with the newest roster it has seen.
#[derive(Clone, Debug)]
pub struct Membership {
    stored: Stored,
    roster: Roster,
}

impl Membership {
    /// Takes part in a cluster: from here on, only rosters that this roster's cluster key signed count.
    ///
    /// # Errors
    /// [`RosterError`] if the roster does not hold.
    pub fn new(id: DeviceId, name: DeviceName, roster: SignedRoster) -> Result<Self, RosterError> {
        let opened = open_roster(&roster)?;
        let stored = Stored {
            id,
            name,
            cluster: opened.cluster,
            roster,
        };
        Ok(Self {
            stored,
            roster: opened,
        })
    }

    /// Loads the membership; `None` if the device has not joined yet.
    ///
    /// # Errors
    /// [`StateDirError`] if it is there but cannot be used.
    pub fn load(state: &StateDir) -> Result<Option<Self>, StateDirError> {
        let Some(bytes) = state.read(FILE)? else {
            return Ok(None);
        };
        let damaged = || StateDirError::Damaged {
            path: state.file(FILE),
            expected: "a membership",
        };
        let (stored, _): (Stored, _) = postcard::take_from_bytes(&bytes).map_err(|_| damaged())?;
        let roster = open_roster(&stored.roster).map_err(|_| damaged())?;
        if roster.cluster != stored.cluster {
            return Err(damaged());
        }
        Ok(Some(Self { stored, roster }))
    }

    /// Writes the membership.
    ///
    /// # Errors
    /// [`StateDirError`].
    pub fn save(&self, state: &StateDir) -> Result<(), StateDirError> {
        // Encoding into a growing vector fails only for types without a known length: not this one.
        let bytes = postcard::to_allocvec(&self.stored).unwrap_or_default();
        state.write(FILE, &bytes)
    }

    /// Takes a newer roster, if it is of the pinned cluster and really newer; says whether it was.
    pub fn update_roster(&mut self, newer: &SignedRoster) -> bool {
        match open_roster(newer) {
            Ok(roster)
                if roster.cluster == self.stored.cluster && roster.epoch > self.roster.epoch =>
            {
                self.stored.roster = newer.clone();
                self.roster = roster;
                true
            }
            _ => false,
        }
    }

    /// Takes the roster of another record of the same membership, if it is newer; says whether it was.
    pub(crate) fn take_newer(&mut self, other: &Self) -> bool {
        self.update_roster(&other.stored.roster)
    }

    /// Takes the name that an admin gave the device; says whether it was another one before.
    pub fn update_name(&mut self, name: &DeviceName) -> bool {
        let changed = self.stored.name != *name;
        self.stored.name = name.clone();
        changed
    }

    /// Returns the device's identifier.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.stored.id
    }

    /// Returns the device's name.
    #[must_use]
    pub fn name(&self) -> &DeviceName {
        &self.stored.name
    }

    /// Returns the newest roster.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }
}

impl From<&Membership> for RecordingDevice {
    fn from(membership: &Membership) -> Self {
        Self {
            id: membership.id(),
            name: membership.name().clone(),
            key: membership.roster().recording,
        }
    }
}

/// Opens a roster if its own cluster key signed it.
///
/// # Errors
/// [`RosterError`].
pub fn open_roster(roster: &SignedRoster) -> Result<Roster, RosterError> {
    roster.open(|key, bytes, signature| {
        UnparsedPublicKey::new(&ED25519, key.0)
            .verify(bytes, signature)
            .is_ok()
    })
}

/// Returns the fingerprint of a cluster key, as tokens carry it.
#[must_use]
pub fn fingerprint(cluster: &PublicKey) -> ClusterFingerprint {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, &cluster.0).as_ref());
    ClusterFingerprint(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_protocol::identity::roster::RelayEntry;
    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    fn cluster() -> Ed25519KeyPair {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap()
    }

    fn roster(key: &Ed25519KeyPair, epoch: u64) -> SignedRoster {
        let cluster = PublicKey(key.public_key().as_ref().try_into().unwrap());
        let relays = vec![RelayEntry {
            address: "relay:4433".into(),
            key: PublicKey([1; 32]),
        }];
        Roster {
            cluster,
            epoch,
            relays,
            recording: None,
        }
        .seal(|bytes| key.sign(bytes).as_ref().try_into().unwrap())
    }

    #[test]
    fn only_newer_rosters_of_the_pinned_cluster_count() {
        let (ours, theirs) = (cluster(), cluster());
        let name = DeviceName::new("cam").unwrap();
        let mut member = Membership::new(DeviceId([1; 16]), name, roster(&ours, 5)).unwrap();
        assert!(!member.update_roster(&roster(&ours, 5)), "the same epoch");
        assert!(!member.update_roster(&roster(&ours, 4)), "an older epoch");
        assert!(
            !member.update_roster(&roster(&theirs, 9)),
            "another cluster"
        );
        let mut forged = roster(&ours, 9);
        forged.signature[3] ^= 1;
        assert!(!member.update_roster(&forged), "a forged signature");
        assert!(member.update_roster(&roster(&ours, 6)));
    }

    #[test]
    fn a_membership_outlives_a_restart_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create_or_open(dir.path()).unwrap();
        assert!(Membership::load(&state).unwrap().is_none());
        let name = DeviceName::new("cam").unwrap();
        let member = Membership::new(DeviceId([1; 16]), name, roster(&cluster(), 1)).unwrap();
        member.save(&state).unwrap();
        let loaded = Membership::load(&state).unwrap().unwrap();
        assert_eq!(loaded.roster(), member.roster());
        state.write(FILE, b"zzz").unwrap();
        assert!(matches!(
            Membership::load(&state),
            Err(StateDirError::Damaged { .. })
        ));
    }
}
