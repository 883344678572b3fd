//! The combination of all roles of a user: deny beats allow, the lowest limit and the shortest timeout win, and so does
//! the strictest recording.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use holdfast_protocol::forward::{
    AddressPolicy, AddressRule, HostRule, PathPolicy, PathRule, Ports,
};
use holdfast_protocol::ids::Login;

use crate::access::limits::{DEFAULT_CONTENT_BYTES, DEFAULT_IDLE_TIMEOUT};
use crate::model::labels::Labels;
use crate::model::role::rule::{LabelRule, LoginRule, Request, Rule};
use crate::model::role::{
    ContentBound, Forwarding, IdleTimeout, Limits, OnDisconnect, RecordingMode, Role, RoleName,
    StdinMode,
};
use crate::model::sftp::SftpConstraints;

pub(crate) use crate::model::role::Ability;
pub(crate) use crate::model::user::Subject;

/// Recording where no role says anything: what can be recorded is, and a gap is no outage.
pub(crate) const DEFAULT_RECORDING: RecordingMode = RecordingMode::BestEffort;

/// The default of what is recorded of the input, where no role says anything: no passwords.
pub(crate) const DEFAULT_STDIN: StdinMode = StdinMode::Redact;

/// The default of how much of a stream's content is kept without a terminal, where no role says anything.
pub(crate) const DEFAULT_CONTENT: ContentBound = ContentBound::Bytes(DEFAULT_CONTENT_BYTES);

/// The terms of a user's sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The limits of what runs at a time.
    pub limits: Limits,
    /// The times at which a session ends by the clock.
    pub cutoffs: Cutoffs,
    /// The treatment of a process that loses its observer.
    pub on_disconnect: OnDisconnect,
    /// The recording mode: whether a session may go on that cannot be recorded.
    pub recording: RecordingMode,
    /// The recording of the input.
    pub record_stdin: StdinMode,
    /// The content of a stream that is kept without a terminal.
    pub record_content: ContentBound,
    /// The constraints of sftp.
    pub sftp: SftpConstraints,
}

/// The treatment of a process that loses its observer, where no role says anything: what sshd does.
pub(crate) const DEFAULT_ON_DISCONNECT: OnDisconnect = OnDisconnect::Hup;

/// The times at which a session ends by the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cutoffs {
    /// The end when it is idle.
    pub idle: Idle,
    /// The maximum duration, with or without activity.
    pub longest: Longest,
}

/// The longest time that a session lasts, and the role that says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Longest {
    /// `None`: without end.
    pub after: Option<Duration>,
    /// The role that sets the limit.
    pub role: Option<RoleName>,
}

/// The time after which an idle session ends, and the role that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Idle {
    /// After so long without activity; `None`: never.
    pub after: Option<Duration>,
    /// The role that sets the timeout; `None`: the default of [`DEFAULT_IDLE_TIMEOUT`], because no role says anything.
    pub role: Option<RoleName>,
}

impl Subject {
    /// Returns the terms that all roles together set. Roles that say nothing of something do not count for it.
    #[must_use]
    pub(crate) fn terms(&self) -> Terms {
        let lowest = |limit: fn(&Limits) -> Option<NonZeroU32>| {
            self.roles
                .iter()
                .filter_map(|role| limit(&role.limits))
                .min()
        };
        let recording = self.roles.iter().filter_map(|role| role.recording).max();
        let stdin = self.roles.iter().filter_map(|role| role.record_stdin).max();
        let content = self
            .roles
            .iter()
            .filter_map(|role| role.record_content)
            .max();
        let on_disconnect = self
            .roles
            .iter()
            .filter_map(|role| role.on_disconnect)
            .max();
        Terms {
            limits: Limits {
                max_connections: lowest(|limits| limits.max_connections),
                max_sessions: lowest(|limits| limits.max_sessions),
                max_channels: lowest(|limits| limits.max_channels),
            },
            cutoffs: Cutoffs {
                idle: self.idle(),
                longest: self.longest(),
            },
            on_disconnect: on_disconnect.unwrap_or(DEFAULT_ON_DISCONNECT),
            recording: recording.unwrap_or(DEFAULT_RECORDING),
            record_stdin: stdin.unwrap_or(DEFAULT_STDIN),
            record_content: content.unwrap_or(DEFAULT_CONTENT),
            sftp: SftpConstraints::of(self.roles.iter().map(|role| &role.sftp)),
        }
    }

