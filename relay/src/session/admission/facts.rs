//! What the store says when something is decided, and what of it holds for one connection.

use holdfast_protocol::ids::{DeviceId, DeviceName, Login};
use tokio::time::timeout;
use tracing::error;

use crate::access::policy::{Subject, Terms};
use crate::clock::Timestamp;
use crate::limits::STORE_TIMEOUT;
use crate::model::lock::{self, Lock, LockSubject};
use crate::session::Sessions;
use crate::session::client::Client;
use crate::session::refusal::Refusal;
use crate::store::{Device, StoreError, User};

/// The answer of the store, all of it read after `version` was.
pub(crate) struct AccessFacts {
    pub(crate) version: i64,
    pub(crate) subject: Subject,
    pub(crate) locks: Vec<Lock>,
    pub(crate) device: Option<Device>,
    pub(crate) now: Timestamp,
}

/// The device that is looked up.
#[derive(Clone, Copy)]
pub(crate) enum Which<'a> {
    None,
    Named(&'a DeviceName),
    Known(DeviceId),
}

impl Sessions {
    /// Reads the version first: what is read after it is at least as new.
    pub(crate) async fn load_facts(
        &self,
        user: &User,
        which: Which<'_>,
    ) -> Result<AccessFacts, Refusal> {
        let now = Timestamp::now();
        let (version, subject, locks, device) = self
            .in_time(async {
                let version = self.store.access_version().await?;
                let subject = self.store.subject(&user.name).await?;
                let locks = self.store.locks(now).await?;
                let device = match which {
                    Which::None => None,
                    Which::Named(name) => self.store.device_by_name(name).await?,
                    Which::Known(id) => self.store.device(id).await?,
                };
                Ok((version, subject, locks, device))
            })
            .await?;
        Ok(AccessFacts {
            version,
            // Another user who has the name now is not this one.
            subject: subject
                .filter(|subject| subject.user.id == user.id)
                .ok_or_else(|| Refusal::UserRemoved(user.name.clone()))?,
            locks,
            device,
            now,
        })
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
        match lock::first_match(&self.locks, &lock_subject, self.now) {
            Some(lock) => Err(Refusal::Locked(Box::new(lock.clone()))),
            None => Ok(()),
        }
    }
}
