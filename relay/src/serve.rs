//! The composition root: takes the relay's parts, runs them until it is told to stop, and stops them in
//! order.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use holdfast_protocol::ids::{DeviceName, Login, SessionId};
use holdfast_protocol::roster::{RelayEntry, Roster, SignedRoster};
use holdfast_protocol::wire::{CloseCode, Open, Pty, RelayMessage, Work};
use russh::MethodKind;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::access::decision::{self, Facts, Reach};
use crate::access::policy::Ability;
use crate::audit::{self, Audit, Event, EventKind};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::limits::{DRAIN_REDIAL, FAREWELL_TIMEOUT, STORE_TIMEOUT};
use crate::session::bridge::{self, Session};
use crate::session::live::Live;
use crate::ssh::algorithms;
use crate::ssh::auth::Principal;
use crate::ssh::channel::Opened;
use crate::ssh::jump::HostCertificates;
use crate::ssh::outlet::Outlet;
use crate::ssh::queue::InputReceiver;
use crate::ssh::server::{self, Connections};
use crate::ssh::target::Target;
use crate::state::{State, random_bytes};
use crate::store::{PresenceState, RelayId, Store, meta};
use crate::tunnel::listen;
use crate::tunnel::registry::{Registry, Tunnel};
use crate::watch;

/// A relay that serves.
#[derive(Debug)]
pub struct Relay {
    /// This run of it.
    pub id: RelayId,
    /// Its keys.
    pub state: State,
    /// What it remembers.
    pub store: Store,
    /// Where it tells what happens.
    pub audit: Audit,
    /// The tunnels that stand.
    pub registry: Registry,
    /// The sessions that live.
    pub live: Arc<Live>,
    /// The SSH connections that live.
    pub connections: Connections,
    /// The certificates of the jump way.
    pub host_certificates: HostCertificates,
    /// How long an SSH connection may take to authenticate.
    pub login_grace: Duration,
    roster: Mutex<SignedRoster>,
    stopping: AtomicBool,
}

/// What an operator asks to start.
pub struct Ask {
    /// The decision at the channel's opening.
    pub reach: Reach,
    /// The tunnel that stood then.
    pub tunnel: Arc<Tunnel>,
    /// The account.
    pub login: Login,
    /// What to run.
    pub work: Work,
    /// The terminal.
    pub pty: Option<Pty>,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// The operator's address.
    pub client: SocketAddr,
    /// The relay's.
    pub server: SocketAddr,
    /// From the operator.
    pub input: InputReceiver,
    /// To the operator.
    pub outlet: Outlet,
}

/// Runs the relay until SIGTERM or SIGINT, and says on stdout when it serves.
///
/// # Errors
/// A listener cannot be bound, or the store fails.
pub async fn run(config: Config, state: State, store: Store) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let listener = TcpListener::bind(config.ssh)
        .await
        .with_context(|| format!("cannot listen for SSH on {}", config.ssh))?;
    let endpoint = listen::bind(config.tunnel, &state)
        .with_context(|| format!("cannot listen for tunnels on {} (UDP)", config.tunnel))?;
    let (ssh, tunnel) = (listener.local_addr()?, endpoint.local_addr()?);
    let relay = start(&config, state, store, ssh, tunnel).await?;

    let ssh_config = algorithms::config(&relay.state.ssh_host, vec![], &[MethodKind::PublicKey]);
    let accepting = tokio::spawn(server::run(relay.clone(), listener, ssh_config));
    let tunnels = tokio::spawn(listen::run(relay.clone(), endpoint.clone()));
    let watching = tokio::spawn(watch::run(relay.clone()));
    println!("ready ssh={ssh} tunnel={tunnel}");
    let feeding = CancellationToken::new();
    let auditing = tokio::spawn(audit::serve(
        relay.audit.clone(),
        relay.store.clone(),
        config.audit.clone(),
        feeding.clone(),
    ));

    loop {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: stopping"),
            _ = interrupt.recv() => info!("SIGINT: stopping"),
            _ = hangup.recv() => {
                info!("SIGHUP: the audit log's file is opened anew");
                relay.audit.reopen();
                continue;
            }
        }
        break;
    }
    accepting.abort();
    stop(&relay, config.drain_grace).await;
    watching.abort();
    endpoint.close((CloseCode::Stopping as u32).into(), b"the relay stops");
    let _ = timeout(FAREWELL_TIMEOUT, endpoint.wait_idle()).await;
    tunnels.abort();
    relay.audit.note(Event::new(EventKind::RelayStopped)).await;
    let _ = timeout(FAREWELL_TIMEOUT, relay.audit.close()).await;
    feeding.cancel();
    let _ = timeout(FAREWELL_TIMEOUT, auditing).await;
    if let Err(error) = relay.store.relay_stopped(relay.id, Timestamp::now()).await {
        warn!(%error, "the store did not learn that the relay stops");
    }
    relay.store.close().await;
    Ok(())
}

