//! Console commands that stream, on the live-session registry: what they need is held against each change of access,
//! and they end as sessions do.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use holdfast_protocol::ids::{SessionId, UserName};
use tokio::sync::watch;

use super::life::{Activity, Life};
use crate::access::policy::{Ability, Subject};
use crate::session::Sessions;
use crate::session::client::Client;
use crate::session::ending::Ending;
use crate::session::refusal::Refusal;
use crate::session::registry::Live;
use crate::store::{ConsoleRow, UserId};
use crate::sync::Mutex;

/// Returns whether a user may run a command, by the roles that count from where they are.
pub(crate) type ConsoleCondition = Box<dyn Fn(&Subject) -> bool + Send + Sync>;

/// A console command that streams.
pub(crate) struct ConsoleStream {
    /// The state that its registry entries share: traffic and end.
    pub life: Arc<Life>,
    /// The user who runs it.
    pub user: UserName,
    user_id: UserId,
    /// The beginning of its line: from outside, so escape it.
    pub command: String,
    need: ConsoleCondition,
    shows: Mutex<Shows>,
}

/// The recordings that a command shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shows {
    /// None.
    Nothing,
    /// Anybody's.
    All,
    /// Those of this user.
    Of(UserId),
}

/// The request to enter a command in the registry.
pub(crate) struct AskStream {
    /// The beginning of its line.
    pub command: String,
    /// The right that it needs.
    pub need: ConsoleCondition,
    /// The recordings that it shows.
    pub shows: Shows,
    /// The kind of activity that counts.
    pub activity: Activity,
}

/// A command's place on the registry, for as long as it runs.
#[derive(Debug)]
pub(crate) struct ConsoleGuard {
    registry: Arc<Live>,
    stream: Arc<ConsoleStream>,
    ended: watch::Receiver<Option<Ending>>,
}

impl Shows {
    fn is_allowed(&self, now: &Subject) -> bool {
        let all = || now.may(Ability::Admin) || now.may(Ability::Review);
        match self {
            Self::Nothing => true,
            Self::All => all(),
            Self::Of(user) => all() || (*user == now.user.id && now.may(Ability::ReviewOwn)),
        }
    }
}

impl ConsoleStream {
    /// Notes the owner of the one recording that it shows; `None`: no current user.
    pub(crate) fn shows_only(&self, user: Option<UserId>) {
        let shows = user.map_or(Shows::All, Shows::Of);
        *self.shows.lock() = shows;
    }

    /// Returns whether it may go on, by the roles that count now from where the user is. The next person who has the name
    /// is another user.
    #[must_use]
    pub(crate) fn may_go_on(&self, now: &Subject) -> bool {
        let shows = self.shows.lock();
        now.user.id == self.user_id && (self.need)(now) && shows.is_allowed(now)
    }

    /// Returns it as the store lists it.
    #[must_use]
    pub(crate) fn row(&self) -> ConsoleRow {
        ConsoleRow {
            id: self.id,
            user: self.user.clone(),
            user_id: Some(self.user_id),
            command: self.command.clone(),
            client: self.client,
            started: self.started,
            traffic: self.traffic(),
        }
    }
}

impl Deref for ConsoleStream {
    type Target = Life;

    fn deref(&self) -> &Life {
        &self.life
    }
}

impl fmt::Debug for ConsoleStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleStream")
            .field("life", &self.life)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Live {
    /// Enters a command in the registry. From here on it can be ended.
    fn enter_console(
        self: &Arc<Self>,
        id: SessionId,
        client: &Client,
        subject: &Subject,
        ask: AskStream,
    ) -> Option<ConsoleGuard> {
        let (principal, _) = client.principal()?;
        let cutoffs = subject.is_from(client.address.ip()).terms().cutoffs;
        let (life, ended) = Life::new(id, principal.into(), client, ask.activity, cutoffs);
        let stream = Arc::new(ConsoleStream {
            life: Arc::new(life),
            user: principal.user.name.clone(),
            user_id: principal.user.id,
            command: ask.command,
            need: ask.need,
            shows: Mutex::new(ask.shows),
        });
        self.add_console(stream.clone());
        Some(ConsoleGuard {
            registry: self.clone(),
            stream,
            ended,
        })
    }
}

impl Sessions {
    /// Puts a command on the registry, and looks then whether it is allowed: no change of access gets past it. An error
    /// is a sentence for the operator.
    ///
    /// # Errors
    /// A sentence why it may not run.
    pub(crate) async fn enter_console(
        &self,
        client: &Client,
        subject: &Subject,
        ask: AskStream,
    ) -> Result<ConsoleGuard, Refusal> {
        let id = Self::new_session_id()?;
        let guard = self.live.enter_console(id, client, subject, ask);
        let guard = guard.ok_or(Refusal::NotAuthenticated)?;
        let now = self.console_user(client).await?;
        if !guard.stream.may_go_on(&now) {
            return Err(Refusal::AccessChanged);
        }
        guard.stream.set_cutoffs(now.terms().cutoffs);
        Ok(guard)
    }
}

impl ConsoleGuard {
    /// Returns the command.
    #[must_use]
    pub(crate) fn stream(&self) -> &Arc<ConsoleStream> {
        &self.stream
    }

    /// Resolves when the command is to end, with the reason.
    pub(crate) async fn ordered_to_end(&mut self) -> Ending {
        let ended = self.ended.wait_for(Option::is_some).await;
        match ended.map(|ending| ending.clone()) {
            Ok(Some(ending)) => ending,
            // The sender lives as long as the guard.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for ConsoleGuard {
    fn drop(&mut self) {
        self.stream.mark_drained();
        self.registry.remove_console(self.stream.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::tests::fixture::{role, subject};

    #[test]
    fn what_is_shown_needs_the_right_to_that_recording() {
        let with = |abilities: &str| {
            subject(vec![role(
                "tech",
                &format!("allow = {{ abilities = [{abilities}] }}"),
            )])
        };
        let own = with("'review-own'");
        let all = with("'review'");
        let other = UserId(own.user.id.0 + 1);
        let table = [
            (Shows::Nothing, true, true),
            (Shows::All, false, true),
            (Shows::Of(other), false, true),
            (Shows::Of(own.user.id), true, true),
        ];
        for (shows, by_own, by_all) in table {
            assert_eq!(shows.is_allowed(&own), by_own, "{shows:?}");
            assert_eq!(shows.is_allowed(&all), by_all, "{shows:?}");
            assert!(!shows.is_allowed(&with("'admin'")) || shows.is_allowed(&all));
        }
        let none = subject(vec![]);
        assert!(!Shows::Of(none.user.id).is_allowed(&none));
    }
}
