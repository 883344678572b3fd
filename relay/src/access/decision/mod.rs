//! The decision that precedes every session, over every route.

use std::net::IpAddr;
use std::sync::Arc;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::forward::{AddressPolicy, PathPolicy};
use holdfast_protocol::ids::Login;
use thiserror::Error;

use super::policy::{Ability, Subject, Terms};
use crate::clock::Timestamp;
use crate::model::device::Device;
use crate::model::labels::Labels;
use crate::model::user::User;

/// The facts of a request for a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// The user, as their key proved, with their roles as they are now.
    pub subject: &'a Subject,
    /// The client's address.
    pub client: IpAddr,
    /// The name they typed: from outside.
    pub name: &'a str,
    /// The device of that name, if there is one. Look it up for every user, so that the time reveals nothing.
    pub device: Option<&'a Device>,
}

/// Proof that a user may know of a device. Only [`reach`] makes one.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    /// The user, with the roles that count from where the client is.
    subject: Arc<Subject>,
    device: Device,
}

/// Proof that a user may do a thing on a device under a login: the only thing that a session accepts.
#[derive(Clone, Debug)]
pub(crate) struct Authorized {
    reach: Reach,
    login: Login,
    ability: Ability,
    terms: Terms,
}

/// The reason for a denial, in a sentence for the operator. It reveals nothing that the operator may not know.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Denied {
    /// There is no such device, or the user may not know that there is.
    #[error("no device \"{}\" that you may reach", Escaped(.0))]
    NoDevice(String),
    /// The user was disabled.
    #[error("user \"{0}\" is disabled: ask an admin")]
    Disabled(String),
    /// The user has no role.
    #[error("user \"{0}\" has no role yet, so nothing is allowed: ask an admin for one")]
    NoRole(String),
    /// The user has roles, and none counts from where the client is.
    #[error(
        "no role of user \"{user}\" may be used from {client}: connect from a network that one names"
    )]
    Elsewhere {
        /// The user.
        user: String,
        /// The client's address.
        client: IpAddr,
    },
    /// The device was revoked.
    #[error("{device} was revoked on {when}: it must join again under a new key")]
    Revoked {
        /// The device.
        device: String,
        /// The time of the revocation.
        when: Timestamp,
    },
    /// The roles do not allow this.
    #[error("user \"{user}\" may not use {what} as {login} on {device}")]
    NotAllowed {
        /// The user.
        user: String,
        /// The ability, as a noun.
        what: &'static str,
        /// The account on the device.
        login: Login,
        /// The device.
        device: String,
    },
}

/// Checks whether the user may know of the device at all: only such a user learns that it is revoked, or, from the
/// caller, that it is offline.
///
/// # Errors
/// [`Denied`].
pub(crate) fn reach(facts: Facts<'_>) -> Result<Reach, Denied> {
    let user = &facts.subject.user;
    if user.disabled {
        return Err(Denied::Disabled(user.name.to_string()));
    }
    let subject = facts.subject.is_from(facts.client);
    if subject.roles.is_empty() {
        let user = user.name.to_string();
        return Err(match facts.subject.roles.is_empty() {
            true => Denied::NoRole(user),
            false => Denied::Elsewhere {
                user,
                client: facts.client.to_canonical(),
            },
        });
    }
    // The rules are looked through for a device that there is not as for one that there is.
    let nothing = Labels::new();
    let may_see = subject.may_see(facts.device.map_or(&nothing, |device| &device.labels));
    match facts.device.filter(|_| may_see) {
        None => Err(Denied::NoDevice(facts.name.to_owned())),
        Some(device) => match device.revoked {
            Some(when) => Err(Denied::Revoked {
                device: device.name.to_string(),
                when,
            }),
            None => Ok(Reach {
                subject: Arc::new(subject),
                device: device.clone(),
            }),
        },
    }
}

impl Reach {
    /// Returns the user.
    #[must_use]
    pub(crate) fn user(&self) -> &User {
        &self.subject.user
    }

    /// Returns the device.
    #[must_use]
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Checks whether the user may do this here, under this login.
    ///
    /// # Errors
    /// [`Denied::NotAllowed`].
    pub(crate) fn authorize(&self, login: &Login, ability: Ability) -> Result<Authorized, Denied> {
        if self.subject.may_on(&self.device.labels, login, ability) {
            return Ok(Authorized {
                reach: self.clone(),
                login: login.clone(),
                ability,
                terms: self.subject.terms(),
            });
        }
        Err(Denied::NotAllowed {
            user: self.subject.user.name.to_string(),
            what: ability.noun(),
            login: login.clone(),
            device: self.device.name.to_string(),
        })
    }
}

impl Authorized {
    /// Returns the user.
    #[must_use]
    pub(crate) fn user(&self) -> &User {
        self.reach.user()
    }

    /// Returns the device.
    #[must_use]
    pub(crate) fn device(&self) -> &Device {
        self.reach.device()
    }

    /// Returns the account on the device.
    #[must_use]
    pub(crate) fn login(&self) -> &Login {
        &self.login
    }

    /// Returns the ability.
    #[must_use]
    pub(crate) fn ability(&self) -> Ability {
        self.ability
    }

    /// Returns the terms of the session.
    #[must_use]
    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Returns the logins that are denied here, whose user ids the account must not have.
    #[must_use]
    pub(crate) fn denied_logins(&self) -> Vec<Login> {
        let Reach { subject, device } = &self.reach;
        subject.denied_logins(&device.labels, &self.login, self.ability)
    }

    /// Returns the addresses that forwards may lead to.
    #[must_use]
    pub(crate) fn may_connect(&self) -> AddressPolicy {
        let reach = &self.reach;
        reach.subject.may_connect(&reach.device.labels, &self.login)
    }

    /// Returns the addresses that the device may listen on.
    #[must_use]
    pub(crate) fn may_listen(&self) -> AddressPolicy {
        let reach = &self.reach;
        reach.subject.may_listen(&reach.device.labels, &self.login)
    }

    /// Returns the Unix sockets that forwards may lead to.
    #[must_use]
    pub(crate) fn may_connect_paths(&self) -> PathPolicy {
        let reach = &self.reach;
        let labels = &reach.device.labels;
        reach.subject.may_connect_paths(labels, &self.login)
    }

    /// Returns the Unix sockets that the device may listen on.
    #[must_use]
    pub(crate) fn may_listen_paths(&self) -> PathPolicy {
        let reach = &self.reach;
        let labels = &reach.device.labels;
        reach.subject.may_listen_paths(labels, &self.login)
    }

    /// Checks whether another ability is allowed to the same user, device and login: what a live session asks
    /// when more is asked of it, such as agent forwarding.
    ///
    /// # Errors
    /// [`Denied::NotAllowed`].
    pub(crate) fn check_also(&self, ability: Ability) -> Result<(), Denied> {
        self.reach.authorize(&self.login, ability).map(drop)
    }

    /// Returns the same as it is allowed now, under changed facts: for live sessions after a change of
    /// access. `facts.device` is the device of the session, looked up by its identifier.
    ///
    /// # Errors
    /// [`Denied`].
    pub(crate) fn reauthorize(&self, facts: Facts<'_>) -> Result<Self, Denied> {
        let reach = reach(facts)?;
        // The next person who has the name is another user.
        if reach.device.id != self.device().id || reach.user().id != self.user().id {
            return Err(Denied::NoDevice(facts.name.to_owned()));
        }
        reach.authorize(&self.login, self.ability)
    }
}

#[cfg(test)]
mod tests;
