//! Keeps the PAM sessions that are open. The sessions of one SSH connection share one, as they do with sshd.
//!
//! To open one costs more than to start a command, and an automation runs many commands over one connection. So a PAM
//! session stays open for a moment after its last user, in case that another follows.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Weak};

use futures_lite::FutureExt as _;
use holdfast_protocol::ids::{Login, UserName};
use holdfast_protocol::wire::{Open, SessionRefusal};
use smol::Timer;

use super::{LoginMode, PamResult, PamSession};
use crate::os::runtime;
use crate::os::sync::Mutex;
use crate::session::limits::{MAX_UNUSED_LOGINS, PAM_LINGER, PAM_TURN_TIMEOUT};

/// All open PAM sessions of the agent.
#[derive(Debug, Default)]
pub(crate) struct LoginSessions(Mutex<LoginTable>);

#[derive(Debug, Default)]
struct LoginTable {
    /// The number of the next one.
    next: u64,
    open: Vec<SharedLogin>,
    /// Those that are being opened, for as long as a session waits for them.
    opening: Vec<(LoginKey, Weak<smol::lock::Mutex<()>>)>,
}

#[derive(Debug)]
struct SharedLogin {
    number: u64,
    key: LoginKey,
    session: PamSession,
    given: PamResult,
    /// The sessions that use it.
    users: u32,
    /// The number of times that the last of them left it.
    left: u64,
}

/// An operator's connection, and the account there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LoginKey {
    user: UserName,
    login: Login,
    denied: Vec<Login>,
    /// The operator's end of the SSH connection, with its port.
    client: SocketAddr,
}

/// A share of an open PAM session, held for as long as a session's process runs.
#[derive(Debug)]
pub(crate) struct HeldLogin {
    all: Arc<LoginSessions>,
    number: u64,
}

impl Drop for HeldLogin {
    fn drop(&mut self) {
        if let Some(left) = self.all.release(self.number) {
            let (all, number) = (Arc::clone(&self.all), self.number);
            runtime::spawn(async move {
                Timer::after(PAM_LINGER).await;
                all.close_unused(number, left);
            })
            .detach();
        }
    }
}

impl LoginSessions {
    /// Returns a share of the connection's PAM session, which is opened if there is none, where `mode` and the device
    /// have it so.
    ///
    /// # Errors
    /// The refusal, for the operator.
    pub(in crate::session::launch) async fn open(
        self: &Arc<Self>,
        program: &Path,
        open: &Open,
        mode: LoginMode,
    ) -> Result<Option<(HeldLogin, PamResult)>, SessionRefusal> {
        let key = LoginKey {
            user: open.user.clone(),
            login: open.login.clone(),
            denied: open.terms.denied_logins.clone(),
            client: open.client,
        };
        // Sessions that begin together wait for the first of them, unless its PAM takes long.
        let turn = self.turn(&key);
        let _turn = async { Some(turn.lock().await) }
            .or(async {
                Timer::after(PAM_TURN_TIMEOUT).await;
                None
            })
            .await;
        if let Some(shared) = self.join(&key) {
            return Ok(Some(shared));
        }
        let opened = super::open(program, open, mode).await?;
        Ok(opened.map(|(session, given)| self.add(key, session, given)))
    }

    /// Returns the lock that is held while one of this key is being opened.
    fn turn(&self, key: &LoginKey) -> Arc<smol::lock::Mutex<()>> {
        let mut table = self.0.lock();
        table.opening.retain(|(_, turn)| turn.strong_count() > 0);
        let mut opening = table.opening.iter();
        let found = opening.find_map(|(other, turn)| (other == key).then(|| turn.upgrade())?);
        found.unwrap_or_else(|| {
            let turn = Arc::default();
            table.opening.push((key.clone(), Arc::downgrade(&turn)));
            turn
        })
    }

    fn join(self: &Arc<Self>, key: &LoginKey) -> Option<(HeldLogin, PamResult)> {
        let mut inner = self.0.lock();
        // One that was ended on the device is left to those who use it.
        let mut open = inner.open.iter_mut();
        let shared = open.find(|shared| shared.key == *key && shared.session.is_open())?;
        shared.users = shared.users.saturating_add(1);
        Some((self.held(shared.number), shared.given.clone()))
    }

    fn add(
        self: &Arc<Self>,
        key: LoginKey,
        session: PamSession,
        given: PamResult,
    ) -> (HeldLogin, PamResult) {
        let mut inner = self.0.lock();
        let number = inner.next;
        inner.next += 1;
        inner.open.push(SharedLogin {
            number,
            key,
            session,
            given: given.clone(),
            users: 1,
            left: 0,
        });
        (self.held(number), given)
    }

    fn held(self: &Arc<Self>, number: u64) -> HeldLogin {
        HeldLogin {
            all: Arc::clone(self),
            number,
        }
    }

    /// Takes one user away. Returns how often it was left, if it now waits for another user.
    fn release(&self, number: u64) -> Option<u64> {
        let mut inner = self.0.lock();
        let unused = inner.open.iter().filter(|shared| shared.users == 0).count();
        let at = inner.position(number)?;
        let shared = inner.open.get_mut(at)?;
        shared.users = shared.users.saturating_sub(1);
        if shared.users > 0 {
            return None;
        }
        if unused < MAX_UNUSED_LOGINS && shared.session.is_open() {
            shared.left += 1;
            return Some(shared.left);
        }
        inner.open.swap_remove(at);
        None
    }

    /// Closes it, unless it was used since it was left so often.
    fn close_unused(&self, number: u64, left: u64) {
        let mut inner = self.0.lock();
        let is_unused = |shared: &SharedLogin| shared.users == 0 && shared.left == left;
        if let Some(at) = inner.position(number)
            && inner.open.get(at).is_some_and(is_unused)
        {
            inner.open.swap_remove(at);
        }
    }
}

impl LoginTable {
    fn position(&self, number: u64) -> Option<usize> {
        self.open.iter().position(|shared| shared.number == number)
    }
}
