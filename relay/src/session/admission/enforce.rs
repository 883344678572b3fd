//! Enforces a change of access: everything alive is compared with the new facts, and ended if it may not be any more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use holdfast_protocol::ids::{DeviceId, UserName};
use holdfast_protocol::wire::CloseCode;
use tracing::info;

use super::names;
use crate::access::decision::Facts;
use crate::access::policy::Subject;
use crate::clock::{self, Timestamp};
use crate::identity as auth;
use crate::limits::FINAL_STATUS_TIMEOUT;
use crate::model::lock::{self, By, Colon, LockSubject};
use crate::model::snapshot::PolicySnapshot;
use crate::session::Sessions;
use crate::session::client::Client;
use crate::session::ending::{Cause, Ending};
use crate::session::limits::ENFORCE_TIMEOUT;
use crate::session::registry::LiveSession;
use crate::session::registry::console::ConsoleStream;
use crate::session::registry::life::Life;
use crate::store::{Device, Store, StoreError};

/// Ends what may not be any more. True if nothing of it moves any more: then the relay may confirm.
///
/// # Errors
/// The store cannot say what may be.
pub(crate) async fn enforce(sessions: &Arc<Sessions>) -> Result<bool, StoreError> {
    let store = sessions.store.in_background();
    // First of all: a session that enters the registry from here on finds the new policy (`Sessions::check`).
    let mut facts = Present::new(&store).await?;
    let mut ended = cut_revoked(sessions, &store).await?;
    ended.extend(end_killed(sessions, &store).await?);
    // Connections first: a session that begins on one that is about to end finds that out by itself.
    for client in sessions.clients.all() {
        if let Some(ending) = judge_client(&client, &mut facts)? {
            ended.extend(end_client(sessions, client, ending));
        }
    }
    for session in sessions.live.all() {
        if let Some(ending) = judge_session(&session, &mut facts).await? {
            session.end(ending);
            ended.push(session.life.clone());
        }
    }
    for stream in sessions.live.consoles() {
        if let Some(ending) = judge_console(&stream, &mut facts)? {
            stream.end(ending);
            ended.push(stream.life.clone());
        }
    }
    Ok(all_drained(&ended).await)
}

/// The facts as they are now, each read once.
struct Present<'a> {
    store: &'a Store,
    policy: Arc<PolicySnapshot>,
    now: Timestamp,
    subjects: HashMap<UserName, Option<Subject>>,
    devices: HashMap<DeviceId, Option<Device>>,
}

impl<'a> Present<'a> {
    async fn new(store: &'a Store) -> Result<Self, StoreError> {
        Ok(Self {
            store,
            policy: store.policy().await?,
            now: Timestamp::now(),
            subjects: HashMap::new(),
            devices: HashMap::new(),
        })
    }

    fn read_subject(&mut self, user: &UserName) -> Result<(), StoreError> {
        if !self.subjects.contains_key(user) {
            let subject = self.policy.subject(user)?;
            self.subjects.insert(user.clone(), subject);
        }
        Ok(())
    }

    async fn read_device(&mut self, id: DeviceId) -> Result<(), StoreError> {
        if let std::collections::hash_map::Entry::Vacant(entry) = self.devices.entry(id) {
            entry.insert(self.store.device(id).await?);
        }
        Ok(())
    }

    fn subject(&self, user: &UserName) -> Option<&Subject> {
        self.subjects.get(user)?.as_ref()
    }

    fn locked(&self, lock_subject: &LockSubject<'_>) -> Option<Ending> {
        let lock = lock::first_match(&self.policy.locks, lock_subject, self.now)?;
        Some(Ending {
            cause: Cause::Locked,
            why: lock.reason(),
        })
    }
}

/// Checks whether a connection must end: its key proves no user any more, or a lock matches it.
fn judge_client(client: &Client, facts: &mut Present<'_>) -> Result<Option<Ending>, StoreError> {
    let Some((principal, _)) = client.principal() else {
        return Ok(None);
    };
    let user = &principal.user.name;
    facts.read_subject(user)?;
    let proved = auth::still_proves(&facts.policy, principal);
    let Some(subject) = facts.subject(user).filter(|_| proved) else {
        return Ok(Some(Ending::access_changed()));
    };
    let address = client.address.ip();
    client.set_idle(subject.is_from(address).terms().cutoffs.idle);
    Ok(facts.locked(&LockSubject {
        user,
        roles: &subject.user.roles,
        client: address,
        device: None,
        login: None,
    }))
}

