//! A session that was decided on begins: in the registry first, then what was decided is looked at again, then the
//! recording, the audit log, and the device.

use std::sync::Arc;

use holdfast_protocol::ids::Login;
use holdfast_protocol::limits::{CONTENT_MAX_MINOR, ON_DISCONNECT_MINOR, TERMS_MINOR};
use holdfast_protocol::wire::{Open, Pty, SessionTerms};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{debug, error};

use super::older;
use super::programs;
use crate::access::decision::Authorized;
use crate::access::policy::Ability;
use crate::limits::FINAL_STATUS_TIMEOUT;
use crate::model::request::ProcessRequest;
use crate::recording::limits::MAX_SHOWN_COMMAND;
use crate::session::Sessions;
use crate::session::admission::AdmittedRoute;
use crate::session::admission::names;
use crate::session::admission::recorded;
use crate::session::client::Client;
use crate::session::client::target::SshTarget;
use crate::session::ending::{Cause, Ending};
use crate::session::forward::agent::AgentForwarding;
use crate::session::forward::channel::ChannelOpener;
use crate::session::input::InputReceiver;
use crate::session::output::Gone;
use crate::session::output::Output;
use crate::session::process::splice::{self as bridge, SplicedSession};
use crate::session::refusal::Refusal;
use crate::session::registry::life::Activity;
use crate::session::registry::{About, LiveSession};
use crate::session::stream::notices;
use crate::store::{ClonePair, Device};
use crate::tunnel::peer::route::DeviceRoute;

/// The request of an operator to start something.
pub(crate) struct ProcessAsk {
    /// The SSH connection.
    pub client: Arc<Client>,
    /// The route to the device.
    pub way: AdmittedRoute,
    /// The account.
    pub login: Login,
    /// The work to run.
    pub work: ProcessRequest,
    /// The work that was asked for, if `work` is forced instead.
    pub original_command: Option<Vec<u8>>,
    /// The terminal.
    pub pty: Option<Pty>,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// The way to the operator's SSH agent, if it was asked for and granted.
    pub agent: Option<Arc<dyn ChannelOpener>>,
    /// Gets the live session as soon as there is one: the requester may have to end it.
    pub entered: Option<oneshot::Sender<Arc<LiveSession>>>,
    /// The input from the operator.
    pub input: InputReceiver,
    /// The output to the operator.
    pub outlet: Arc<dyn Output>,
}

