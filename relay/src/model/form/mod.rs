//! A role as it is written in a policy document, and as the store keeps it: the same words, in TOML and in
//! JSON. What is read here is checked here; a [`Role`] that comes out of it means something.

mod text;
mod values;
mod written;

use std::num::NonZeroU32;

use holdfast_protocol::forward::{AddressRule, HostRule, PathRule};
use holdfast_protocol::limits::MAX_FORWARD_RULES;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::role::rule::{LabelRule, LoginRule, Rule};
use super::role::{
    ContentBound, Forwarding, IdleTimeout, Limits, MaxSession, OnDisconnect, RecordingMode, Role,
    RoleName, StdinMode,
};
use super::sftp::{SftpOptions, SftpRoot};
use crate::model::limits::{MAX_ROLE_NETWORKS, MAX_RULE_LOGINS, MAX_RULES};
use crate::model::role::Ability;

pub(crate) use text::{TomlText, inline};
pub(crate) use values::FormText;
pub(crate) use values::size;
pub(crate) use values::value as pattern;
pub(crate) use written::text;

/// The body of `[roles.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleForm {
    /// `"15m"` or `"never"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<IdleTimeout>,
    /// `"8h"`; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_session: Option<MaxSession>,
    /// `hup`, `leave` or `kill`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disconnect: Option<OnDisconnect>,
    /// `strict`, `best-effort` or `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<RecordingMode>,
    /// `redact`, `full` or `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_stdin: Option<StdinMode>,
    /// `"16 MiB"` or `"unlimited"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_content: Option<ContentBound>,
    /// Networks, or single addresses.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "values::networks"
    )]
    pub source: Vec<IpNet>,
    /// The limits of what runs at a time.
    #[serde(default, skip_serializing_if = "LimitsForm::is_empty")]
    pub limits: LimitsForm,
    /// The destinations that forwards may reach.
    #[serde(default, skip_serializing_if = "ForwardForm::is_empty")]
    pub forward: ForwardForm,
    /// The constraints of sftp.
    #[serde(default, skip_serializing_if = "SftpForm::is_empty")]
    pub sftp: SftpForm,
    /// One rule, or a list of them.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "values::one_or_many"
    )]
    pub allow: Vec<RuleForm>,
    /// The same.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "values::one_or_many"
    )]
    pub deny: Vec<RuleForm>,
}

/// `[roles.NAME.limits]`: 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsForm {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_connections: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_sessions: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_channels: Option<u32>,
}

/// `[roles.NAME.forward]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForwardForm {
    /// Absent: anywhere. Empty: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Vec<FormText<AddressRule>>>,
    /// Absent: loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<Vec<FormText<AddressRule>>>,
    /// Never these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<FormText<AddressRule>>,
    /// Absent: any path if there is no other list, else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_paths: Option<Vec<FormText<PathRule>>>,
    /// The same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_paths: Option<Vec<FormText<PathRule>>>,
}

/// `[roles.NAME.sftp]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SftpForm {
    /// Absent: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Absent: all of the file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<FormText<SftpRoot>>,
}

/// `[roles.NAME.allow]` or `deny`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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

impl RoleForm {
    /// Returns the role that this is, under a name.
    ///
    /// # Errors
    /// [`FormError`].
    pub(crate) fn role(self, name: RoleName) -> Result<Role, FormError> {
        let place = format!("roles.{name}");
        at_most(
            &place,
            "source networks",
            self.source.len(),
            MAX_ROLE_NETWORKS,
        )?;
        let forward = self.forward.checked(&place)?;
        let (allow, deny) = (
            rules(&place, "allow", self.allow)?,
            rules(&place, "deny", self.deny)?,
        );
        let forwards = |rule: &Rule| {
            let abilities = rule.abilities.as_ref();
            abilities.is_some_and(|abilities| abilities.contains(&Ability::Forward))
        };
        let lists = [
            ("connect", forward.connect.is_some()),
            ("listen", forward.listen.is_some()),
            ("connect_paths", forward.connect_paths.is_some()),
            ("listen_paths", forward.listen_paths.is_some()),
        ];
        let named = lists.into_iter().find(|(_, is_present)| *is_present);
        if let Some((list, _)) = named.filter(|_| !allow.iter().any(forwards)) {
            return Err(FormError::Unused { place, list });
        }
        Ok(Role {
            idle_timeout: self.idle_timeout,
            max_session: self.max_session,
            on_disconnect: self.on_disconnect,
            recording: self.recording,
            record_stdin: self.record_stdin,
            record_content: self.record_content,
            source: self.source,
            limits: self.limits.limits(),
            forward,
            sftp: self.sftp.options(),
            allow,
            deny,
            name,
        })
    }

