//! The caller of a command, and what they may see.

use std::net::IpAddr;

use crate::access::policy::{Ability, Subject};
use crate::store::{Labels, Store, User};

/// The caller of a command.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// A local user who can read the state folder, which holds the keys to everything.
    Local,
    /// An operator over ssh, by a key that was proved, with the roles that count from where they are.
    User(Subject),
}

impl Caller {
    /// Returns the operator, as they are now: what the login found may have changed since. Another one who has the name
    /// now is not this one.
    ///
    /// # Errors
    /// The sentence to refuse with, if the user was removed or the store does not answer.
    pub(crate) async fn over_ssh(
        store: &Store,
        user: &User,
        client: IpAddr,
    ) -> Result<Self, String> {
        let policy = store.policy().await;
        match policy.and_then(|policy| Ok(policy.subject(&user.name)?)) {
            Ok(Some(subject)) if subject.user.id == user.id => {
                Ok(Self::User(subject.is_from(client)))
            }
            Ok(_) => Err(format!("user \"{}\" was removed: ask an admin", user.name)),
            Err(_) => Err("the relay cannot look you up now: try again in a minute".to_owned()),
        }
    }

    /// Returns the operator; `None` for the relay's own shell.
    #[must_use]
    pub(crate) fn user(&self) -> Option<&User> {
        match self {
            Self::Local => None,
            Self::User(subject) => Some(&subject.user),
        }
    }

    /// Returns whether they may do something that is not about a device.
    #[must_use]
    pub(crate) fn may(&self, ability: Ability) -> bool {
        match self {
            Self::Local => true,
            Self::User(subject) => subject.may(ability),
        }
    }

    /// Returns whether they may know of a device with these labels.
    #[must_use]
    pub(crate) fn may_see(&self, labels: &Labels) -> bool {
        match self {
            Self::Local => true,
            Self::User(subject) => subject.may_see(labels),
        }
    }
}