impl Sessions {
    /// Starts what was asked for, if it is allowed, and serves it to its end.
    pub(crate) async fn start(self: &Arc<Self>, mut ask: ProcessAsk) {
        let device = &ask.way.reach.device().name;
        let minor = ask.way.route.minor();
        let cut = older::fit(minor, device, &mut ask.env, &mut ask.pty);
        let notices = async {
            for sentence in &cut {
                ask.outlet.notice(sentence, "\r\n").await?;
            }
            Ok::<_, Gone>(())
        };
        // A client that takes no words does not keep its session from beginning.
        let _ = timeout(FINAL_STATUS_TIMEOUT, notices).await;
        let (client, way) = (ask.client, ask.way);
        let target = SshTarget::Device(ask.login.clone(), way.reach.device().name.clone());
        let begun = async {
            let ability = ability(&ask.work);
            let authorized = way.reach.authorize(&ask.login, ability);
            let authorized = authorized?;
            if programs::runs_mosh(&ask.work) {
                return Err(Refusal::Mosh(authorized.device().name.clone()));
            }
            let mut terms = terms(&authorized, way.route.minor())?;
            // The right to it was looked at when it was asked for, and again for whatever comes by it.
            terms.agent = ask.agent.is_some()
                && matches!(ability, Ability::Shell | Ability::Exec)
                && way.route.minor() >= TERMS_MINOR;
            // What is seen on a terminal is kept whole.
            terms.content_max = terms.content_max.filter(|_| ask.pty.is_none());
            let id = Self::new_session_id()?;
            let (principal, _) = client.principal().ok_or(Refusal::NotAuthenticated)?;
            let about = About {
                actor: principal.into(),
                device: way.route.facts_of(authorized.device()),
                command: shown(&ask.work),
                terminal: ask.pty.is_some(),
                destination: None,
                activity: activity(&ask.work, ask.pty.is_some()),
            };
            let mut open = Open {
                session: id,
                user: authorized.user().name.clone(),
                login: ask.login,
                request: ask.work.clone().into(),
                pty: ask.pty,
                env: ask.env,
                client: client.address,
                server: client.server,
                original_command: ask.original_command,
                recording: None,
                terms,
                forward_log: None,
            };
            // First into the registry, then the check.
            let live = self.live.enter(id, authorized, about, &client);
            if let Some(Err(unwanted)) = ask.entered.map(|to| to.send(live.session().clone())) {
                let why = "given up before it began".into();
                let cause = Cause::Interrupted;
                unwanted.end(Ending { cause, why });
            }
            self.check(&client, live.session(), way.version).await?;
            names::deny_locked(&self.store, live.session(), minor, &mut open.terms);
            debug!(session = %id, selects = self.store.selects(), "session admitted");
            let recorded = recorded::begin(self, live.session(), &way.route, &open).await?;
            let (recording, recorded) = recorded.unzip();
            let mut open = Open { recording, ..open };
            if open.recording.is_none() {
                open.terms.content_max = None;
            }
            if let Err(refusal) = self
                .report
                .session_start(live.session(), &open, &ask.work)
                .await
            {
                recorded::forget(recorded).await;
                return Err(refusal);
            }
            Ok((live, open, recorded))
        };
        let begun: Result<_, Refusal> = begun.await;
        self.tell(&client, &target, target.device(), &begun).await;
        let (live, open, recorded) = match begun {
            Ok(begun) => begun,
            Err(refusal) => {
                way.lease.release().await;
                return notices::refuse(&*ask.outlet, &refusal).await;
            }
        };
        let outlet = ask.outlet;
        let agent = ask.agent.filter(|_| open.terms.agent);
        let agent = agent.map(|opener| AgentForwarding {
            sessions: self.clone(),
            client: client.clone(),
            login: open.login.clone(),
            device: way.reach.device().name.clone(),
            opener,
            places: AgentForwarding::places(),
        });
        let warning = self.warning_of(way.reach.device(), &way.route);
        let session = SplicedSession {
            drain: self.tunnels.drains.watch(way.route.relay()),
            agent,
            runs_scp: programs::runs_scp(&ask.work),
            route: way.route,
            open,
            input: ask.input,
            outlet: outlet.clone(),
            live,
            lease: way.lease,
            report: self.report.clone(),
            store: self.store.clone(),
            fence: self.tunnels.fence.clone(),
            recorded,
            warning,
        };
        // A task of its own: should it panic, its slot and its place go with it, and its client is not
        // left with a channel that is not served.
        if let Err(error) = tokio::spawn(bridge::run(session)).await {
            error!(%error, "a session's task failed");
            outlet.close().await;
        }
    }
}

impl Sessions {
    /// Returns what an operator reads at the start of a session on a device that is two machines.
    fn warning_of(&self, device: &Device, route: &DeviceRoute) -> Option<String> {
        let ClonePair { first, second } = self.peers.clones(device.id, route)?;
        let name = &device.name;
        Some(format!(
            "warning: two machines use the key of {name} ({first} and {second}): this session is on one of them; `relay doctor` shows the remedy"
        ))
    }
}

/// Returns the terms that a session's device enforces; an error is a sentence for its operator.
fn terms(authorized: &Authorized, minor: u16) -> Result<SessionTerms, Refusal> {
    let held = &authorized.terms().sftp;
    let sftp = match authorized.ability() {
        Ability::Sftp => held.terms()?,
        _ => None,
    };
    if sftp.is_some() && minor < TERMS_MINOR {
        return Err(Refusal::OldAgent {
            device: authorized.device().name.clone(),
            what: format!("restrict sftp as your roles require ({held})"),
        });
    }
    let on_disconnect = authorized.terms().on_disconnect.into();
    let content_max = authorized.terms().record_content.bytes();
    Ok(SessionTerms {
        sftp,
        agent: false,
        denied_logins: names::denied_logins(authorized, minor)?,
        // An older device does not look for it, and takes every reset for an order to stop.
        on_disconnect: (minor >= ON_DISCONNECT_MINOR).then_some(on_disconnect),
        // Of an older device everything is expected, and it keeps everything.
        content_max: content_max.filter(|_| minor >= CONTENT_MAX_MINOR),
    })
}

/// Returns what counts as activity: at a terminal, the input. A command without one is at work as long as it runs.
fn activity(work: &ProcessRequest, terminal: bool) -> Activity {
    match work {
        ProcessRequest::Subsystem(_) => Activity::Bytes,
        _ if terminal => Activity::Input,
        ProcessRequest::Exec(_) => Activity::Running,
        _ => Activity::Bytes,
    }
}

