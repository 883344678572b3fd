//! A rule of a role as it is written.

use serde::{Deserialize, Serialize};

use super::error::{FormError, at_most};
use super::only_a_table;
use crate::model::limits::{MAX_RULE_LOGINS, MAX_RULES};
use crate::model::role::Ability;
use crate::model::role::rule::{LabelRule, LoginRule, Rule};

/// `[roles.NAME.allow]` or `deny`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    remote = "Self",
    deny_unknown_fields,
    expecting = "a table of labels, logins and abilities"
)]
pub(crate) struct RuleForm {
    /// The devices that the rule is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelRule>,
    /// The logins that the rule is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logins: Option<Vec<LoginRule>>,
    /// The abilities that are allowed or denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abilities: Option<Vec<Ability>>,
}

only_a_table!(RuleForm);

impl RuleForm {
    fn check(&self, place: &str, allow: bool) -> Result<(), FormError> {
        if self == &Self::default() {
            return Err(FormError::EmptyRule(place.to_owned()));
        }
        let meaning = match allow {
            true => "then nothing is allowed",
            false => "then all are denied",
        };
        let logins = self.logins.as_ref().map(Vec::len);
        let abilities = self.abilities.as_ref().map(Vec::len);
        for (list, length) in [("logins", logins), ("abilities", abilities)] {
            if length == Some(0) {
                let place = place.to_owned();
                return Err(FormError::EmptyList {
                    place,
                    list,
                    meaning,
                });
            }
        }
        at_most(place, "logins", logins.unwrap_or(0), MAX_RULE_LOGINS)?;
        at_most(
            place,
            "abilities",
            abilities.unwrap_or(0),
            Ability::ALL.len(),
        )?;
        self.check_scope(place, allow)
    }

    /// Checks that a rule that reads as if it did something does it: abilities over devices want labels and logins,
    /// abilities over the fleet cannot be had for a part of it.
    fn check_scope(&self, place: &str, allow: bool) -> Result<(), FormError> {
        let named = self.abilities.as_deref().unwrap_or_default();
        let some_devices = self.labels.as_ref().is_some_and(|labels| !labels.is_any());
        let logins = self.logins.as_deref();
        let some_logins = logins.is_some_and(|logins| !logins.contains(&LoginRule::Any));
        // One's own recordings are few enough to be allowed beside anything; what is denied must hold.
        let too_narrow = |ability: &&Ability| match allow {
            true => matches!(ability, Ability::Review | Ability::Admin) && some_devices,
            false => !ability.needs_device() && (some_devices || some_logins),
        };
        if let Some(ability) = named.iter().find(too_narrow) {
            return Err(FormError::FleetWide {
                place: place.to_owned(),
                ability: ability.as_str(),
            });
        }
        if !allow {
            return Ok(());
        }
        let of_devices = named.iter().find(|ability| ability.needs_device());
        let missing = if self.abilities.is_none() {
            Some(("abilities", ", as in abilities = [\"shell\", \"exec\"]"))
        } else if of_devices.is_some() && self.labels.is_none() {
            Some(("labels", "; any device is { \"*\" = \"*\" }"))
        } else if of_devices.is_some() && self.logins.is_none() {
            Some(("logins", "; any login is [\"*\"]"))
        } else {
            None
        };
        match missing {
            None => Ok(()),
            Some((missing, example)) => Err(FormError::AllowsNothing {
                place: place.to_owned(),
                missing,
                ability: of_devices.map_or("anything", |ability| ability.as_str()),
                example,
            }),
        }
    }
}

impl From<Rule> for RuleForm {
    fn from(rule: Rule) -> Self {
        Self {
            labels: rule.labels,
            logins: rule.logins,
            abilities: rule.abilities,
        }
    }
}

/// Returns the rules of a list that is named `kind`.
pub(super) fn rules(
    place: &str,
    kind: &'static str,
    forms: Vec<RuleForm>,
) -> Result<Vec<Rule>, FormError> {
    at_most(&format!("{place}.{kind}"), "rules", forms.len(), MAX_RULES)?;
    let single = forms.len() == 1;
    let mut rules = Vec::with_capacity(forms.len());
    for (index, form) in forms.into_iter().enumerate() {
        let place = match single {
            true => format!("{place}.{kind}"),
            false => format!("{place}.{kind}[{index}]"),
        };
        form.check(&place, kind == "allow")?;
        rules.push(Rule {
            labels: form.labels,
            logins: form.logins,
            abilities: form.abilities,
        });
    }
    Ok(rules)
}
