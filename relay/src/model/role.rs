//! A role: rules, limits and how its sessions are kept. Roles are data; the few that come with the relay are in
//! [`presets`].

pub(crate) mod presets;
pub(crate) mod rule;

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use holdfast_protocol::forward::{AddressRule, PathRule};
use holdfast_protocol::wire;
use ipnet::IpNet;
use thiserror::Error;

use super::sftp::SftpOptions;
use crate::model::limits::MAX_ROLE_NAME;
use crate::model::role::rule::Rule;

/// A role: who has it may do what an allow rule names and no deny rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Role {
    /// The name that users refer to.
    pub name: RoleName,
    /// The idle time after which a session ends; `None`: this role says nothing of it.
    pub idle_timeout: Option<IdleTimeout>,
    /// The longest time that a session lasts; `None`: this role says nothing of it.
    pub max_session: Option<MaxSession>,
    /// The treatment of a process that loses its observer; `None`: this role says nothing of it.
    pub on_disconnect: Option<OnDisconnect>,
    /// The recording mode: whether a session may go on that cannot be recorded; `None`: this role says nothing of it.
    pub recording: Option<RecordingMode>,
    /// The recording of the input; `None`: this role says nothing of it.
    pub record_stdin: Option<StdinMode>,
    /// The content of a stream that is kept without a terminal; `None`: this role says nothing of it.
    pub record_content: Option<ContentBound>,
    /// The networks that the role counts from. Empty: anywhere.
    pub source: Vec<IpNet>,
    /// The limits of what runs at a time.
    pub limits: Limits,
    /// The destinations that its forwards may reach.
    pub forward: Forwarding,
    /// The constraints of sftp.
    pub sftp: SftpOptions,
    /// The rules that allow.
    pub allow: Vec<Rule>,
    /// The rules that deny, to its users, whatever another of their roles allows.
    pub deny: Vec<Rule>,
}

impl Role {
    /// Creates a role that allows nothing and limits nothing.
    #[must_use]
    pub(crate) fn empty(name: RoleName) -> Self {
        Self {
            name,
            idle_timeout: None,
            max_session: None,
            on_disconnect: None,
            recording: None,
            record_stdin: None,
            record_content: None,
            source: Vec::new(),
            limits: Limits::default(),
            forward: Forwarding::default(),
            sftp: SftpOptions::default(),
            allow: Vec::new(),
            deny: Vec::new(),
        }
    }
}

/// The name of a role: letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RoleName(String);

/// The reason why a text is not a valid [`RoleName`]. It does not repeat the text, which may come from anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "a role's name has 1 to {MAX_ROLE_NAME} letters, digits, '.', '_' and '-', and begins with a letter or digit"
)]
pub(crate) struct RoleNameError;

impl RoleName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`RoleNameError`].
    pub(crate) fn new(text: &str) -> Result<Self, RoleNameError> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let begins = text
            .as_bytes()
            .first()
            .is_some_and(u8::is_ascii_alphanumeric);
        let good = begins && text.len() <= MAX_ROLE_NAME && text.bytes().all(inner);
        good.then(|| Self(text.to_owned())).ok_or(RoleNameError)
    }

    /// Returns the text itself.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RoleName {
    type Err = RoleNameError;

    fn from_str(text: &str) -> Result<Self, RoleNameError> {
        Self::new(text)
    }
}

/// The idle time after which a session ends. The order is by strictness: the least wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum IdleTimeout {
    /// After so long.
    After(Duration),
    /// Never.
    Never,
}

/// The longest time that a session lasts. The least wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MaxSession(pub Duration);

/// The treatment of a session's process that loses its observer. The order is by strictness: the greatest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OnDisconnect {
    /// It goes on, with its terminal.
    Leave,
    /// Its terminal hangs up, and its pipes are closed, as under sshd.
    Hup,
    /// HUP, and KILL after a grace.
    Kill,
}

/// The limits of one user; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// SSH connections of a user, over all relays.
    pub max_connections: Option<NonZeroU32>,
    /// Session channels of a user, over all connections.
    pub max_sessions: Option<NonZeroU32>,
    /// Channels of one connection.
    pub max_channels: Option<NonZeroU32>,
}

/// The destinations that forwards may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forwarding {
    /// The addresses that the role's ability to forward leads to; `None`: any.
    pub connect: Option<Vec<AddressRule>>,
    /// The addresses where it lets the device listen; `None`: the device's loopback.
    pub listen: Option<Vec<AddressRule>>,
    /// The addresses that no forward of its users may use, whatever another of their roles allows.
    pub deny: Vec<AddressRule>,
    /// The Unix sockets that it leads to.
    pub connect_paths: Option<Vec<PathRule>>,
    /// The Unix sockets that it lets the device make. `None`, of either: any if the role says nothing at all of
    /// forwards, none if it says something.
    pub listen_paths: Option<Vec<PathRule>>,
}

