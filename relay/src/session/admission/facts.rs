//! Loads the facts that decisions need from the store, and keeps those that hold for one connection.

use std::sync::Arc;

use holdfast_protocol::ids::{DeviceId, DeviceName, Login};
use tokio::time::timeout;
use tracing::error;

use crate::access::policy::{Subject, Terms};
use crate::clock::{self, Timestamp};
use crate::limits::STORE_TIMEOUT;
use crate::model::lock::{self, LockSubject};
use crate::model::snapshot::PolicySnapshot;
use crate::session::Sessions;
use crate::session::client::Client;
use crate::session::limits::DECISION_FRESH;
use crate::session::refusal::Refusal;
use crate::store::{Device, StoreError, User};

/// The facts for a decision: the device as it was at `version`, and the policy of that version or a newer one.
pub(crate) struct AccessFacts {
    pub(crate) version: i64,
    pub(crate) subject: Subject,
    pub(crate) policy: Arc<PolicySnapshot>,
    pub(crate) device: Option<Device>,
    pub(crate) now: Timestamp,
}

/// The device that is looked up.
#[derive(Clone, Copy)]
pub(crate) enum DeviceLookup<'a> {
    None,
    Named(&'a DeviceName),
    Known(DeviceId),
}

impl Sessions {
    /// Reads the version and the device in one SELECT, and the policy only if that version is new here.
    pub(crate) async fn load_facts(
        &self,
        user: &User,
        which: DeviceLookup<'_>,
    ) -> Result<AccessFacts, Refusal> {
        let now = Timestamp::now();
        let (version, policy, device) = self
            .in_time(async {
                let (asked, store) = (clock::instant(), &self.store);
                let (version, device) = match which {
                    DeviceLookup::None => (store.access_version().await?, None),
                    DeviceLookup::Named(name) => store.device_named_at_version(name).await?,
                    DeviceLookup::Known(id) => store.device_at_version(id).await?,
                };
                let policy = store.policy_since(version, asked).await?;
                Ok((version, policy, device))
            })
            .await?;
        AccessFacts::of(user, version, policy, device, now)
    }

    /// Returns what the policy says that was read last, if that was a moment ago: for a connection that enforcement of
    /// a newer policy finds already.
    pub(crate) async fn recent_facts(&self, user: &User) -> Result<AccessFacts, Refusal> {
        let now = Timestamp::now();
        let policy = self
            .in_time(self.store.policy_within(DECISION_FRESH))
            .await?;
        AccessFacts::of(user, policy.version, policy, None, now)
    }

    /// Returns what the store answers, if it does so in time; if not, a sentence for the operator.
    pub(crate) async fn in_time<T>(
        &self,
        look: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Refusal> {
        match timeout(STORE_TIMEOUT, look).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => error!(%error, "the store cannot look up what a decision needs"),
            Err(_) => error!("the store does not answer"),
        }
        Err(Refusal::Store)
    }
}

impl AccessFacts {
    fn of(
        user: &User,
        version: i64,
        policy: Arc<PolicySnapshot>,
        device: Option<Device>,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let subject = policy.subject(&user.name).map_err(|damaged| {
            error!(%damaged, user = %user.name, "the policy cannot be read");
            Refusal::Store
        })?;
        Ok(Self {
            version,
            // Another user who has the name now is not this one.
            subject: subject
                .filter(|subject| subject.user.id == user.id)
                .ok_or_else(|| Refusal::UserRemoved(user.name.clone()))?,
            policy,
            device,
            now,
        })
    }

    /// Returns the terms that hold where the client is.
    pub(crate) fn terms(&self, client: &Client) -> Terms {
        self.subject.is_from(client.address.ip()).terms()
    }

    /// Checks whether a lock is in the way, as far as it is asked for.
    pub(crate) fn check_locks(
        &self,
        client: &Client,
        device: Option<DeviceId>,
        login: Option<&Login>,
    ) -> Result<(), Refusal> {
        let lock_subject = LockSubject {
            user: &self.subject.user.name,
            roles: &self.subject.user.roles,
            client: client.address.ip(),
            device,
            login,
        };
        match lock::first_match(&self.policy.locks, &lock_subject, self.now) {
            Some(lock) => Err(Refusal::Locked(Box::new(lock.clone()))),
            None => Ok(()),
        }
    }
}
