//! The way from a request to a session that may run: facts, locks, the decision, a slot, and the live-session registry.
//!
//! No change of access gets past it. Each decision notes the version of access that it was made on; a
//! session enters the registry, where it can be ended, and only then checks whether that version is still
//! current. So a change is either seen here, or the one that makes it sees the session. The version is that of the
//! newest policy that this process has read: the enforcement of a change reads the new policy before it goes through
//! the registry.

pub(crate) mod enforce;
pub(crate) mod facts;
pub(crate) mod names;
pub(crate) mod recorded;

use holdfast_protocol::ids::{DeviceName, Login, SessionId};
use holdfast_protocol::wire::Open;
use tokio::time::timeout;
use tracing::error;

use crate::access::decision::{self, Authorized, Facts, Reach};
use crate::access::policy::{Ability, Subject};
use crate::identity::{self as auth, Principal};
use crate::limits::STORE_TIMEOUT;
use crate::model::quota::Quota;
use crate::session::Sessions;
use crate::session::admission::facts::{AccessFacts, DeviceLookup};
use crate::session::client::Client;
use crate::session::client::lease::{Lease, LeaseError};
use crate::session::client::target::SshTarget;
use crate::session::limits::DECISION_FRESH;
use crate::session::refusal::Refusal;
use crate::session::registry::destination::Destination;
use crate::session::registry::life::Activity;
use crate::session::registry::{About, LiveGuard, LiveSession};
use crate::state::random_bytes;
use crate::store::Device;
use crate::tunnel::peer::RouteError;
use crate::tunnel::peer::route::DeviceRoute;

/// The destination of a channel that was opened for a session.
#[derive(Debug)]
pub(crate) enum Opened {
    /// A device that may be reached.
    Device(Box<AdmittedRoute>),
    /// The relay's own console.
    Console,
}

/// The way to a device that a channel was opened for.
#[derive(Debug)]
pub(crate) struct AdmittedRoute {
    /// The decision at the channel's opening.
    pub reach: Reach,
    /// The tunnel that stood then.
    pub route: DeviceRoute,
    /// The slot of the user's quota.
    pub lease: Lease,
    /// The version of access that the decision was made on.
    pub version: i64,
}

/// The way to a device that a forward goes.
pub(super) struct ForwardRoute {
    reach: Reach,
    /// The tunnel that stood then.
    pub(super) route: DeviceRoute,
    /// The version of access that the decision was made on.
    pub(super) version: i64,
}

impl ForwardRoute {
    /// Checks whether the user may do this under this login; an error is a sentence for them.
    pub(super) fn authorize(&self, login: &Login, ability: Ability) -> Result<Authorized, Refusal> {
        let authorized = self.reach.authorize(login, ability);
        authorized.map_err(Refusal::from)
    }
}

impl Sessions {
    /// Admits a connection whose client has just proved who it is: locks, and a slot. The slot stays with
    /// the connection. The error is a sentence to disconnect with.
    ///
    /// # Errors
    /// A sentence why it is refused.
    pub(crate) async fn admit(&self, client: &Client) -> Result<(), Refusal> {
        let Some((principal, target)) = client.principal() else {
            return Err(Refusal::NotAuthenticated);
        };
        let user = &principal.user.name;
        let admitted = async {
            // The proof was looked up before the enforcement of a change could find this connection. It can now, so
            // that the policy that was read last is new enough: a newer one is enforced on this connection too.
            let known = self.recent_facts(&principal.user).await?;
            if !auth::still_proves(&known.policy, principal) {
                return Err(Refusal::AccessChanged);
            }
            known.check_locks(client, None, None)?;
            let terms = known.terms(client);
            let limit = Quota::Connections.limit(&terms.limits);
            let lease = self.leases.take(Quota::Connections, user, limit).await;
            let idle = terms.cutoffs.idle;
            client.admitted(lease?, idle);
            Ok(())
        };
        let admitted: Result<(), Refusal> = admitted.await;
        self.tell(client, target, target.device(), &admitted).await;
        admitted
    }

