//! A role as it is written in a policy document, and as the store keeps it: the same words, in TOML and in
//! JSON. What is read here is checked here; a [`Role`] that comes out of it means something.

mod error;
mod rule;
mod table;
mod text;
mod values;
mod written;

use std::num::NonZeroU32;

use holdfast_protocol::forward::{AddressRule, HostRule, PathRule};
use holdfast_protocol::limits::MAX_FORWARD_RULES;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::role::rule::Rule;
use super::role::{
    ContentBound, Forwarding, IdleTimeout, Limits, MaxSession, OnDisconnect, RecordingMode, Role,
    RoleName, StdinMode,
};
use super::sftp::{SftpOptions, SftpRoot};
use crate::model::limits::MAX_ROLE_NETWORKS;
use crate::model::role::Ability;

pub(crate) use error::FormError;
use error::at_most;
pub(crate) use rule::RuleForm;
use rule::rules;
pub(crate) use table::{TableOnly, only_a_table};
pub(crate) use text::{TomlText, inline};
pub(crate) use values::FormText;
pub(crate) use values::size;
pub(crate) use values::value as pattern;
pub(crate) use written::text;

/// The body of `[roles.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, expecting = "a table of a role")]
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
#[serde(
    remote = "Self",
    deny_unknown_fields,
    expecting = "a table of limits, as in { max_sessions = 5 }"
)]
pub(crate) struct LimitsForm {
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "values::limit"
    )]
    max_connections: Option<u32>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "values::limit"
    )]
    max_sessions: Option<u32>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "values::limit"
    )]
    max_channels: Option<u32>,
}

/// `[roles.NAME.forward]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    remote = "Self",
    deny_unknown_fields,
    expecting = "a table of destinations"
)]
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
#[serde(
    remote = "Self",
    deny_unknown_fields,
    expecting = "a table of constraints, as in { read_only = true }"
)]
pub(crate) struct SftpForm {
    /// Absent: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Absent: all of the file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<FormText<SftpRoot>>,
}

only_a_table!(RoleForm, LimitsForm, ForwardForm, SftpForm);

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

#[cfg(test)]
mod tests;