/// Checks whether a session must end: a lock matches it, or the same would not be allowed now. One that may go on hears
/// when it ends if it is idle.
async fn judge_session(
    session: &LiveSession,
    facts: &mut Present<'_>,
) -> Result<Option<Ending>, StoreError> {
    let authorized = &session.authorized;
    let (user, device) = (&authorized.user().name, authorized.device());
    facts.read_subject(user)?;
    facts.read_device(device.id).await?;
    let Some(subject) = facts.subject(user) else {
        return Ok(Some(Ending::access_changed()));
    };
    if let Some(locked) = names::locked(&facts.policy, session, facts.now) {
        return Ok(Some(locked));
    }
    let now = authorized.reauthorize(Facts {
        subject,
        client: session.client.ip(),
        name: device.name.as_str(),
        device: facts.devices.get(&device.id).and_then(Option::as_ref),
    });
    Ok(match now {
        Ok(now) if session.may_go_on(&now) => {
            session.set_cutoffs(now.terms().cutoffs.clone());
            None
        }
        Ok(_) | Err(_) => Some(Ending::access_changed()),
    })
}

/// Checks whether a console command must end: a lock matches its user, or they may not run it any more, or not see what
/// it shows.
fn judge_console(
    stream: &ConsoleStream,
    facts: &mut Present<'_>,
) -> Result<Option<Ending>, StoreError> {
    facts.read_subject(&stream.user)?;
    let Some(subject) = facts.subject(&stream.user) else {
        return Ok(Some(Ending::access_changed()));
    };
    let client = stream.client.ip();
    let lock_subject = LockSubject {
        user: &stream.user,
        roles: &subject.user.roles,
        client,
        device: None,
        login: None,
    };
    if let Some(locked) = facts.locked(&lock_subject) {
        return Ok(Some(locked));
    }
    let now = subject.is_from(client);
    if !stream.may_go_on(&now) {
        return Ok(Some(Ending::access_changed()));
    }
    stream.set_cutoffs(now.terms().cutoffs);
    Ok(None)
}

async fn cut_revoked(sessions: &Sessions, store: &Store) -> Result<Vec<Arc<Life>>, StoreError> {
    let revoked: HashSet<DeviceId> = store.revoked_devices().await?.into_iter().collect();
    let ending = Ending {
        cause: Cause::Access,
        why: "the device was revoked".into(),
    };
    // Sessions first, which may be on a tunnel of another relay.
    let on_it = |session: &LiveSession| revoked.contains(&session.authorized.device().id);
    let ended = lives(sessions.live.end_where(on_it, &ending));
    for tunnel in sessions.tunnels.registry.kept() {
        if revoked.contains(&tunnel.device) {
            sessions.tunnels.registry.remove(&tunnel);
            tunnel.close(CloseCode::Revoked, "this device was revoked");
        }
    }
    for device in revoked {
        let Some(tunnel) = sessions.tunnels.registry.get(device) else {
            continue;
        };
        info!(%device, "the tunnel of a revoked device is closed");
        sessions.tunnels.registry.remove(&tunnel);
        tunnel.close(CloseCode::Revoked, "this device was revoked");
    }
    Ok(ended)
}

async fn end_killed(sessions: &Sessions, store: &Store) -> Result<Vec<Arc<Life>>, StoreError> {
    let mut ended = Vec::new();
    for kill in store.kills(sessions.relay).await? {
        let why = format!("ended by {}{}", By(kill.by.as_ref()), Colon(&kill.message));
        let ending = Ending {
            cause: Cause::Killed,
            why,
        };
        let is_it = |session: &LiveSession| session.id == kill.session;
        ended.extend(lives(sessions.live.end_where(is_it, &ending)));
        let is_it = |stream: &ConsoleStream| stream.id == kill.session;
        ended.extend(sessions.live.end_consoles_where(is_it, &ending));
    }
    Ok(ended)
}

/// Ends a connection and the sessions on it, which it gives. They send their final status first.
fn end_client(sessions: &Arc<Sessions>, client: Arc<Client>, ending: Ending) -> Vec<Arc<Life>> {
    // First this: a session that is not in the registry yet looks at it when it is.
    let first = client.begin_close(ending.clone());
    let on_it = |session: &LiveSession| session.owner == client.id;
    let mut ended = lives(sessions.live.end_where(on_it, &ending));
    let on_it = |stream: &ConsoleStream| stream.owner == client.id;
    ended.extend(sessions.live.end_consoles_where(on_it, &ending));
    if first {
        let (report, has_sessions) = (sessions.report.clone(), !ended.is_empty());
        tokio::spawn(async move {
            if has_sessions {
                // They report themselves, and send their final status first.
                client.wait_over(FINAL_STATUS_TIMEOUT).await;
            } else {
                report.connection_ended(&client, &ending).await;
            }
            client.close(&ending.why).await;
        });
    }
    ended
}

fn lives(sessions: Vec<Arc<LiveSession>>) -> Vec<Arc<Life>> {
    let life = |session: Arc<LiveSession>| session.life.clone();
    sessions.into_iter().map(life).collect()
}

async fn all_drained(sessions: &[Arc<Life>]) -> bool {
    let deadline = clock::instant() + ENFORCE_TIMEOUT;
    for session in sessions {
        if !session.wait_drained(deadline).await {
            return false;
        }
    }
    true
}