    /// Decides what opening a session channel leads to; `channels` are those that the connection has besides.
    /// The error is a sentence for the operator.
    ///
    /// # Errors
    /// A sentence why it leads nowhere.
    pub(crate) async fn open(
        &self,
        client: &Client,
        target: &SshTarget,
        channels: u32,
    ) -> Result<Opened, Refusal> {
        let opened = match target {
            SshTarget::Unusable(error) => Err(error.clone().into()),
            SshTarget::Relay => self.open_console(client, channels).await,
            SshTarget::Device(login, name) => {
                self.open_device(client, Some(login), name, channels).await
            }
        };
        self.tell(client, target, target.device(), &opened).await;
        opened
    }

    /// Decides whether the user may jump to a device. Inside the jump each session is decided on again.
    ///
    /// # Errors
    /// A sentence why not.
    pub(crate) async fn open_jump(
        &self,
        client: &Client,
        name: &DeviceName,
        channels: u32,
    ) -> Result<(), Refusal> {
        let found = self.find(client, None, name, channels).await;
        let found = found.map(drop);
        self.tell(client, &SshTarget::Relay, Some(name), &found)
            .await;
        found
    }

    /// Returns the way to a device for a forward: it takes no slot.
    pub(super) async fn find_way(
        &self,
        client: &Client,
        login: &Login,
        name: &DeviceName,
        channels: u32,
    ) -> Result<ForwardRoute, Refusal> {
        let found = self.find(client, Some(login), name, channels).await?;
        let (known, reach, route) = found;
        Ok(ForwardRoute {
            reach,
            route,
            version: known.version,
        })
    }

    /// Enters a forward in the registry.
    pub(super) fn enter_forward(
        &self,
        open: &Open,
        authorized: Authorized,
        route: &DeviceRoute,
        (client, principal): (&Client, &Principal),
        to: &Destination,
    ) -> LiveGuard {
        let about = About {
            actor: principal.into(),
            device: route.facts_of(authorized.device()),
            command: Some(to.to_string()),
            terminal: false,
            destination: Some(to.clone()),
            activity: Activity::Bytes,
        };
        self.live.enter(open.session, authorized, about, client)
    }

    pub(super) fn new_session_id() -> Result<SessionId, Refusal> {
        let id = random_bytes().map(SessionId);
        id.map_err(|_| Refusal::Random)
    }

    /// Admits a command of the console, and returns its user. The channel may have been opened long before, and the
    /// command's input may have taken its time, so that the decision is made on what holds now.
    ///
    /// # Errors
    /// A sentence why it does not run.
    pub(crate) async fn admit_command(&self, client: &Client) -> Result<Subject, Refusal> {
        let admitted = self.console_user(client).await;
        self.tell(client, &SshTarget::Relay, None, &admitted).await;
        admitted
    }

    /// Returns the user of a connection as they are now, with the roles that count from where they are, if they may use
    /// the console at all: nothing of it begins on a connection that is about to end, or that a change of access or a
    /// lock ends as soon as it is enforced.
    pub(super) async fn console_user(&self, client: &Client) -> Result<Subject, Refusal> {
        let (principal, _) = client.principal().ok_or(Refusal::NotAuthenticated)?;
        let known = self.load_facts(&principal.user, DeviceLookup::None).await?;
        known.check_locks(client, None, None)?;
        if let Some(ending) = client.close_reason() {
            return Err(Refusal::Closing(ending.clone()));
        }
        if !auth::still_proves(&known.policy, principal) {
            return Err(Refusal::AccessChanged);
        }
        Ok(known.subject.is_from(client.address.ip()))
    }

    async fn open_console(&self, client: &Client, channels: u32) -> Result<Opened, Refusal> {
        let (principal, _) = client.principal().ok_or(Refusal::NotAuthenticated)?;
        let known = self.load_facts(&principal.user, DeviceLookup::None).await?;
        known.check_locks(client, None, None)?;
        self.check_channels(&known, client, channels)?;
        Ok(Opened::Console)
    }

    async fn open_device(
        &self,
        client: &Client,
        login: Option<&Login>,
        name: &DeviceName,
        channels: u32,
    ) -> Result<Opened, Refusal> {
        self.report.admits()?;
        let (known, reach, route) = self.find(client, login, name, channels).await?;
        let limit = Quota::Sessions.limit(&known.terms(client).limits);
        let user = &known.subject.user.name;
        let lease = self.leases.take(Quota::Sessions, user, limit).await;
        let lease = lease.map_err(|error| match error {
            LeaseError::Full(full) => Refusal::FullSessions {
                full,
                console: self.console.clone(),
            },
            error => error.into(),
        })?;
        Ok(Opened::Device(Box::new(AdmittedRoute {
            reach,
            route,
            lease,
            version: known.version,
        })))
    }