    /// Returns whether the user may do something that is not about a device: review and administer. For what is
    /// about a device, ask [`super::decision::reach`]; here the answer is no.
    #[must_use]
    pub(crate) fn may(&self, ability: Ability) -> bool {
        let allows = |rule: &Rule| rule.allows_everywhere(ability);
        let denies = |rule: &Rule| rule.denies_everywhere(ability);
        !self.user.disabled
            && !ability.needs_device()
            && self.allow().any(allows)
            && !self.deny().any(denies)
    }

    /// Returns whether the user may do something on a device with these labels, under this login.
    #[must_use]
    pub(crate) fn may_on(&self, labels: &Labels, login: &Login, ability: Ability) -> bool {
        let request = Request {
            user: &self.user.name,
            labels,
            login,
            ability,
        };
        !self.user.disabled
            && ability.needs_device()
            && self.allow().any(|rule| rule.allows(&request))
            && !self.deny().any(|rule| rule.denies(&request))
    }

    /// Returns the logins that deny rules name for this, in order and each once. A device refuses an account that has
    /// the user id of one of them.
    #[must_use]
    pub(crate) fn denied_logins(
        &self,
        labels: &Labels,
        login: &Login,
        ability: Ability,
    ) -> Vec<Login> {
        let request = Request {
            user: &self.user.name,
            labels,
            login,
            ability,
        };
        let mut denied: Vec<Login> = self
            .deny()
            .flat_map(|rule| rule.denied_logins(&request))
            .collect();
        denied.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        denied.dedup();
        denied
    }

    /// Returns the addresses that the user's forwards may lead to through a device with these labels, under this login:
    /// any if one role that allows them there says nothing, else those that one of them names. No role's denial is
    /// lost.
    #[must_use]
    pub(crate) fn may_connect(&self, labels: &Labels, login: &Login) -> AddressPolicy {
        self.addresses(labels, login, |role| role.forward.connect.clone())
    }

    /// Returns the addresses where a device with these labels may listen for the user under this login: a role that
    /// allows forwards there and says nothing allows loopback.
    #[must_use]
    pub(crate) fn may_listen(&self, labels: &Labels, login: &Login) -> AddressPolicy {
        let loopback = || {
            let (host, ports) = (HostRule::Loopback, Ports::ANY);
            vec![AddressRule { host, ports }]
        };
        self.addresses(labels, login, |role| {
            Some(role.forward.listen.clone().unwrap_or_else(loopback))
        })
    }

    /// Returns the Unix sockets of such a device that the user's forwards may lead to.
    #[must_use]
    pub(crate) fn may_connect_paths(&self, labels: &Labels, login: &Login) -> PathPolicy {
        self.paths(labels, login, |forward| &forward.connect_paths)
    }

    /// Returns the Unix sockets that such a device may listen on for the user.
    #[must_use]
    pub(crate) fn may_listen_paths(&self, labels: &Labels, login: &Login) -> PathPolicy {
        self.paths(labels, login, |forward| &forward.listen_paths)
    }

    fn addresses(
        &self,
        labels: &Labels,
        login: &Login,
        list: impl Fn(&Role) -> Option<Vec<AddressRule>>,
    ) -> AddressPolicy {
        let denied = self.roles.iter().flat_map(|role| &role.forward.deny);
        AddressPolicy {
            allow: self.lists(labels, login, list),
            deny: denied.cloned().collect(),
        }
    }

    /// Returns the paths that the roles name. A role that says something of forwards means the paths that it names
    /// alone, and one that denies all addresses denies all paths.
    fn paths(
        &self,
        labels: &Labels,
        login: &Login,
        list: impl Fn(&Forwarding) -> &Option<Vec<PathRule>>,
    ) -> PathPolicy {
        let all = |rule: &AddressRule| rule.host == HostRule::Any && rule.ports == Ports::ANY;
        if self
            .roles
            .iter()
            .any(|role| role.forward.deny.iter().any(all))
        {
            let allow = Some(Vec::new());
            return PathPolicy { allow };
        }
        let allow = self.lists(labels, login, |role| {
            let silent = role.forward == Forwarding::default();
            (!silent).then(|| list(&role.forward).clone().unwrap_or_default())
        });
        PathPolicy { allow }
    }

