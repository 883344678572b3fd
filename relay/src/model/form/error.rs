//! The reasons why a role that can be read is not valid.

use thiserror::Error;

/// The reason why a role that can be read is not valid: a sentence that names the place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum FormError {
    /// There are more of something than a role may have.
    #[error("{place} has {found} {what}; the maximum is {most}")]
    TooMany {
        /// The place in the role that is at fault.
        place: String,
        /// The number that was found.
        found: usize,
        /// The kind of thing that was counted.
        what: &'static str,
        /// The maximum.
        most: usize,
    },
    /// A rule without anything.
    #[error(
        "{0} names nothing: expected labels, logins or abilities; for any device write labels = {{ \"*\" = \"*\" }}"
    )]
    EmptyRule(String),
    /// A list in a rule without anything.
    #[error("{place}.{list} is empty: name something, or leave it out ({meaning})")]
    EmptyList {
        /// The place in the role that is at fault.
        place: String,
        /// The name of the list.
        list: &'static str,
        /// The meaning of an absent list.
        meaning: &'static str,
    },
    /// An allow rule that can allow nothing.
    #[error(
        "{place} names no {missing}, so it would allow nothing of {ability}: add {missing}{example}"
    )]
    AllowsNothing {
        /// The place in the role that is at fault.
        place: String,
        /// The name of the missing part.
        missing: &'static str,
        /// The first ability that it names.
        ability: &'static str,
        /// An example of the missing part.
        example: &'static str,
    },
    /// An ability of the whole fleet in a rule about some of it.
    #[error(
        "{place}: {ability} is about the whole fleet, not about some devices or logins: put it into a rule of its own, with abilities alone"
    )]
    FleetWide {
        /// The place in the role that is at fault.
        place: String,
        /// The ability.
        ability: &'static str,
    },
    /// A list about an ability which the role does not give.
    #[error(
        "{place}.forward.{list} changes nothing: no allow rule of the role names the ability forward"
    )]
    Unused {
        /// The place in the role that is at fault.
        place: String,
        /// The name of the list.
        list: &'static str,
    },
    /// A name among what is denied.
    #[error(
        "{place}.forward.deny: {rule} is a name, and a user can bypass it by its address: deny an address or network"
    )]
    DeniedName {
        /// The place in the role that is at fault.
        place: String,
        /// The rule.
        rule: String,
    },
}

/// Checks that there are no more of something than a role may have.
pub(super) fn at_most(
    place: &str,
    what: &'static str,
    found: usize,
    most: usize,
) -> Result<(), FormError> {
    if found <= most {
        return Ok(());
    }
    Err(FormError::TooMany {
        place: place.to_owned(),
        found,
        what,
        most,
    })
}
