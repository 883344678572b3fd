//! The board of live sessions: who is where, and how to end it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_protocol::ids::{DeviceId, Login, SessionId, UserName};
use tokio::sync::watch;

use crate::access::decision::Authorized;
use crate::clock::Timestamp;

/// One live session.
#[derive(Debug)]
pub struct LiveSession {
    /// Its identifier.
    pub id: SessionId,
    /// Who.
    pub user: UserName,
    /// Where.
    pub device: DeviceId,
    /// Under which account.
    pub login: Login,
    /// The operator's address, which is that of one SSH connection.
    pub client: SocketAddr,
    /// Since when.
    pub started: Timestamp,
    end: watch::Sender<Option<String>>,
}

/// All live sessions of this relay.
#[derive(Debug, Default)]
pub struct Live {
    sessions: Mutex<HashMap<SessionId, Arc<LiveSession>>>,
    count: watch::Sender<usize>,
}

/// A session's place on the board, for as long as it lives.
#[derive(Debug)]
pub struct LiveGuard {
    board: Arc<Live>,
    session: Arc<LiveSession>,
    ended: watch::Receiver<Option<String>>,
}

impl Live {
    /// Puts a session on the board.
    #[must_use]
    pub fn enter(
        self: &Arc<Self>,
        id: SessionId,
        authorized: &Authorized,
        client: SocketAddr,
    ) -> LiveGuard {
        let (end, ended) = watch::channel(None);
        let session = Arc::new(LiveSession {
            id,
            user: authorized.user().name.clone(),
            device: authorized.device().id,
            login: authorized.login().clone(),
            client,
            started: Timestamp::now(),
            end,
        });
        let mut sessions = self.lock();
        sessions.insert(id, session.clone());
        self.count.send_replace(sessions.len());
        drop(sessions);
        LiveGuard {
            board: self.clone(),
            session,
            ended,
        }
    }

    /// Ends every session that `which` picks; its operator reads `why` behind `[holdfast] closed: `.
    pub fn end_where(&self, which: impl Fn(&LiveSession) -> bool, why: &str) {
        for session in self.lock().values().filter(|session| which(session)) {
            session.end.send_replace(Some(why.to_owned()));
        }
    }

    /// Waits until no session lives.
    pub async fn wait_empty(&self) {
        // The sender lives in `self`, so the wait ends only when the count is zero.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<LiveSession>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveGuard {
    /// The session.
    #[must_use]
    pub fn session(&self) -> &LiveSession {
        &self.session
    }

    /// Resolves when the session is to end, with the reason.
    pub async fn told_to_end(&mut self) -> String {
        let told = self.ended.wait_for(Option::is_some).await;
        match told.map(|why| why.clone().unwrap_or_default()) {
            Ok(why) => why,
            // The sender lives as long as the guard.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        let mut sessions = self.board.lock();
        sessions.remove(&self.session.id);
        self.board.count.send_replace(sessions.len());
    }
}
