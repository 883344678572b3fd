//! One allow or deny rule: over a device's labels, the login and what is to be done. All three must hold.
//!
//! What a rule does not name: an allow rule allows nothing of it, a deny rule denies all of it. A gap in a
//! policy therefore never opens anything.

use std::collections::BTreeMap;

use holdfast_protocol::ids::{LabelKey, LabelValue, Login, UserName};

use super::Ability;
use crate::model::labels::Labels;

/// A rule, as allow or as deny.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The devices that the rule is about.
    pub labels: Option<LabelRule>,
    /// The logins that the rule is about.
    pub logins: Option<Vec<LoginRule>>,
    /// The abilities that are allowed or denied.
    pub abilities: Option<Vec<Ability>>,
}

/// The devices that a rule is about: each key's condition must hold. Without one it is about every device:
/// `{ "*" = "*" }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelRule(pub BTreeMap<LabelKey, ValueRule>);

/// The condition for one label: it must be one of the values without `!=`, if there are any, and none of those
/// with it. A device without the label has none of any values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ValueRule(pub Vec<ValuePattern>);

/// A label's value in a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ValuePattern {
    /// `*`: the label is there, with whatever value.
    Any,
    /// Exactly this one.
    Exact(LabelValue),
    /// `!=`: not this one.
    Not(LabelValue),
}

/// A login in a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LoginRule {
    /// `*`: any.
    Any,
    /// `{user}`: the one that is called as the user is.
    User,
    /// Exactly this one.
    Exact(Login),
}

/// A request for a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// The user.
    pub user: &'a UserName,
    /// The device's labels.
    pub labels: &'a Labels,
    /// The account on the device.
    pub login: &'a Login,
    /// The ability.
    pub ability: Ability,
}

impl Rule {
    /// Returns whether this, as an allow rule, allows the request.
    #[must_use]
    pub(crate) fn allows(&self, request: &Request<'_>) -> bool {
        self.labels
            .as_ref()
            .is_some_and(|rule| rule.matches(request.labels))
            && self
                .logins
                .as_ref()
                .is_some_and(|rules| names(rules, request))
            && self.names_ability(request.ability)
    }

    /// Returns whether this, as a deny rule, denies the request.
    #[must_use]
    pub(crate) fn denies(&self, request: &Request<'_>) -> bool {
        self.labels
            .as_ref()
            .is_none_or(|rule| rule.matches(request.labels))
            && self
                .logins
                .as_ref()
                .is_none_or(|rules| names(rules, request))
            && self
                .abilities
                .as_ref()
                .is_none_or(|all| all.contains(&request.ability))
    }

    /// Returns the logins that this, as a deny rule, names for what a user asks for on a device: those that are denied
    /// there whatever an account with the same user id is called.
    #[must_use]
    pub(crate) fn denied_logins(&self, request: &Request<'_>) -> Vec<Login> {
        let labels = self.labels.as_ref();
        let abilities = self.abilities.as_ref();
        if labels.is_some_and(|rule| !rule.matches(request.labels))
            || abilities.is_some_and(|all| !all.contains(&request.ability))
        {
            return Vec::new();
        }
        let logins = self.logins.iter().flatten();
        let named = logins.filter_map(|rule| match rule {
            LoginRule::Exact(login) => Some(login.clone()),
            LoginRule::User => Login::new(request.user.as_str()).ok(),
            // It denies everything, by whatever name.
            LoginRule::Any => None,
        });
        named.collect()
    }

    /// Returns whether this, as an allow rule, allows an ability that is not about a device: a rule over some
    /// devices allows none of them but the one over what is one's own.
    #[must_use]
    pub(crate) fn allows_everywhere(&self, ability: Ability) -> bool {
        let any_device = self.labels.as_ref().is_none_or(LabelRule::is_any);
        self.names_ability(ability) && (any_device || ability == Ability::ReviewOwn)
    }

    /// Returns whether this, as a deny rule, denies an ability that is not about a device: a rule over some devices
    /// or logins does not.
    #[must_use]
    pub(crate) fn denies_everywhere(&self, ability: Ability) -> bool {
        self.labels.as_ref().is_none_or(LabelRule::is_any)
            && self.any_login()
            && self
                .abilities
                .as_ref()
                .is_none_or(|all| all.contains(&ability))
    }

    /// Returns whether a rule that is about some logins is about all of them.
    #[must_use]
    pub(crate) fn any_login(&self) -> bool {
        self.logins
            .as_ref()
            .is_none_or(|logins| logins.contains(&LoginRule::Any))
    }

    fn names_ability(&self, ability: Ability) -> bool {
        self.abilities
            .as_ref()
            .is_some_and(|abilities| abilities.contains(&ability))
    }
}

impl LabelRule {
    /// Returns the rule for any device.
    #[must_use]
    pub(crate) fn any() -> Self {
        Self::default()
    }

    /// Returns whether it is about every device.
    #[must_use]
    pub(crate) fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether it is about a device with these labels.
    #[must_use]
    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        let holds = |(key, rule): (&LabelKey, &ValueRule)| rule.matches(labels.get(key));
        self.0.iter().all(holds)
    }
}

impl ValueRule {
    /// Returns whether a label with this value, or no such label, is meant.
    #[must_use]
    pub(crate) fn matches(&self, value: Option<&LabelValue>) -> bool {
        let (mut wanted, mut found) = (false, false);
        for pattern in &self.0 {
            match pattern {
                ValuePattern::Not(unwanted) if value == Some(unwanted) => return false,
                ValuePattern::Not(_) => {}
                ValuePattern::Any => (wanted, found) = (true, found || value.is_some()),
                ValuePattern::Exact(exact) => {
                    (wanted, found) = (true, found || value == Some(exact));
                }
            }
        }
        found || !wanted
    }
}

impl LoginRule {
    /// Returns whether this login is meant, for this user.
    #[must_use]
    pub(crate) fn matches(&self, user: &UserName, login: &Login) -> bool {
        match self {
            Self::Any => true,
            Self::User => login.as_str() == user.as_str(),
            Self::Exact(wanted) => wanted == login,
        }
    }
}

fn names(rules: &[LoginRule], request: &Request<'_>) -> bool {
    rules
        .iter()
        .any(|rule| rule.matches(request.user, request.login))
}
