//! From "somebody asks" to a session that runs: facts, locks, the decision, a slot, and the board.
//!
//! No change of access gets past it. Each decision notes the version of access that it was made on; a
//! session enters the board, where it can be told to end, and only then looks whether that version still
//! stands. So a change is either seen here, or whoever makes it sees the session.

use std::sync::Arc;

use holdfast_protocol::ids::{DeviceName, Login, SessionId};
use holdfast_protocol::limits::TERMS_MINOR;
use holdfast_protocol::wire::{Open, Pty, SessionTerms, Work};
use tracing::error;

use super::bridge::{self, Session};
use super::ending;
use super::forward::Destination;
use super::forward::agent::{AgentWay, Opener};
use super::known::{Known, Which};
use super::lease::{Lease, LeaseError};
use super::live::{About, LiveGuard, LiveSession};
use super::recorded;
use super::refusal;
use super::sink::Sink;
use crate::access::decision::{self, Authorized, Facts, Reach};
use crate::access::policy::Ability;
use crate::access::quota::Quota;
use crate::audit::DeviceFacts;
use crate::limits::MAX_SHOWN_COMMAND;
use crate::serve::Relay;
use crate::ssh::auth::{self, Principal};
use crate::ssh::channel::Opened;
use crate::ssh::connection::Connection;
use crate::ssh::queue::InputReceiver;
use crate::ssh::target::Target;
use crate::state::random_bytes;
use crate::tunnel::registry::Tunnel;

/// The way to a device that a channel was opened for.
#[derive(Debug)]
pub struct Way {
    /// The decision at the channel's opening.
    pub reach: Reach,
    /// The tunnel that stood then.
    pub tunnel: Arc<Tunnel>,
    /// The slot of the user's quota.
    pub lease: Lease,
    /// The version of access that the decision was made on.
    pub version: i64,
}

/// The way to a device that a forward goes.
pub(super) struct ForwardWay {
    reach: Reach,
    /// The tunnel that stood then.
    pub(super) tunnel: Arc<Tunnel>,
    /// The version of access that the decision was made on.
    pub(super) version: i64,
}

impl ForwardWay {
    /// Whether the user may do this under this login; an error is a sentence for them.
    pub(super) fn authorize(&self, login: &Login, ability: Ability) -> Result<Authorized, String> {
        let authorized = self.reach.authorize(login, ability);
        authorized.map_err(|denied| denied.to_string())
    }
}

/// What an operator asks to start.
pub struct Ask {
    /// On which connection.
    pub connection: Arc<Connection>,
    /// Where to.
    pub way: Way,
    /// The account.
    pub login: Login,
    /// What to run.
    pub work: Work,
    /// What was asked for, if `work` is forced instead.
    pub original_command: Option<Vec<u8>>,
    /// The terminal.
    pub pty: Option<Pty>,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// The way to the operator's SSH agent, if it was asked for and granted.
    pub agent: Option<Opener>,
    /// From the operator.
    pub input: InputReceiver,
    /// To the operator.
    pub outlet: Sink,
}

impl Relay {
    /// Admits a connection whose client has just proved who it is: locks, and a slot. The slot stays with
    /// the connection. The error is a sentence to disconnect with.
    ///
    /// # Errors
    /// Why it may not stand.
    pub async fn admit(&self, connection: &Connection) -> Result<(), String> {
        let Some((principal, target)) = connection.principal() else {
            return Err("nobody has logged in".into());
        };
        let user = &principal.user.name;
        let admitted = async {
            // The proof was looked up before the connection stood where whoever takes it away finds it.
            let proof = auth::still_proves(&self.store, principal);
            if !self.in_time(proof).await? {
                return Err("your access to this relay was changed".into());
            }
            let known = self.know(user, Which::None).await?;
            known.check_locks(connection, None, None)?;
            let terms = known.terms(connection);
            let limit = Quota::Connections.limit(&terms.limits);
            let lease = self.leases.take(Quota::Connections, user, limit).await;
            connection.admitted(lease.map_err(|error| error.to_string())?, terms.idle);
            Ok(())
        };
        let admitted: Result<(), String> = admitted.await;
        self.tell(connection, target, &admitted).await;
        admitted
    }