    async fn find(
        &self,
        client: &Client,
        login: Option<&Login>,
        name: &DeviceName,
        channels: u32,
    ) -> Result<(AccessFacts, Reach, DeviceRoute), Refusal> {
        let (principal, _) = client.principal().ok_or(Refusal::NotAuthenticated)?;
        let known = self
            .load_facts(&principal.user, DeviceLookup::Named(name))
            .await?;
        // What a lock on a device says, only those hear who may know of the device.
        known.check_locks(client, None, None)?;
        self.check_channels(&known, client, channels)?;
        let facts = Facts {
            subject: &known.subject,
            client: client.address.ip(),
            name: name.as_str(),
            device: known.device.as_ref(),
        };
        let reach = decision::reach(facts)?;
        known.check_locks(client, Some(reach.device().id), login)?;
        match self.route(reach.device()).await? {
            Some(route) => Ok((known, reach, route)),
            None => Err(Refusal::Offline {
                device: Box::new(reach.device().clone()),
                now: known.now,
                console: self.console.clone(),
            }),
        }
    }

    /// Returns how a device is reached, if it is.
    async fn route(&self, device: &Device) -> Result<Option<DeviceRoute>, Refusal> {
        self.peers
            .route(device.id)
            .await
            .map_err(|error| match error {
                RouteError::Store(error) => {
                    error!(%error, "the store cannot say where a device is");
                    Refusal::Store
                }
                RouteError::StoreSilent => Refusal::Store,
                RouteError::Relay { name, why } => Refusal::RelayOfDevice {
                    device: device.name.clone(),
                    relay: name,
                    failure: format!("({why}): {}", why.remedy()),
                },
            })
    }

    /// Checks whether a session or forward that is in the registry, and was decided on `version` of access, may start.
    pub(super) async fn check(
        &self,
        client: &Client,
        session: &LiveSession,
        version: i64,
    ) -> Result<(), Refusal> {
        if let Some(ending) = client.close_reason() {
            return Err(Refusal::Closing(ending.clone()));
        }
        let authorized = &session.authorized;
        // Read last, after the session entered the registry: the enforcement of a newer version reads that first, and
        // then finds the session there.
        let present = self.store.policy_within(DECISION_FRESH);
        if self.in_time(present).await?.version == version {
            return Ok(());
        }
        let device = authorized.device().id;
        let known = self
            .load_facts(authorized.user(), DeviceLookup::Known(device))
            .await?;
        for login in session.logins() {
            known.check_locks(client, Some(device), Some(login))?;
        }
        let facts = Facts {
            subject: &known.subject,
            client: client.address.ip(),
            name: authorized.device().name.as_str(),
            device: known.device.as_ref(),
        };
        let now = authorized.reauthorize(facts);
        let now = now?;
        if !session.may_go_on(&now) {
            return Err(Refusal::AccessChanged);
        }
        session.set_cutoffs(now.terms().cutoffs.clone());
        Ok(())
    }

    fn check_channels(
        &self,
        known: &AccessFacts,
        client: &Client,
        channels: u32,
    ) -> Result<(), Refusal> {
        let limit = Quota::Channels.limit(&known.terms(client).limits);
        let admitted = Quota::Channels.admit(limit, channels, &known.subject.user.name);
        admitted.map_err(|full| {
            self.leases.count_refusal(full.quota);
            full.into()
        })
    }

    /// Reports a refusal, with the device of that name, if there is one.
    pub(super) async fn tell<T>(
        &self,
        client: &Client,
        target: &SshTarget,
        name: Option<&DeviceName>,
        said: &Result<T, Refusal>,
    ) {
        let Err(refusal) = said else {
            return;
        };
        let device = match name {
            // A store that did not answer would only be waited for once more.
            Some(name) if !matches!(refusal, Refusal::Store) => {
                let found = timeout(STORE_TIMEOUT, self.store.device_named(name)).await;
                found.ok().and_then(Result::ok).flatten()
            }
            _ => None,
        };
        let noted = self
            .report
            .session_rejected(client, target, device.as_ref(), refusal);
        noted.await;
    }
}
