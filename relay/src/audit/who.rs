//! The actor and the device that an event names.

use std::net::SocketAddr;

use holdfast_protocol::ids::{DeviceId, DeviceName};

use crate::identity::{Principal, Proof};
use crate::model::user::LOCAL_USER;
use crate::store::Device;

/// The fact of an event by how many seconds the device's clock was ahead of ours: `time` is never the device's.
pub(crate) const CLOCK_SKEW: &str = "clock_skew";

/// The actor of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Actor {
    /// The user's name; `local` for the relay's own shell; `None` for the relay and devices.
    pub user: Option<String>,
    /// The fingerprint of the key that proved it: see [`Actor::by_key`] and [`Actor::by_certificate`].
    pub key: Option<String>,
    /// The e-mail address, if it is known.
    pub email: Option<String>,
    /// The account at the relay's own shell.
    pub os_user: Option<String>,
}

impl Actor {
    /// Creates a user who proved a key, by its fingerprint (`SHA256:…`).
    #[must_use]
    pub(crate) fn by_key(user: &str, fingerprint: &str) -> Self {
        Self {
            user: Some(user.to_owned()),
            key: Some(fingerprint.to_owned()),
            ..Self::default()
        }
    }

    /// Creates a user who proved a certificate, by its key id and serial, and the fingerprint of what it certifies.
    #[must_use]
    pub(crate) fn by_certificate(user: &str, id: &str, serial: u64, fingerprint: &str) -> Self {
        let key = format!("certificate {id} serial {serial} {fingerprint}");
        Self::by_key(user, &key)
    }

    /// Returns the actor of a command at the relay's own shell.
    #[must_use]
    pub(crate) fn local(os_user: String) -> Self {
        Self {
            user: Some(LOCAL_USER.to_owned()),
            os_user: Some(os_user),
            ..Self::default()
        }
    }

    /// Returns the same with an address for people.
    #[must_use]
    pub(crate) fn email(mut self, email: Option<&str>) -> Self {
        self.email = email.map(str::to_owned);
        self
    }
}

impl From<&Principal> for Actor {
    fn from(principal: &Principal) -> Self {
        let user = principal.user.name.as_str();
        let actor = match &principal.proof {
            Proof::Key(key) => Self::by_key(user, &key.sha256),
            Proof::Certificate(certified) => {
                let claims = &certified.claims;
                Self::by_certificate(user, &claims.key_id, claims.serial, &certified.key.sha256)
            }
        };
        actor.email(principal.user.email.as_deref())
    }
}

/// A device, as the log names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceFacts {
    /// Its name at that time.
    pub name: DeviceName,
    /// The id, which it has for as long as it keeps its key.
    pub id: DeviceId,
    /// Its own address, before any NAT, as its agent said.
    pub address: Option<SocketAddr>,
    /// The seconds by which its clock was ahead of ours when its tunnel came to be.
    pub clock_skew: Option<i64>,
}

impl DeviceFacts {
    /// Creates a device whose tunnel does not matter.
    #[must_use]
    pub(crate) fn of(device: &Device) -> Self {
        Self {
            name: device.name.clone(),
            id: device.id,
            address: None,
            clock_skew: None,
        }
    }
}

impl From<&Device> for DeviceFacts {
    fn from(device: &Device) -> Self {
        Self {
            name: device.name.clone(),
            id: device.id,
            address: None,
            clock_skew: None,
        }
    }
}