    /// Returns the lists together of those roles that allow forwards here; `None` if one of them has none.
    fn lists<T>(
        &self,
        labels: &Labels,
        login: &Login,
        list: impl Fn(&Role) -> Option<Vec<T>>,
    ) -> Option<Vec<T>> {
        let request = Request {
            user: &self.user.name,
            labels,
            login,
            ability: Ability::Forward,
        };
        let allows = |role: &&Role| role.allow.iter().any(|rule| rule.allows(&request));
        let lists: Option<Vec<Vec<T>>> = self.roles.iter().filter(allows).map(list).collect();
        Some(lists?.into_iter().flatten().collect())
    }

    /// Returns whether the user may know of a device with these labels: true if they may do anything there under any
    /// login, review or administer.
    #[must_use]
    pub(crate) fn may_see(&self, labels: &Labels) -> bool {
        // All parts are looked at whatever the first says, so that the time does not depend on the device.
        let fleet = self.may(Ability::Review) | self.may(Ability::Admin);
        fleet | self.may_use(labels)
    }

    /// Returns the subject as it is for a client at this address: only the roles that count from there, with
    /// neither what they allow nor what they deny or limit.
    #[must_use]
    pub(crate) fn is_from(&self, client: IpAddr) -> Self {
        let client = client.to_canonical();
        let counts = |role: &&Role| {
            role.source.is_empty() || role.source.iter().any(|network| network.contains(&client))
        };
        let roles: Vec<Role> = self.roles.iter().filter(counts).cloned().collect();
        let elsewhere = (roles.len() < self.roles.len()).then_some(client);
        Self {
            user: self.user.clone(),
            roles,
            elsewhere: elsewhere.or(self.elsewhere),
        }
    }

    /// Returns whether there is anything at all that the user may do on such a device.
    fn may_use(&self, labels: &Labels) -> bool {
        let about = |rule: &LabelRule| rule.matches(labels);
        let allowed = self
            .allow()
            .filter(|rule| rule.labels.as_ref().is_some_and(about));
        allowed.into_iter().fold(false, |found, rule| {
            let logins = rule.logins.iter().flatten();
            let abilities = || rule.abilities.iter().flatten();
            let mut pairs =
                logins.flat_map(|login| abilities().map(move |ability| (login, *ability)));
            found | pairs.any(|(login, ability)| self.some_login_may(labels, login, ability))
        }) && !self.user.disabled
    }

    /// Returns whether some login that an allow rule names is not denied.
    fn some_login_may(&self, labels: &Labels, login: &LoginRule, ability: Ability) -> bool {
        let exact = |login: &Login| self.may_on(labels, login, ability);
        match login {
            LoginRule::Exact(login) => exact(login),
            LoginRule::User => Login::new(self.user.name.as_str()).is_ok_and(|login| exact(&login)),
            // However many logins the deny rules name, there is another one.
            LoginRule::Any => {
                let denies = |rule: &Rule| {
                    rule.any_login()
                        && rule.labels.as_ref().is_none_or(|rule| rule.matches(labels))
                        && rule
                            .abilities
                            .as_ref()
                            .is_none_or(|all| all.contains(&ability))
                };
                ability.needs_device() && !self.deny().any(denies)
            }
        }
    }

    fn idle(&self) -> Idle {
        let said = |role: &Role| Some((role.idle_timeout?, role.name.clone()));
        match self.roles.iter().filter_map(said).min() {
            Some((IdleTimeout::After(after), role)) => Idle {
                after: Some(after),
                role: Some(role),
            },
            Some((IdleTimeout::Never, role)) => Idle {
                after: None,
                role: Some(role),
            },
            None => Idle {
                after: Some(DEFAULT_IDLE_TIMEOUT),
                role: None,
            },
        }
    }

    fn longest(&self) -> Longest {
        let said = |role: &Role| Some((role.max_session?, role.name.clone()));
        let least = self.roles.iter().filter_map(said).min();
        least.map_or_else(Longest::default, |(longest, role)| Longest {
            after: Some(longest.0),
            role: Some(role),
        })
    }

    fn allow(&self) -> impl Iterator<Item = &Rule> {
        self.roles.iter().flat_map(|role| &role.allow)
    }

    fn deny(&self) -> impl Iterator<Item = &Rule> {
        self.roles.iter().flat_map(|role| &role.deny)
    }
}