    /// Decides what opening a session channel leads to; `channels` are those that the connection has besides.
    /// The error is a sentence for the operator.
    ///
    /// # Errors
    /// Why it leads nowhere.
    pub async fn open(
        &self,
        connection: &Connection,
        target: &Target,
        channels: u32,
    ) -> Result<Opened, String> {
        let opened = match target {
            Target::Unusable(sentence) => Err(sentence.clone()),
            Target::Relay => self.open_console(connection, channels).await,
            Target::Device(login, name) => {
                self.open_device(connection, Some(login), name, channels)
                    .await
            }
        };
        self.tell(connection, target, &opened).await;
        opened
    }

    /// Decides whether somebody may jump to a device. Inside the jump each session is decided on again.
    ///
    /// # Errors
    /// Why not.
    pub async fn open_jump(
        &self,
        connection: &Connection,
        name: &DeviceName,
        channels: u32,
    ) -> Result<(), String> {
        let found = self.find(connection, None, name, channels).await;
        let found = found.map(drop);
        self.tell(connection, &Target::Relay, &found).await;
        found
    }

    /// Starts what was asked for, if it is allowed, and serves it to its end.
    pub async fn start(self: &Arc<Self>, ask: Ask) {
        let (connection, way) = (ask.connection, ask.way);
        let target = Target::Device(ask.login.clone(), way.reach.device().name.clone());
        let begun = async {
            let ability = ability(&ask.work);
            let authorized = way.reach.authorize(&ask.login, ability);
            let authorized = authorized.map_err(|denied| denied.to_string())?;
            if ending::runs_mosh(&ask.work) {
                return Err(refusal::mosh(&authorized.device().name));
            }
            let mut terms = terms(&authorized, way.tunnel.minor)?;
            // The right to it was looked at when it was asked for, and again for whatever comes by it.
            terms.agent = ask.agent.is_some()
                && matches!(ability, Ability::Shell | Ability::Exec)
                && way.tunnel.minor >= TERMS_MINOR;
            let id = Self::new_session_id()?;
            let (principal, _) = connection.principal().ok_or_else(nobody)?;
            let about = About {
                actor: principal.into(),
                device: DeviceFacts::on(authorized.device(), &way.tunnel),
                command: shown(&ask.work),
                destination: None,
            };
            let client = connection.client;
            let open = Open {
                session: id,
                user: authorized.user().name.clone(),
                login: ask.login,
                work: ask.work,
                pty: ask.pty,
                env: ask.env,
                client,
                server: connection.server,
                original_command: ask.original_command,
                recording: None,
                terms,
                told: None,
            };
            // First onto the board, then the check.
            let live = self.live.enter(id, authorized, about, client);
            self.check(&connection, live.session(), way.version).await?;
            let recorded = recorded::begin(self, live.session(), &way.tunnel).await?;
            let (recording, recorded) = recorded.unzip();
            let open = Open { recording, ..open };
            if let Err(sentence) = self.report.session_start(live.session(), &open).await {
                recorded::forget(recorded).await;
                return Err(sentence);
            }
            Ok((live, open, recorded))
        };
        let begun: Result<_, String> = begun.await;
        self.tell(&connection, &target, &begun).await;
        let (live, open, recorded) = match begun {
            Ok(begun) => begun,
            Err(sentence) => {
                way.lease.release().await;
                return ending::refuse(&ask.outlet, &sentence).await;
            }
        };
        let outlet = Arc::new(ask.outlet);
        let agent = ask.agent.filter(|_| open.terms.agent);
        let agent = agent.map(|opener| AgentWay {
            relay: self.clone(),
            connection: connection.clone(),
            login: open.login.clone(),
            device: way.reach.device().name.clone(),
            opener,
            places: AgentWay::places(),
        });
        let session = Session {
            agent,
            tunnel: way.tunnel,
            open,
            input: ask.input,
            outlet: outlet.clone(),
            live,
            lease: way.lease,
            report: self.report.clone(),
            recorded,
        };
        // A task of its own: should it panic, its slot and its place go with it, and its client is not
        // left with a channel that nobody serves.
        if let Err(error) = tokio::spawn(bridge::run(session)).await {
            error!(%error, "a session's task failed");
            outlet.close().await;
        }
    }

