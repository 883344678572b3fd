//! The other names of a session's account: what is forbidden under one of them is forbidden under each.
//!
//! Logins that the roles deny or that are locked travel with the request, and the device refuses an account that has
//! the user id of one of them. What is locked after the request left is found here, when the device sends the names,
//! which is before anything else of the session.

use holdfast_protocol::ids::Login;
use holdfast_protocol::limits::{DENIED_LOGINS_MINOR, MAX_DENIED_LOGINS};
use holdfast_protocol::wire::{SessionRefusal, SessionTerms};

use crate::access::decision::Authorized;
use crate::clock::Timestamp;
use crate::model::lock::{self, Lock, LockSubject, LockTarget};
use crate::model::snapshot::PolicySnapshot;
use crate::session::ending::{Cause, Ending};
use crate::session::refusal::{Refusal, device as refusal};
use crate::session::registry::LiveSession;
use crate::store::Store;

/// Returns the logins whose user ids the account must not have; an error is a sentence for the operator. An older agent
/// knows names only: refusing its sessions would cut off the way on which it is updated.
pub(crate) fn denied_logins(authorized: &Authorized, minor: u16) -> Result<Vec<Login>, Refusal> {
    if minor < DENIED_LOGINS_MINOR {
        return Ok(Vec::new());
    }
    let denied = authorized.denied_logins();
    if denied.len() > MAX_DENIED_LOGINS {
        return Err(Refusal::DeniedLogins {
            user: authorized.user().name.clone(),
            count: denied.len(),
        });
    }
    Ok(denied)
}

/// Adds the logins that are locked to those that the account must not be, where the device looks for any. As many as
/// fit: the rest is found when the device sends the account's names.
pub(crate) fn deny_locked(
    store: &Store,
    session: &LiveSession,
    minor: u16,
    terms: &mut SessionTerms,
) {
    let Some(policy) = store
        .newest_policy()
        .filter(|_| minor >= DENIED_LOGINS_MINOR)
    else {
        return;
    };
    let now = Timestamp::now();
    let locked = policy.locks.iter().filter(|lock| lock.is_valid(now));
    for lock in locked {
        let LockTarget::Login(login) = &lock.target else {
            continue;
        };
        let is_new = login != session.authorized.login() && !terms.denied_logins.contains(login);
        if is_new && terms.denied_logins.len() < MAX_DENIED_LOGINS {
            terms.denied_logins.push(login.clone());
        }
    }
}

/// Takes the names that the device sends.
///
/// # Errors
/// The reason to end the session: one of them is locked, or the roles deny it.
pub(crate) fn accept(
    store: &Store,
    session: &LiveSession,
    names: Vec<Login>,
) -> Result<(), Ending> {
    // First the names, then the policy: the enforcement of a newer one finds the names.
    session.set_names(names);
    let policy = store.newest_policy();
    if let Some(ending) = policy.and_then(|policy| locked(&policy, session, Timestamp::now())) {
        return Err(ending);
    }
    let denied = session.authorized.denied_logins();
    match session.logins().any(|login| denied.contains(login)) {
        true => Err(Ending::access_changed()),
        false => Ok(()),
    }
}

/// Returns the ending of a session whose user, device or account is locked, under whichever of its names.
pub(super) fn locked(
    policy: &PolicySnapshot,
    session: &LiveSession,
    now: Timestamp,
) -> Option<Ending> {
    let user = &session.authorized.user().name;
    let roles = &policy.user(user)?.roles;
    session.logins().find_map(|login| {
        let subject = LockSubject {
            user,
            roles,
            client: session.client.ip(),
            device: Some(session.authorized.device().id),
            login: Some(login),
        };
        let lock = lock::first_match(&policy.locks, &subject, now)?;
        Some(Ending {
            cause: Cause::Locked,
            why: lock.reason(),
        })
    })
}

/// Returns the sentence for a session that the device refuses.
pub(crate) fn sentence(store: &Store, session: &LiveSession, why: &SessionRefusal) -> String {
    let authorized = &session.authorized;
    let (device, login) = (&authorized.device().name, authorized.login());
    if let SessionRefusal::DeniedAs(other) = why
        && !authorized.denied_logins().contains(other)
    {
        let policy = store.newest_policy();
        let is_about = |target: &LockTarget| matches!(target, LockTarget::Login(it) if it == other);
        let locks = policy.iter().flat_map(|policy| &policy.locks);
        let lock = locks.into_iter().find(|lock| is_about(&lock.target));
        let lock = lock.map_or_else(|| "which is locked".to_owned(), Lock::refusal);
        return format!("account \"{login}\" on {device} has the user id of \"{other}\": {lock}");
    }
    refusal::sentence(device, login, why)
}
