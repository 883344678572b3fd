//! The composition root: takes the relay's parts, runs them until it is told to stop, and stops them in
//! order.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use holdfast_protocol::identity::release::ReleaseKey;
use holdfast_protocol::identity::roster::{RelayEntry, Roster, SignedRoster};
use holdfast_protocol::wire::{CloseCode, RelayMessage};
use russh::MethodKind;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::audit::{self, Audit, Event, EventKind};
use crate::bulk::Places;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::limits::{DRAIN_REDIAL, FAREWELL_TIMEOUT};
use crate::output::print;
use crate::recording::{self, Recordings};
use crate::session::admission::lease::{Leases, Releaser};
use crate::session::registry::publish;
use crate::session::registry::{Cause, Ending, Live};
use crate::session::report::Report;
use crate::ssh::algorithms;
use crate::ssh::console;
use crate::ssh::jump::{self, HostCertificates};
use crate::ssh::server::{self, Connections};
use crate::state::{HOST_KEY_ALIAS, State};
use crate::store::{RelayId, Store, meta};
use crate::tunnel::clones::Clones;
use crate::tunnel::listen::Handshakes;
use crate::tunnel::registry::Registry;
use crate::tunnel::socket::NotedIds;
use crate::tunnel::{listen, reset};
use crate::watch;

/// A relay that serves.
#[derive(Debug)]
pub(crate) struct Relay {
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
    /// By which connection ids devices speak.
    pub noted_ids: Arc<NotedIds>,
    /// Devices that are two machines.
    pub clones: Clones,
    /// The sessions that live.
    pub live: Arc<Live>,
    /// The slots of quotas that are in use here.
    pub leases: Arc<Leases>,
    /// Where sessions are reported.
    pub report: Report,
    /// What is recorded.
    pub recordings: Recordings,
    /// The SSH connections that live.
    pub connections: Connections,
    /// Room for the files that are copied to many devices.
    pub copies: Places,
    /// The certificates of the jump way.
    pub host_certificates: HostCertificates,
    /// How long an SSH connection may take to authenticate.
    pub login_grace: Duration,
    /// What devices pin when they enrol.
    pub release_key: Option<ReleaseKey>,
    /// How a console command begins, for those who are told of one.
    pub console: String,
    roster: Mutex<SignedRoster>,
    stopping: AtomicBool,
}

/// Runs the relay until SIGTERM or SIGINT, and says on stdout when it serves.
///
/// # Errors
/// A listener cannot be bound, or the store fails.
pub(crate) async fn run(config: Config, state: State, store: Store) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let listener = TcpListener::bind(config.ssh)
        .await
        .with_context(|| format!("cannot listen for SSH on {}", config.ssh))?;
    let bound = listen::bind(config.tunnel, &state)
        .with_context(|| format!("cannot listen for tunnels on {} (UDP)", config.tunnel))?;
    let endpoint = bound.endpoint;
    let (ssh, tunnel) = (listener.local_addr()?, endpoint.local_addr()?);
    let left = store.left_tunnels(Timestamp::now()).await?;
    let (relay, releaser) = start(&config, state, store, bound.noted, ssh, tunnel).await?;

    let names = own_names(&config, ssh)?;
    let certificates = jump::certificates(&relay.state, "relay", &names);
    let ssh_config = algorithms::config(
        &relay.state.ssh_host,
        certificates,
        &[MethodKind::PublicKey],
    );
    let accepting = tokio::spawn(server::run(relay.clone(), listener, ssh_config));
    let handshakes = Handshakes::default();
    let tunnels = tokio::spawn(listen::run(
        relay.clone(),
        endpoint.clone(),
        handshakes.clone(),
    ));
    let resetting = tokio::spawn(reset::run(
        relay.clone(),
        bound.socket,
        bound.reset,
        left,
        handshakes,
    ));
    let watching = tokio::spawn(watch::run(relay.clone()));
    let publishing = tokio::spawn(publish::run(relay.clone()));
    let keeping = tokio::spawn(recording::keep(relay.recordings.clone()));
    let releasing = tokio::spawn(releaser.run(Arc::downgrade(&relay.leases)));
    // It serves, whether or not the line that says so can be written.
    print(
        io::stdout(),
        format!("ready ssh={ssh} tunnel={tunnel}\n").as_bytes(),
    );
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
    resetting.abort();
    stop(&relay, config.drain_grace).await;
    watching.abort();
    publishing.abort();
    releasing.abort();
    keeping.abort();
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