    /// The way to a device for a forward: it takes no slot.
    pub(super) async fn find_way(
        &self,
        connection: &Connection,
        login: &Login,
        name: &DeviceName,
        channels: u32,
    ) -> Result<ForwardWay, String> {
        let found = self.find(connection, Some(login), name, channels).await?;
        let (known, reach, tunnel) = found;
        Ok(ForwardWay {
            reach,
            tunnel,
            version: known.version,
        })
    }

    /// Puts a forward onto the board.
    pub(super) fn enter_forward(
        &self,
        open: &Open,
        authorized: Authorized,
        tunnel: &Tunnel,
        principal: &Principal,
        to: &Destination,
    ) -> LiveGuard {
        let about = About {
            actor: principal.into(),
            device: DeviceFacts::on(authorized.device(), tunnel),
            command: Some(to.to_string()),
            destination: Some(to.clone()),
        };
        self.live
            .enter(open.session, authorized, about, open.client)
    }

    pub(super) fn new_session_id() -> Result<SessionId, String> {
        let id = random_bytes().map(SessionId);
        id.map_err(|_| "the relay has no random numbers".into())
    }

    async fn open_console(&self, connection: &Connection, channels: u32) -> Result<Opened, String> {
        let (principal, _) = connection.principal().ok_or_else(nobody)?;
        let known = self.know(&principal.user.name, Which::None).await?;
        known.check_locks(connection, None, None)?;
        self.check_channels(&known, connection, channels)?;
        Ok(Opened::Console)
    }

    async fn open_device(
        &self,
        connection: &Connection,
        login: Option<&Login>,
        name: &DeviceName,
        channels: u32,
    ) -> Result<Opened, String> {
        self.report.admits()?;
        let (known, reach, tunnel) = self.find(connection, login, name, channels).await?;
        let limit = Quota::Sessions.limit(&known.terms(connection).limits);
        let user = &known.subject.user.name;
        let lease = self.leases.take(Quota::Sessions, user, limit).await;
        let lease = lease.map_err(|error: LeaseError| error.to_string())?;
        Ok(Opened::Device(Box::new(Way {
            reach,
            tunnel,
            lease,
            version: known.version,
        })))
    }

    async fn find(
        &self,
        connection: &Connection,
        login: Option<&Login>,
        name: &DeviceName,
        channels: u32,
    ) -> Result<(Known, Reach, Arc<Tunnel>), String> {
        let (principal, _) = connection.principal().ok_or_else(nobody)?;
        let known = self.know(&principal.user.name, Which::Named(name)).await?;
        // What a lock on a device says, only those hear who may know of the device.
        known.check_locks(connection, None, None)?;
        self.check_channels(&known, connection, channels)?;
        let facts = Facts {
            subject: &known.subject,
            client: connection.client.ip(),
            name: name.as_str(),
            device: known.device.as_ref(),
        };
        let reach = decision::reach(facts).map_err(|denied| denied.to_string())?;
        known.check_locks(connection, Some(reach.device().id), login)?;
        match self.registry.get(reach.device().id) {
            Some(tunnel) => Ok((known, reach, tunnel)),
            None => Err(refusal::offline(reach.device(), known.now, &self.console)),
        }
    }

    /// Whether a session or forward that is on the board, and was decided on `version` of access, may start.
    pub(super) async fn check(
        &self,
        connection: &Connection,
        session: &LiveSession,
        version: i64,
    ) -> Result<(), String> {
        if let Some(ending) = connection.fate() {
            return Err(ending.why.clone());
        }
        let authorized = &session.authorized;
        let present = self.in_time(self.store.access_version()).await?;
        if present == version {
            return Ok(());
        }
        let (device, login) = (authorized.device().id, authorized.login());
        let user = &authorized.user().name;
        let known = self.know(user, Which::Known(device)).await?;
        known.check_locks(connection, Some(device), Some(login))?;
        let facts = Facts {
            subject: &known.subject,
            client: connection.client.ip(),
            name: authorized.device().name.as_str(),
            device: known.device.as_ref(),
        };
        let now = authorized.now(facts);
        let now = now.map_err(|denied| denied.to_string())?;
        if !session.may_go_on(&now) {
            return Err("your access to this relay was changed".into());
        }
        session.set_idle(now.terms().idle.clone());
        Ok(())
    }