/// The recording mode: whether a session may go on that cannot be recorded. The order is by strictness: the greatest
/// wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RecordingMode {
    /// Nothing is recorded.
    Off,
    /// It goes on, and a gap is recorded.
    BestEffort,
    /// It does not.
    Strict,
}

/// The recording of the input. The order is by what is recorded: the greatest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StdinMode {
    /// Nothing.
    Off,
    /// All but what is typed while the terminal does not echo it.
    Redact,
    /// All, passwords too.
    Full,
}

/// The content of each stream that a recording keeps of a session without a terminal. The order is by what is kept: the
/// greatest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ContentBound {
    /// So many bytes, and the rest of the frame that reaches them.
    Bytes(u64),
    /// All of it.
    Unlimited,
}

impl ContentBound {
    /// Returns the bound in bytes; `None`: all content is kept.
    #[must_use]
    pub(crate) fn bytes(self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Unlimited => None,
        }
    }
}

impl From<RecordingMode> for wire::RecordingMode {
    fn from(mode: RecordingMode) -> Self {
        match mode {
            RecordingMode::Off => Self::Off,
            RecordingMode::BestEffort => Self::BestEffort,
            RecordingMode::Strict => Self::Strict,
        }
    }
}

impl From<OnDisconnect> for wire::OnDisconnect {
    fn from(what: OnDisconnect) -> Self {
        match what {
            OnDisconnect::Leave => Self::Leave,
            OnDisconnect::Hup => Self::Hup,
            OnDisconnect::Kill => Self::Kill,
        }
    }
}

impl From<StdinMode> for wire::StdinMode {
    fn from(mode: StdinMode) -> Self {
        match mode {
            StdinMode::Off => Self::Off,
            StdinMode::Redact => Self::Redact,
            StdinMode::Full => Self::Full,
        }
    }
}

/// A thing that a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ability {
    /// An interactive shell on a device.
    Shell,
    /// One command on a device.
    Exec,
    /// Copying files: the sftp subsystem.
    Sftp,
    /// Port forwarding through a device.
    Forward,
    /// Taking one's SSH agent along to a device.
    AgentForward,
    /// Joining a live session of another user.
    Join,
    /// The use of a device that cannot record, in an emergency.
    Recover,
    /// Seeing all recordings, sessions, devices and the audit log.
    Review,
    /// Seeing the recordings of one's own sessions.
    ReviewOwn,
    /// Every command of the console.
    Admin,
}

impl Ability {
    /// All of them, in the order in which they are listed.
    pub(crate) const ALL: [Self; 10] = [
        Self::Shell,
        Self::Exec,
        Self::Sftp,
        Self::Forward,
        Self::AgentForward,
        Self::Join,
        Self::Recover,
        Self::Review,
        Self::ReviewOwn,
        Self::Admin,
    ];

    /// Those that can be used. `join` is only read: stored roles and policies may name it, and nothing asks for it.
    pub(crate) const OFFERED: [Self; 9] = [
        Self::Shell,
        Self::Exec,
        Self::Sftp,
        Self::Forward,
        Self::AgentForward,
        Self::Recover,
        Self::Review,
        Self::ReviewOwn,
        Self::Admin,
    ];

    /// Returns whether it is about a device and a login. The others are about the whole fleet.
    #[must_use]
    pub(crate) const fn needs_device(self) -> bool {
        !matches!(self, Self::Review | Self::ReviewOwn | Self::Admin)
    }

    /// Returns its word in a policy document.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Exec => "exec",
            Self::Sftp => "sftp",
            Self::Forward => "forward",
            Self::AgentForward => "agent-forward",
            Self::Join => "join",
            Self::Recover => "recover",
            Self::Review => "review",
            Self::ReviewOwn => "review-own",
            Self::Admin => "admin",
        }
    }

    /// Returns its name in a refusal: "may not use …".
    #[must_use]
    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Self::Shell => "a shell",
            Self::Exec => "commands",
            Self::Sftp => "sftp",
            Self::Forward => "port forwarding",
            Self::AgentForward => "agent forwarding",
            Self::Join => "sessions of others",
            Self::Recover => "recovery",
            Self::Review => "recordings and the audit log",
            Self::ReviewOwn => "recordings of own sessions",
            Self::Admin => "administration",
        }
    }
}

/// Words of a policy document, each with its value: one table for reading and writing.
macro_rules! words {
    ($type:ty, $($value:path => $word:literal),+) => {
        impl $type {
            /// All its words, for a refusal.
            pub(crate) const WORDS: &'static [&'static str] = &[$($word),+];

            /// Returns its word in a policy document.
            #[must_use]
            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $($value => $word),+
                }
            }

            /// Reads such a word.
            #[must_use]
            pub(crate) fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some($value),)+
                    _ => None,
                }
            }
        }
    };
}
words!(RecordingMode, Self::Strict => "strict", Self::BestEffort => "best-effort", Self::Off => "off");
words!(OnDisconnect, Self::Hup => "hup", Self::Leave => "leave", Self::Kill => "kill");
words!(StdinMode, Self::Redact => "redact", Self::Full => "full", Self::Off => "off");
