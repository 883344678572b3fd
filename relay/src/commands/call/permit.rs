//! The rights that commands need, and the check of them.

use crate::access::decision::Denied;
use crate::access::policy::Ability;
use crate::commands::{AnyCommand, Caller};

/// The right that a command needs. What it shows may be less for some than for others: that is the command's to see to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// The caller is a user who is not disabled.
    Nothing,
    /// A role, whichever.
    AnyRole,
    /// An ability over the fleet.
    Ability(Ability),
    /// The caller may see all recordings, or their own: which, the command looks at.
    Recordings,
}

impl Right {
    /// To see everything and change nothing.
    pub(crate) const REVIEW: Self = Self::Ability(Ability::Review);
    /// To change what there is.
    pub(crate) const ADMIN: Self = Self::Ability(Ability::Admin);

    /// Returns the right of a command that reads with some arguments, and changes things with others.
    pub(crate) const fn to_read_or_change(only_reads: bool, read: Self) -> Self {
        if only_reads { read } else { Self::ADMIN }
    }
}

/// Checks whether the caller may run the command: who can read the state folder may run every one, over ssh the
/// roles say. Who may administer may review too.
///
/// # Errors
/// The sentence to refuse with.
pub(crate) fn permit(caller: &Caller, command: &AnyCommand) -> Result<(), String> {
    let subject = match caller {
        Caller::Local => return Ok(()),
        Caller::User(subject) => subject,
    };
    let name = &subject.user.name;
    if subject.user.disabled {
        return Err(format!("user \"{name}\" is disabled: ask an admin"));
    }
    let admin = subject.may(Ability::Admin);
    let refused = |what: &str| {
        let remedy = match subject.elsewhere {
            // As on the way to a device: not the right is missing, but the place is wrong.
            Some(client) if subject.roles.is_empty() => {
                let user = name.to_string();
                return Err(Denied::Elsewhere { user, client }.to_string());
            }
            Some(client) => {
                format!(", and not every role may be used from {client}: see `whoami`")
            }
            None => "; ask an admin, and see `whoami`".to_owned(),
        };
        Err(format!(
            "user \"{name}\" may not run this command: it needs {what}{remedy}"
        ))
    };
    match command.need() {
        Right::Nothing => Ok(()),
        Right::AnyRole if !subject.roles.is_empty() => Ok(()),
        Right::AnyRole => refused("a role"),
        Right::Recordings
            if admin || subject.may(Ability::Review) || subject.may(Ability::ReviewOwn) =>
        {
            Ok(())
        }
        Right::Recordings => refused("the ability review or review-own"),
        Right::Ability(ability) if admin || subject.may(ability) => Ok(()),
        Right::Ability(ability) => refused(&format!("the ability {}", ability.as_str())),
    }
}
