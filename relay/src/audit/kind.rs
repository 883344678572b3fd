//! The kinds of events, and their outcomes.

use std::fmt;
use std::str::FromStr;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)+) => {
        /// The kind of event. The names are relied upon: they may be added to, never changed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum EventKind {
            $($(#[$doc])* $kind,)+
        }

        impl EventKind {
            /// All of them.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// Returns its name in the log.
            #[must_use]
            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// A user was authenticated.
    UserLogin = "user.login",
    /// A connection tried to, and ended without.
    UserLoginFailed = "user.login.failed",
    /// A session runs.
    SessionStart = "session.start",
    /// It is over: exit, bytes each way, duration.
    SessionEnd = "session.end",
    /// A session was asked for and not had.
    SessionRejected = "session.rejected",
    /// The relay ended a session or a connection: idle, locked, killed, access changed.
    ClientDisconnect = "client.disconnect",
    /// A command was run.
    Exec = "exec",
    /// A subsystem was started.
    Subsystem = "subsystem",
    /// A file operation.
    Sftp = "sftp",
    /// A port was forwarded.
    PortForward = "port.forward",
    /// An operator's SSH agent was asked from a device.
    AgentForward = "agent.forward",
    /// An environment variable was asked for and not passed on.
    EnvRejected = "env.rejected",
    /// A device became a member.
    DeviceEnrolled = "device.enrolled",
    /// A device's tunnel is established.
    DeviceOnline = "device.online",
    /// A device has no tunnel any more.
    DeviceOffline = "device.offline",
    /// A newer tunnel of a device took the place of one that stood.
    DeviceReplaced = "device.replaced",
    /// Two machines use one device's key.
    DeviceCloned = "device.cloned",
    /// Trust in a device was ended.
    DeviceRevoked = "device.revoked",
    /// A token was made.
    TokenCreated = "token.created",
    /// A device joined with a token, or tried to.
    TokenUsed = "token.used",
    /// A token was removed.
    TokenRemoved = "token.removed",
    /// A lock was put on.
    LockCreated = "lock.created",
    /// A lock was taken off.
    LockRemoved = "lock.removed",
    /// Users, keys, roles, names or labels were changed.
    AccessChanged = "access.changed",
    /// The log was read.
    AuditRead = "audit.read",
    /// Old rows of the log were removed.
    AuditRemoved = "audit.removed",
    /// The log could not be written for a while: what it does not tell.
    AuditLost = "audit.lost",
    /// A relay began to serve.
    RelayStarted = "relay.started",
    /// A relay stopped in good order.
    RelayStopped = "relay.stopped",
    /// A relay joined the cluster.
    RelayJoined = "relay.joined",
    /// A relay was declared dead by another one of its cluster.
    RelayDied = "relay.died",
    /// A relay was drained: it takes no new logins.
    RelayDrained = "relay.drained",
    /// A relay left the cluster.
    RelayLeft = "relay.left",
    /// A key of the relay that was replaced on purpose was accepted.
    RelayKeyAccepted = "relay.key.accepted",
    /// A recording is whole on the relay, with its verdict.
    RecordingComplete = "recording.complete",
    /// A recording has gaps, which it admits.
    RecordingGap = "recording.gap",
    /// Uploads are refused from here on, for want of room.
    RecordingRefused = "recording.refused",
    /// A recording ends early.
    RecordingTruncated = "recording.truncated",
    /// A recording is not what the relay saw.
    RecordingTampered = "recording.tampered",
    /// A recording will not come.
    RecordingLost = "recording.lost",
    /// A user looked at a recording.
    RecordingPlayed = "recording.played",
    /// A recording is to stay until it is released.
    RecordingHeld = "recording.held",
    /// A recording need not stay any more.
    RecordingReleased = "recording.released",
    /// A recording was removed.
    RecordingRemoved = "recording.removed",
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kind = Self::ALL.iter().find(|kind| kind.as_str() == text);
        kind.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("the events are {}", names.join(", "))
        })
    }
}

/// The outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuditOutcome {
    /// It was done.
    Success,
    /// A rule forbade it.
    Refused,
    /// It was allowed and went wrong.
    Failed,
}

impl AuditOutcome {
    /// Returns its name in the log.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}
