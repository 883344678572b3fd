//! The roles, users and facts that the tests of rules share.

use holdfast_protocol::ids::{
    DeviceId, DeviceName, LabelKey, LabelValue, Login, PublicKey, UserName,
};

use crate::access::policy::Subject;
use crate::clock::Timestamp;
use crate::model::device::{Device, Presence, PresenceState};
use crate::model::form::RoleForm;
use crate::model::labels::Labels;
use crate::model::presets;
use crate::model::role::{Role, RoleName};
use crate::model::user::User;

/// Returns a role from the words of a document.
#[track_caller]
pub(crate) fn role(name: &str, body: &str) -> Role {
    let form: RoleForm = toml::from_str(body).unwrap();
    form.role(RoleName::new(name).unwrap()).unwrap()
}

/// Returns `alice` with these roles.
pub(crate) fn subject(roles: Vec<Role>) -> Subject {
    Subject {
        user: User {
            id: crate::model::user::UserId(1),
            name: UserName::new("alice").unwrap(),
            email: None,
            roles: roles.iter().map(|role| role.name.to_string()).collect(),
            disabled: false,
        },
        roles,
        elsewhere: None,
    }
}

/// Returns `alice` with a preset.
pub(crate) fn with_preset(name: &str) -> Subject {
    subject(vec![presets::preset(name).unwrap()])
}

pub(crate) fn labels(labels: &[(&str, &str)]) -> Labels {
    let label = |(key, value): &(&str, &str)| {
        (LabelKey::new(key).unwrap(), LabelValue::new(value).unwrap())
    };
    labels.iter().map(label).collect()
}

pub(crate) fn login(text: &str) -> Login {
    Login::new(text).unwrap()
}

pub(crate) fn device(labels: Labels, revoked: Option<Timestamp>) -> Device {
    Device {
        id: DeviceId([1; 16]),
        name: DeviceName::new("kitchen-cam").unwrap(),
        key: PublicKey([1; 32]),
        labels,
        enrolled: Timestamp(0),
        presence: Presence {
            state: PresenceState::Offline,
            since: None,
            last_seen: None,
            address: None,
        },
        agent_version: String::new(),
        target: String::new(),
        cloned: None,
        token: None,
        revoked,
    }
}
