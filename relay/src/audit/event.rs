//! An event of the audit log: one value for each thing that happened.

use std::net::SocketAddr;

use holdfast_protocol::escape::EscapedBytes;
use holdfast_protocol::ids::{Login, SessionId};
use serde_json::{Map, Value};

use super::kind::{AuditOutcome, EventKind};
use super::who::{Actor, DeviceFacts};
use crate::audit::limits::MAX_AUDIT_FACTS;
use crate::clock::Timestamp;
use crate::hex::hex;
use crate::store::AuditEntry;
use crate::store::limits::MAX_AUDIT_TEXT;

/// One thing that happened.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// The kind of event.
    pub kind: EventKind,
    /// The actor.
    pub actor: Actor,
    /// The outcome.
    pub outcome: AuditOutcome,
    /// The reason, if it did not go well, or the reason why it ended.
    pub reason: Option<String>,
    /// The operator's address; of a device's event, where the relay sees the device.
    pub client: Option<SocketAddr>,
    /// The device.
    pub device: Option<DeviceFacts>,
    /// The account there.
    pub login: Option<String>,
    /// The session.
    pub session: Option<SessionId>,
    /// The attributes that this kind of event adds.
    pub more: Map<String, Value>,
    /// The time; `None`: when it is recorded.
    pub time: Option<Timestamp>,
}

impl Event {
    /// Creates an event that went well, without an actor yet.
    #[must_use]
    pub(crate) fn new(kind: EventKind) -> Self {
        Self {
            kind,
            actor: Actor::default(),
            outcome: AuditOutcome::Success,
            reason: None,
            client: None,
            device: None,
            login: None,
            session: None,
            more: Map::new(),
            time: None,
        }
    }

    /// Creates a command, which need not be text: then `command` shows it escaped, and `command_hex` has its bytes.
    #[must_use]
    pub(crate) fn exec(command: &[u8]) -> Self {
        Self::new(EventKind::Exec).with_bytes("command", command)
    }

    /// Creates a subsystem.
    #[must_use]
    pub(crate) fn subsystem(name: &str) -> Self {
        Self::new(EventKind::Subsystem).with("subsystem", name)
    }

    /// Creates a file operation and its result, on a path as the client gave it.
    #[must_use]
    pub(crate) fn sftp(operation: &str, path: &[u8], result: &str) -> Self {
        let event = Self::new(EventKind::Sftp).with("operation", operation);
        event.with_bytes("path", path).with("result", result)
    }

    /// Creates a forwarding to `host` and `port`, as the client named them.
    #[must_use]
    pub(crate) fn port_forward(host: &str, port: u16) -> Self {
        let event = Self::new(EventKind::PortForward).with("host", host);
        event.with("port", port)
    }

    /// Creates an environment variable that was not passed on. Its value may be a secret and is not kept.
    #[must_use]
    pub(crate) fn env_rejected(name: &str) -> Self {
        Self::new(EventKind::EnvRejected)
            .with("name", name)
            .refused("not on the list of variables that are passed on")
    }

    /// Creates an event about a recording.
    #[must_use]
    pub(crate) fn recording(kind: EventKind, recording: &str) -> Self {
        Self::new(kind).with("recording", recording)
    }

    /// Sets the actor: a `&Principal`, or an [`Actor`].
    #[must_use]
    pub(crate) fn user(mut self, actor: impl Into<Actor>) -> Self {
        self.actor = actor.into();
        self
    }

    /// Adds the client's address.
    #[must_use]
    pub(crate) fn client(mut self, client: SocketAddr) -> Self {
        self.client = Some(client);
        self
    }

    /// Sets the device: a `&Device`, or [`DeviceFacts`].
    #[must_use]
    pub(crate) fn device(mut self, device: impl Into<DeviceFacts>) -> Self {
        self.device = Some(device.into());
        self
    }

    /// Adds the account on the device.
    #[must_use]
    pub(crate) fn login(mut self, login: &Login) -> Self {
        self.login = Some(login.to_string());
        self
    }

    /// Sets the session.
    #[must_use]
    pub(crate) fn session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    /// Sets the outcome: it was not allowed.
    #[must_use]
    pub(crate) fn refused(mut self, reason: impl Into<String>) -> Self {
        self.outcome = AuditOutcome::Refused;
        self.because(reason)
    }

    /// Sets the outcome: it went wrong.
    #[must_use]
    pub(crate) fn failed(mut self, reason: impl Into<String>) -> Self {
        self.outcome = AuditOutcome::Failed;
        self.because(reason)
    }

    /// Returns the reason, of whatever outcome.
    #[must_use]
    pub(crate) fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Returns when it happened, if not now.
    #[must_use]
    pub(crate) fn at(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }

    /// Adds a fact. Its name must not be that of a field that all events have.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a fact that need not be text: then `NAME` shows it escaped, and `NAME_hex` has its bytes.
    #[must_use]
    pub(crate) fn with_bytes(self, name: &str, bytes: &[u8]) -> Self {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return self.with(name, text);
        }
        // Twice as long as the bytes: cut here, so that what is left can be read back.
        let kept = bytes.get(..MAX_AUDIT_TEXT / 2).unwrap_or(bytes);
        self.with(name, EscapedBytes(bytes).to_string())
            .with(&format!("{name}_hex"), hex(kept))
    }

    /// Returns the row that this event becomes. Texts are cut at their bound, and the row says so.
    #[must_use]
    pub(crate) fn entry(mut self, relay: Option<&str>, now: Timestamp) -> AuditEntry {
        if let Some(os_user) = self.actor.os_user.take() {
            self.more.insert("os_user".to_owned(), os_user.into());
        }
        let mut more = bounded_facts(self.more);
        let mut field = |name: &str, text: Option<String>| {
            text.map(|text| match cut(&text) {
                None => text,
                Some(kept) => {
                    more.insert(format!("{name}_length"), text.len().into());
                    kept
                }
            })
        };
        let device = self.device.as_ref();
        let entry = AuditEntry {
            id: 0,
            time: self.time.unwrap_or(now),
            event: self.kind.as_str().to_owned(),
            user: field("user", self.actor.user),
            key: field("key", self.actor.key),
            email: field("email", self.actor.email),
            client: self.client.map(|client| client.to_string()),
            relay: relay.map(str::to_owned),
            device: device.map(|device| device.name.to_string()),
            device_id: device.map(|device| device.id.to_string()),
            device_address: device
                .and_then(|device| device.address)
                .map(|address| address.to_string()),
            login: self.login,
            session: self.session.map(|session| session.to_string()),
            outcome: self.outcome.as_str().to_owned(),
            reason: field("reason", self.reason),
            more: Map::new(),
        };
        AuditEntry { more, ..entry }
    }
}

/// Returns the facts with their texts cut at the bound; each that was cut has its length beside it.
fn bounded_facts(facts: Map<String, Value>) -> Map<String, Value> {
    let mut bounded = Map::new();
    for (name, value) in facts.into_iter().take(MAX_AUDIT_FACTS) {
        if let Value::String(text) = &value
            && let Some(kept) = cut(text)
        {
            bounded.insert(format!("{name}_length"), text.len().into());
            bounded.insert(name, kept.into());
            continue;
        }
        bounded.insert(name, value);
    }
    bounded
}

/// Returns the part that is kept of a text that is too long; `None` if it is short enough.
fn cut(text: &str) -> Option<String> {
    (text.len() > MAX_AUDIT_TEXT)
        .then(|| text[..text.floor_char_boundary(MAX_AUDIT_TEXT)].to_owned())
}