    fn check_channels(
        &self,
        known: &Known,
        connection: &Connection,
        channels: u32,
    ) -> Result<(), String> {
        let limit = Quota::Channels.limit(&known.terms(connection).limits);
        let admitted = Quota::Channels.admit(limit, channels, &known.subject.user.name);
        admitted.map_err(|full| {
            self.leases.count_refusal(full.quota);
            full.to_string()
        })
    }

    /// Reports a refusal.
    async fn tell<T>(&self, connection: &Connection, target: &Target, said: &Result<T, String>) {
        if let Err(sentence) = said {
            let told = self.report.session_rejected(connection, target, sentence);
            told.await;
        }
    }
}

fn nobody() -> String {
    "nobody has logged in".into()
}

/// What a session's device holds it to; an error is a sentence for its operator.
fn terms(authorized: &Authorized, minor: u16) -> Result<SessionTerms, String> {
    let held = &authorized.terms().sftp;
    let sftp = match authorized.ability() {
        Ability::Sftp => held.terms().map_err(|apart| apart.to_string())?,
        _ => None,
    };
    if sftp.is_some() && minor < TERMS_MINOR {
        return Err(format!(
            "the agent on {} is too old to hold sftp to what your roles say ({held}): update it",
            authorized.device().name
        ));
    }
    Ok(SessionTerms { sftp, agent: false })
}

fn ability(work: &Work) -> Ability {
    match work {
        Work::Shell => Ability::Shell,
        Work::Exec(_) => Ability::Exec,
        Work::Subsystem(_) => Ability::Sftp,
        Work::Connect(_)
        | Work::Listen(_)
        | Work::Take(_)
        | Work::ConnectPath(_)
        | Work::ListenPath(_)
        | Work::Forwards => Ability::Forward,
    }
}

/// The beginning of a command, for listings.
fn shown(work: &Work) -> Option<String> {
    let Work::Exec(command) = work else {
        return None;
    };
    let begin = command.get(..MAX_SHOWN_COMMAND).unwrap_or(command);
    Some(String::from_utf8_lossy(begin).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::bed::{device, labels, login, role, subject};

    #[test]
    fn an_agent_that_knows_no_terms_serves_nothing_under_them() {
        let role = |options: &str| {
            let allow =
                "allow = { labels = { '*' = '*' }, logins = ['*'], abilities = ['sftp', 'exec'] }";
            subject(vec![role("tech", &format!("{options}\n{allow}"))])
        };
        let authorized = |options, ability| {
            let facts = Facts {
                subject: &role(options),
                client: "203.0.113.9".parse().unwrap(),
                name: "kitchen-cam",
                device: Some(&device(labels(&[]), None)),
            };
            let reach = decision::reach(facts).unwrap();
            reach.authorize(&login("pi"), ability).unwrap()
        };
        let held = authorized("sftp = { read_only = true, root = '/srv' }", Ability::Sftp);
        assert_eq!(
            terms(&held, TERMS_MINOR - 1).unwrap_err(),
            "the agent on kitchen-cam is too old to hold sftp to what your roles say (read-only, within /srv): update it"
        );
        let told = terms(&held, TERMS_MINOR).unwrap().sftp.unwrap();
        assert_eq!((told.read_only, told.root.as_deref()), (true, Some("/srv")));
        // Commands are held to nothing, and neither is who has no such role.
        let free = authorized("", Ability::Sftp);
        let command = authorized("sftp = { read_only = true }", Ability::Exec);
        for authorized in [free, command] {
            assert_eq!(terms(&authorized, 0), Ok(SessionTerms::default()));
        }
    }
}