/// The names by which clients know the relay. A certificate names no port.
fn own_names(config: &Config, bound: SocketAddr) -> anyhow::Result<Vec<String>> {
    let public = config.public_ssh(bound)?;
    let host = public.rsplit_once(':').map_or(&*public, |(host, _)| host);
    let mut names = vec![
        HOST_KEY_ALIAS.to_owned(),
        host.trim_matches(['[', ']']).to_owned(),
    ];
    if !bound.ip().is_unspecified() {
        names.push(bound.ip().to_string());
    }
    Ok(names)
}

async fn start(
    config: &Config,
    state: State,
    store: Store,
    noted_ids: Arc<NotedIds>,
    ssh: SocketAddr,
    tunnel: SocketAddr,
) -> anyhow::Result<(Arc<Relay>, Releaser)> {
    let id = RelayId::random()?;
    store.relay_started(id, Timestamp::now()).await?;
    let public = config.public_tunnel(tunnel)?;
    store.meta_set(meta::PUBLIC_TUNNEL, &public).await?;
    let public_ssh = config.public_ssh(ssh)?;
    store.meta_set(meta::PUBLIC_SSH, &public_ssh).await?;
    store.meta_set(meta::BOUND_SSH, &ssh.to_string()).await?;
    let audit = Audit::open(
        store.clone(),
        Some(public.clone()),
        config.audit.when_unwritable,
    );
    audit.note(Event::new(EventKind::RelayStarted)).await;
    let roster = make_roster(&state, &store, public).await?;
    let (leases, releaser) = Leases::new(store.clone(), id);
    let report = Report::new(audit.clone());
    let settings = config.recordings.clone();
    let recordings = Recordings::start(id, &state, store.clone(), audit.clone(), settings).await?;
    let relay = Arc::new(Relay {
        id,
        state,
        store,
        audit,
        registry: Registry::default(),
        noted_ids,
        clones: Clones::new(config.on_clone),
        live: Arc::default(),
        leases,
        report,
        recordings,
        connections: Connections::new(config.penalty_exempt.clone()),
        copies: Places::default(),
        host_certificates: HostCertificates::default(),
        login_grace: config.login_grace,
        release_key: config.release_key,
        console: console::prefix(&public_ssh),
        roster: Mutex::new(roster),
        stopping: AtomicBool::new(false),
    });
    Ok((relay, releaser))
}

/// The present roster: the stored epoch, grown by one when the relay's address or the recordings' key
/// changed.
async fn make_roster(
    state: &State,
    store: &Store,
    address: String,
) -> anyhow::Result<SignedRoster> {
    let known = store.meta_get(meta::ROSTER).await?.unwrap_or_default();
    let recording = state.recording.public();
    let facts = format!("{address} {}", recording.id());
    let (epoch, known_facts) = known.split_once(' ').unwrap_or(("0", ""));
    let epoch: u64 = epoch
        .parse()
        .context("the roster's epoch in the database is damaged")?;
    let epoch = if known_facts == facts {
        epoch
    } else {
        epoch + 1
    };
    store
        .meta_set(meta::ROSTER, &format!("{epoch} {facts}"))
        .await?;
    let relays = vec![RelayEntry {
        address,
        key: state.tunnel.public(),
    }];
    let roster = Roster {
        cluster: state.cluster.public(),
        epoch,
        relays,
        recording: Some(recording),
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
        let ending = Ending {
            cause: Cause::Stopping,
            why: "the relay is stopping".into(),
        };
        relay.live.end_where(|_| true, &ending);
        let _ = timeout(FAREWELL_TIMEOUT, relay.live.wait_empty()).await;
    }
    // Console commands that have no end by themselves hold up nobody's sessions.
    let ending = Ending {
        cause: Cause::Stopping,
        why: "the relay is stopping".into(),
    };
    relay.live.end_consoles_where(|_| true, &ending);
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
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The roster that devices get.
    #[must_use]
    pub(crate) fn roster(&self) -> SignedRoster {
        self.roster
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