fn ability(work: &ProcessRequest) -> Ability {
    match work {
        ProcessRequest::Shell => Ability::Shell,
        ProcessRequest::Exec(_) => Ability::Exec,
        ProcessRequest::Subsystem(_) => Ability::Sftp,
    }
}

/// Returns the beginning of a command, for listings.
fn shown(work: &ProcessRequest) -> Option<String> {
    let ProcessRequest::Exec(command) = work else {
        return None;
    };
    let begin = command.get(..MAX_SHOWN_COMMAND).unwrap_or(command);
    Some(String::from_utf8_lossy(begin).into_owned())
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::limits::{DENIED_LOGINS_MINOR, MAX_DENIED_LOGINS};

    use super::*;
    use crate::access::decision::{self, Facts};
    use crate::access::tests::fixture::{device, labels, login, role, subject};

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
            terms(&held, TERMS_MINOR - 1).unwrap_err().to_string(),
            "the agent on kitchen-cam is too old to restrict sftp as your roles require (read-only, within /srv): update it"
        );
        let sftp = terms(&held, TERMS_MINOR).unwrap().sftp.unwrap();
        assert_eq!((sftp.read_only, sftp.root.as_deref()), (true, Some("/srv")));
        // Commands have no constraints, and neither have users without such a role.
        let free = authorized("", Ability::Sftp);
        let command = authorized("sftp = { read_only = true }", Ability::Exec);
        for authorized in [free, command] {
            assert_eq!(terms(&authorized, 0).unwrap(), SessionTerms::default());
        }
    }

    #[test]
    fn bound_of_content_travels_to_agents_that_know_it() {
        let allow = "allow = { labels = { '*' = '*' }, logins = ['*'], abilities = ['exec'] }";
        let bound = |options: &str, minor| {
            let facts = Facts {
                subject: &subject(vec![role("tech", &format!("{options}\n{allow}"))]),
                client: "203.0.113.9".parse().unwrap(),
                name: "kitchen-cam",
                device: Some(&device(labels(&[]), None)),
            };
            let reach = decision::reach(facts).unwrap();
            let authorized = reach.authorize(&login("pi"), Ability::Exec).unwrap();
            terms(&authorized, minor).unwrap().content_max
        };
        let table = [
            ("", CONTENT_MAX_MINOR, Some(16 << 20)),
            ("", CONTENT_MAX_MINOR - 1, None),
            ("record_content = '1 MiB'", CONTENT_MAX_MINOR, Some(1 << 20)),
            ("record_content = 'unlimited'", CONTENT_MAX_MINOR, None),
        ];
        for (options, minor, expected) in table {
            assert_eq!(bound(options, minor), expected, "{options} {minor}");
        }
    }

    #[test]
    fn denied_logins_travel_to_agents_that_know_them() {
        let allow = "allow = { labels = { '*' = '*' }, logins = ['*'], abilities = ['exec'] }";
        let authorized = |deny: &str| {
            let facts = Facts {
                subject: &subject(vec![role("tech", allow), role("d", deny)]),
                client: "203.0.113.9".parse().unwrap(),
                name: "kitchen-cam",
                device: Some(&device(labels(&[("site", "attic")]), None)),
            };
            let reach = decision::reach(facts).unwrap();
            reach.authorize(&login("toor"), Ability::Exec).unwrap()
        };
        let denied = |deny: &str, minor| {
            let terms = terms(&authorized(deny), minor).unwrap();
            let names = terms.denied_logins.iter().map(ToString::to_string);
            names.collect::<Vec<_>>()
        };
        let deny = "deny = [{ logins = ['root', 'pi'] }, { logins = ['root', '{user}'] }]";
        assert_eq!(denied(deny, DENIED_LOGINS_MINOR), ["alice", "pi", "root"]);
        assert_eq!(denied(deny, DENIED_LOGINS_MINOR - 1), [""; 0]);
        // Rules about other devices or abilities say nothing here.
        for elsewhere in [
            "deny = { logins = ['root'], labels = { site = 'cellar' } }",
            "deny = { logins = ['root'], abilities = ['shell'] }",
        ] {
            assert_eq!(denied(elsewhere, DENIED_LOGINS_MINOR), [""; 0]);
        }
        let many: Vec<String> = (0..=MAX_DENIED_LOGINS).map(|n| format!("'u{n}'")).collect();
        let many = authorized(&format!("deny = {{ logins = [{}] }}", many.join(", ")));
        let refused = terms(&many, DENIED_LOGINS_MINOR).unwrap_err().to_string();
        assert!(refused.contains("deny 65 logins"), "{refused}");
    }
}
