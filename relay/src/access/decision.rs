//! The decision that stands before every session, whichever way it came.

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::Login;
use thiserror::Error;

use super::policy::{self, Ability};
use crate::clock::Timestamp;
use crate::store::{Device, User};

/// What is known when somebody asks for a device.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Who, as their key proved.
    pub user: &'a User,
    /// The name they typed: from outside.
    pub name: &'a str,
    /// The device of that name, if there is one.
    pub device: Option<&'a Device>,
}

/// Proof that a user may reach a device. Only [`reach`] makes one.
#[derive(Clone, Debug)]
pub struct Reach {
    user: User,
    device: Device,
}

/// Proof that a user may do a thing on a device under a login: the only thing that a session accepts.
#[derive(Clone, Debug)]
pub struct Authorized {
    reach: Reach,
    login: Login,
}

/// Why not, in a sentence for the operator. It tells nothing to who may not know it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Denied {
    /// There is no such device, or the user may not know that there is.
    #[error("no device \"{}\" that you may reach", Escaped(.0))]
    NoDevice(String),
    /// The user has no role.
    #[error("user \"{0}\" has no role yet, so nothing is allowed: ask an admin for one")]
    NoRole(String),
    /// The device was revoked.
    #[error("{device} was revoked on {when}: it must join again under a new key")]
    Revoked {
        /// Which.
        device: String,
        /// When.
        when: Timestamp,
    },
    /// The roles do not allow this.
    #[error("user \"{user}\" may not use {what} on {device}")]
    NotAllowed {
        /// Who.
        user: String,
        /// What.
        what: &'static str,
        /// Where.
        device: String,
    },
}

/// Whether the user may reach the device at all.
///
/// # Errors
/// [`Denied`].
pub fn reach(facts: Facts<'_>) -> Result<Reach, Denied> {
    let unknown = || Denied::NoDevice(facts.name.to_owned());
    if facts.user.disabled || facts.user.roles.is_empty() {
        return Err(Denied::NoRole(facts.user.name.to_string()));
    }
    if !policy::may_see(facts.user) {
        return Err(unknown());
    }
    let device = facts.device.ok_or_else(unknown)?;
    match device.revoked {
        Some(when) => Err(Denied::Revoked {
            device: device.name.to_string(),
            when,
        }),
        None => Ok(Reach {
            user: facts.user.clone(),
            device: device.clone(),
        }),
    }
}

impl Reach {
    /// Who.
    #[must_use]
    pub fn user(&self) -> &User {
        &self.user
    }

    /// Where.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether the user may do this here, under this login.
    ///
    /// # Errors
    /// [`Denied::NotAllowed`].
    pub fn authorize(&self, login: &Login, ability: Ability) -> Result<Authorized, Denied> {
        if policy::may_do(&self.user, ability) {
            return Ok(Authorized {
                reach: self.clone(),
                login: login.clone(),
            });
        }
        let what = match ability {
            Ability::Shell => "a shell",
            Ability::Exec => "commands",
            Ability::Sftp => "sftp",
        };
        Err(Denied::NotAllowed {
            user: self.user.name.to_string(),
            what,
            device: self.device.name.to_string(),
        })
    }
}

impl Authorized {
    /// Who.
    #[must_use]
    pub fn user(&self) -> &User {
        &self.reach.user
    }

    /// Where.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.reach.device
    }

    /// Under which account.
    #[must_use]
    pub fn login(&self) -> &Login {
        &self.login
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Labels, Presence, PresenceState};
    use holdfast_protocol::ids::{DeviceId, DeviceName, PublicKey, UserName};

    fn user(roles: &[&str], disabled: bool) -> User {
        User {
            name: UserName::new("alice").unwrap(),
            roles: roles.iter().map(ToString::to_string).collect(),
            disabled,
        }
    }

    fn device(revoked: Option<Timestamp>) -> Device {
        Device {
            id: DeviceId([1; 16]),
            name: DeviceName::new("kitchen-cam").unwrap(),
            key: PublicKey([1; 32]),
            labels: Labels::default(),
            enrolled: Timestamp(0),
            presence: Presence {
                state: PresenceState::Offline,
                since: None,
                last_seen: None,
                address: None,
            },
            agent_version: String::new(),
            target: String::new(),
            revoked,
        }
    }

    fn said(user: &User, device: Option<&Device>) -> Result<(), String> {
        let facts = Facts {
            user,
            name: "kitchen-cam",
            device,
        };
        reach(facts).map(drop).map_err(|denied| denied.to_string())
    }

    #[test]
    fn an_admin_reaches_what_there_is() {
        let admin = user(&["admin"], false);
        assert_eq!(said(&admin, Some(&device(None))), Ok(()));
        let unknown = Err("no device \"kitchen-cam\" that you may reach".to_owned());
        assert_eq!(said(&admin, None), unknown);
        let revoked = said(&admin, Some(&device(Some(Timestamp(0))))).unwrap_err();
        assert!(
            revoked.starts_with("kitchen-cam was revoked on 1970-01-01"),
            "{revoked}"
        );
    }

    #[test]
    fn without_a_role_a_device_looks_the_same_as_none() {
        for nobody in [
            user(&[], false),
            user(&["admin"], true),
            user(&["bird-watcher"], false),
        ] {
            let existing = said(&nobody, Some(&device(None)));
            assert!(existing.is_err());
            assert_eq!(existing, said(&nobody, None));
        }
    }

    #[test]
    fn a_name_from_outside_cannot_drive_a_terminal() {
        let admin = user(&["admin"], false);
        let denied = reach(Facts {
            user: &admin,
            name: "a\u{1b}[2J\r\n",
            device: None,
        });
        let said = denied.unwrap_err().to_string();
        assert!(!said.contains(['\u{1b}', '\r', '\n']), "{said}");
    }
}