async fn start(
    config: &Config,
    state: State,
    store: Store,
    ssh: SocketAddr,
    tunnel: SocketAddr,
) -> anyhow::Result<Arc<Relay>> {
    let id = RelayId::random()?;
    store.relay_started(id, Timestamp::now()).await?;
    let public = config.public_tunnel(tunnel)?;
    store.meta_set(meta::PUBLIC_TUNNEL, &public).await?;
    store
        .meta_set(meta::PUBLIC_SSH, &config.public_ssh(ssh)?)
        .await?;
    let audit = Audit::open(
        store.clone(),
        Some(public.clone()),
        config.audit.when_unwritable,
    );
    audit.note(Event::new(EventKind::RelayStarted)).await;
    let roster = make_roster(&state, &store, public).await?;
    Ok(Arc::new(Relay {
        id,
        state,
        store,
        audit,
        registry: Registry::default(),
        live: Arc::default(),
        connections: Connections::default(),
        host_certificates: HostCertificates::default(),
        login_grace: config.login_grace,
        roster: Mutex::new(roster),
        stopping: AtomicBool::new(false),
    }))
}

/// The present roster: the stored epoch, grown by one when the relay's address changed.
async fn make_roster(
    state: &State,
    store: &Store,
    address: String,
) -> anyhow::Result<SignedRoster> {
    let known = store.meta_get(meta::ROSTER).await?.unwrap_or_default();
    let (epoch, known_address) = known.split_once(' ').unwrap_or(("0", ""));
    let epoch: u64 = epoch
        .parse()
        .context("the roster's epoch in the database is damaged")?;
    let epoch = if known_address == address {
        epoch
    } else {
        epoch + 1
    };
    store
        .meta_set(meta::ROSTER, &format!("{epoch} {address}"))
        .await?;
    let relays = vec![RelayEntry {
        address,
        key: state.tunnel.public(),
    }];
    let roster = Roster {
        cluster: state.cluster.public(),
        epoch,
        relays,
    };
    Ok(roster.seal(|bytes| state.cluster.sign(bytes)))
}

/// Tells devices and operators, lets sessions end by themselves for a while, then ends them.
async fn stop(relay: &Arc<Relay>, grace: Duration) {
    relay.stopping.store(true, Ordering::Relaxed);
    for tunnel in relay.registry.all() {
        tunnel.tell(RelayMessage::Drain(DRAIN_REDIAL));
    }
    if timeout(grace, relay.live.wait_empty()).await.is_err() {
        relay.live.end_where(|_| true, "the relay is stopping");
        let _ = timeout(FAREWELL_TIMEOUT, relay.live.wait_empty()).await;
    }
    // A client whose session has ended goes by itself, and shows its exit status only if it may.
    let _ = timeout(FAREWELL_TIMEOUT, relay.connections.wait_empty()).await;
    let ends = relay.connections.all().into_iter().map(|connection| {
        tokio::spawn(async move { connection.end("the relay is stopping").await })
    });
    for end in ends.collect::<Vec<_>>() {
        let _ = end.await;
    }
}

