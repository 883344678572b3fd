//! The facts of a session from its beginning on: those that its row has as long as it lives, and its recording's for
//! good.

use std::net::SocketAddr;

use holdfast_protocol::ids::{DeviceId, DeviceName, Login, SessionId, UserName};

use crate::clock::Timestamp;
use crate::model::role::Ability;
use crate::store::backend::sql::Statement;
use crate::store::{RelayId, UserId};

/// The facts about a session: user, device, time and kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionFacts {
    /// Its identifier, and that of its recording.
    pub id: SessionId,
    /// The user's name.
    pub user: UserName,
    /// The user's id, whatever other user has the name later; `None` in rows of before.
    pub user_id: Option<UserId>,
    /// The device.
    pub device: DeviceId,
    /// The device's name then.
    pub device_name: DeviceName,
    /// The account on the device.
    pub login: Login,
    /// The kind: `Shell`, `Exec`, `Sftp` or `Forward`.
    pub kind: Ability,
    /// The beginning of the command, if it is one: from outside, so escape it.
    pub command: Option<String>,
    /// The operator's address.
    pub client: SocketAddr,
    /// The time of its start.
    pub started: Timestamp,
    /// True if it has a terminal. Only a recording's row holds it; what was recorded before it was noted counts as with
    /// one if it is a shell.
    pub terminal: bool,
}

impl SessionFacts {
    /// Binds them to the first eleven places of a statement: `id, relay, user_name, device, device_name, login, kind,
    /// command, client, started, user_id`.
    pub(crate) fn bind(&self, query: Statement, relay: RelayId) -> Statement {
        query
            .bind(self.id.0.to_vec())
            .bind(relay.0.to_vec())
            .bind(self.user.to_string())
            .bind(self.device.0.to_vec())
            .bind(self.device_name.to_string())
            .bind(self.login.to_string())
            .bind(self.kind.as_str())
            .bind(self.command.clone())
            .bind(self.client.to_string())
            .bind(self.started.0)
            .bind(self.user_id.map(|id| id.0))
    }
}

/// Their columns.
#[derive(sqlx::FromRow)]
pub(crate) struct FactsRow {
    id: Vec<u8>,
    user_name: String,
    user_id: Option<i64>,
    device: Vec<u8>,
    device_name: String,
    login: String,
    kind: String,
    command: Option<String>,
    client: String,
    started: i64,
    #[sqlx(default)]
    terminal: bool,
}

impl FactsRow {
    /// Returns whether it is of a recording of forwards.
    pub(crate) fn is_of_forwards(&self) -> bool {
        self.kind == Ability::Forward.as_str()
    }

    /// Reads a column; `None`: it is not what was written.
    pub(crate) fn read(self) -> Option<SessionFacts> {
        Some(SessionFacts {
            id: SessionId(self.id.try_into().ok()?),
            user: UserName::new(&self.user_name).ok()?,
            user_id: self.user_id.map(UserId),
            device: DeviceId(self.device.try_into().ok()?),
            device_name: DeviceName::new(&self.device_name).ok()?,
            login: Login::new(&self.login).ok()?,
            kind: Ability::ALL
                .into_iter()
                .find(|kind| kind.as_str() == self.kind)?,
            command: self.command,
            client: self.client.parse().ok()?,
            started: Timestamp(self.started),
            terminal: self.terminal,
        })
    }
}