    /// Returns the form in which a role is written.
    #[must_use]
    pub(crate) fn of(role: &Role) -> Self {
        let rules = |rules: &[Rule]| rules.iter().cloned().map(RuleForm::from).collect();
        Self {
            idle_timeout: role.idle_timeout,
            max_session: role.max_session,
            on_disconnect: role.on_disconnect,
            recording: role.recording,
            record_stdin: role.record_stdin,
            record_content: role.record_content,
            source: role.source.clone(),
            limits: LimitsForm::of(&role.limits),
            forward: ForwardForm::of(&role.forward),
            sftp: SftpForm::of(&role.sftp),
            allow: rules(&role.allow),
            deny: rules(&role.deny),
        }
    }
}

fn rules(place: &str, kind: &'static str, forms: Vec<RuleForm>) -> Result<Vec<Rule>, FormError> {
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

impl ForwardForm {
    /// Returns whether it is empty.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn checked(self, place: &str) -> Result<Forwarding, FormError> {
        fn length<T>(list: &Option<Vec<T>>) -> usize {
            list.as_ref().map_or(0, Vec::len)
        }
        for (list, found) in [
            ("connect", length(&self.connect)),
            ("listen", length(&self.listen)),
            ("deny", self.deny.len()),
            ("connect_paths", length(&self.connect_paths)),
            ("listen_paths", length(&self.listen_paths)),
        ] {
            let place = format!("{place}.forward.{list}");
            at_most(&place, "rules", found, MAX_FORWARD_RULES)?;
        }
        let named = |rule: &&FormText<AddressRule>| {
            matches!(rule.0.host, HostRule::Name(_) | HostRule::Under(_))
        };
        if let Some(rule) = self.deny.iter().find(named) {
            let (place, rule) = (place.to_owned(), rule.0.to_string());
            return Err(FormError::DeniedName { place, rule });
        }
        fn plain<T>(rules: Vec<FormText<T>>) -> Vec<T> {
            rules.into_iter().map(|rule| rule.0).collect()
        }
        Ok(Forwarding {
            connect: self.connect.map(plain),
            listen: self.listen.map(plain),
            deny: plain(self.deny),
            connect_paths: self.connect_paths.map(plain),
            listen_paths: self.listen_paths.map(plain),
        })
    }

    fn of(forward: &Forwarding) -> Self {
        fn texts<T: Clone>(rules: &[T]) -> Vec<FormText<T>> {
            rules.iter().cloned().map(FormText).collect()
        }
        Self {
            connect: forward.connect.as_deref().map(texts),
            listen: forward.listen.as_deref().map(texts),
            deny: texts(&forward.deny),
            connect_paths: forward.connect_paths.as_deref().map(texts),
            listen_paths: forward.listen_paths.as_deref().map(texts),
        }
    }
}

impl SftpForm {
    /// Returns whether it is empty.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn options(self) -> SftpOptions {
        SftpOptions {
            read_only: self.read_only,
            root: self.root.map(|root| root.0),
        }
    }

    fn of(options: &SftpOptions) -> Self {
        Self {
            read_only: options.read_only,
            root: options.root.clone().map(FormText),
        }
    }
}

impl LimitsForm {
    /// Returns the limits under their names.
    #[must_use]
    pub(crate) fn named(&self) -> [(&'static str, Option<u32>); 3] {
        [
            ("max_connections", self.max_connections),
            ("max_sessions", self.max_sessions),
            ("max_channels", self.max_channels),
        ]
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn limits(self) -> Limits {
        let limit = |number: Option<u32>| number.and_then(NonZeroU32::new);
        Limits {
            max_connections: limit(self.max_connections),
            max_sessions: limit(self.max_sessions),
            max_channels: limit(self.max_channels),
        }
    }

    fn of(limits: &Limits) -> Self {
        Self {
            max_connections: limits.max_connections.map(NonZeroU32::get),
            max_sessions: limits.max_sessions.map(NonZeroU32::get),
            max_channels: limits.max_channels.map(NonZeroU32::get),
        }
    }
}

fn at_most(place: &str, what: &'static str, found: usize, most: usize) -> Result<(), FormError> {
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

#[cfg(test)]
mod tests;