impl Relay {
    /// Whether the relay takes no new tunnels any more: a device that came back now would replace the very
    /// tunnel that its last sessions run on.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The roster that devices get.
    #[must_use]
    pub fn roster(&self) -> SignedRoster {
        self.roster
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Decides what opening a channel leads to; the error is a sentence for the operator.
    ///
    /// # Errors
    /// Why it leads nowhere.
    pub async fn open(&self, principal: &Principal, target: &Target) -> Result<Opened, String> {
        match target {
            Target::Relay => Ok(Opened::Console),
            Target::Unusable(sentence) => Err(sentence.clone()),
            Target::Device(_, name) => {
                self.audit.admits().map_err(|error| error.to_string())?;
                let (reach, tunnel) = self.reach(principal, name).await?;
                Ok(Opened::Device(Box::new(reach), tunnel))
            }
        }
    }

    /// Decides whether somebody may reach a device, and finds its tunnel; the error is a sentence for the
    /// operator.
    ///
    /// # Errors
    /// Why not.
    pub async fn reach(
        &self,
        principal: &Principal,
        name: &DeviceName,
    ) -> Result<(Reach, Arc<Tunnel>), String> {
        let unavailable =
            || String::from("the relay's store does not answer: try again in a minute");
        let looked_up = timeout(STORE_TIMEOUT, async {
            let user = self.store.user(&principal.user.name).await?;
            let device = self.store.device_by_name(name).await?;
            Ok::<_, crate::store::StoreError>((user, device))
        });
        let (user, device) = match looked_up.await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                error!(%error, "the store cannot look up a device");
                return Err(unavailable());
            }
            Err(_) => return Err(unavailable()),
        };
        let user = user.ok_or_else(|| format!("user \"{}\" was removed", principal.user.name))?;
        let facts = Facts {
            user: &user,
            name: name.as_str(),
            device: device.as_ref(),
        };
        let reach = decision::reach(facts).map_err(|denied| denied.to_string())?;
        match self.registry.get(reach.device().id) {
            Some(tunnel) => Ok((reach, tunnel)),
            None => Err(offline(&reach)),
        }
    }

    /// Starts what was asked for, if it is allowed, and serves it to its end.
    pub async fn start(&self, ask: Ask) {
        let ability = match &ask.work {
            Work::Shell => Ability::Shell,
            Work::Exec(_) => Ability::Exec,
            Work::Subsystem(_) => Ability::Sftp,
        };
        let authorized = match ask.reach.authorize(&ask.login, ability) {
            Ok(authorized) => authorized,
            Err(denied) => return bridge::refuse(&ask.outlet, &denied.to_string()).await,
        };
        let Ok(id) = random_bytes().map(SessionId) else {
            return bridge::refuse(&ask.outlet, "the relay has no random numbers").await;
        };
        let open = Open {
            session: id,
            user: authorized.user().name.clone(),
            login: ask.login,
            work: ask.work,
            pty: ask.pty,
            env: ask.env,
            client: ask.client,
            server: ask.server,
        };
        let live = self.live.enter(id, &authorized, ask.client);
        let (tunnel, input, outlet) = (ask.tunnel, ask.input, ask.outlet);
        bridge::run(Session {
            authorized,
            tunnel,
            open,
            input,
            outlet,
            live,
        })
        .await;
    }
}

fn offline(reach: &Reach) -> String {
    let (device, presence) = (reach.device(), reach.device().presence);
    match (presence.state, presence.since.or(presence.last_seen)) {
        (PresenceState::Online | PresenceState::Stale, _) => {
            format!("{} is reconnecting: try again in a moment", device.name)
        }
        (PresenceState::Offline, Some(since)) => {
            let ago = crate::clock::Coarse(Timestamp::now().since(since)).words();
            format!("{} is offline since {since} ({ago} ago)", device.name)
        }
        (PresenceState::Offline, None) => {
            format!(
                "{} has not been online yet: is `edge-agent run` running there?",
                device.name
            )
        }
    }
}
