//! The composition root: takes the relay's parts, runs them until it is asked to stop, and stops them in
//! order.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_protocol::wire::{CloseCode, RelayMessage};
use quinn::Endpoint;
use russh::MethodKind;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::audit::{self, Audit, Event, EventKind};
use crate::bulk::PayloadSlots;
use crate::clock::{self, Timestamp};
use crate::config::Config;
use crate::fence::StoreFence;
use crate::limits::{DRAIN_REDIAL, FINAL_STATUS_TIMEOUT};
use crate::output::print;
use crate::recording::objects::backend::StorageBackend;
use crate::recording::{self, Recordings};
use crate::session::Sessions;
use crate::session::client::Clients;
use crate::session::client::lease::{Leases, Releaser};
use crate::session::ending::{Cause, Ending};
use crate::session::registry::drain;
use crate::session::registry::publish;
use crate::session::report::Report;
use crate::ssh::connections::Connections;
use crate::ssh::console::{self, ConsoleService};
use crate::ssh::host_certificates::{self, HostCertificates};
use crate::ssh::host_keys::HostKeys;
use crate::ssh::server;
use crate::ssh::stream::balancer::Balancers;
use crate::ssh::{Front, algorithms};
use crate::state::{HOST_KEY_ALIAS, State};
use crate::store::cluster::members::present;
use crate::store::{Durability, RelayId, ServingMember, Store, StoreError, meta};
use crate::tunnel::clones::Clones;
use crate::tunnel::listen::Handshakes;
use crate::tunnel::peer::Peers;
use crate::tunnel::peer::drains::{DrainWatch, Drains};
use crate::tunnel::registry::Registry;
use crate::tunnel::socket::NotedIds;
use crate::tunnel::tls::PeerTls;
use crate::tunnel::{ClusterFacts, Tunnels, listen, reset};
use crate::watch;
use crate::web::health::{HealthChecks, Readiness};

/// The services of a relay that serves.
struct Services {
    tunnels: Arc<Tunnels>,
    peers: Arc<Peers>,
    sessions: Arc<Sessions>,
    front: Arc<Front>,
    /// Gives slots of quotas back.
    releaser: Releaser,
}

/// Runs the relay until SIGTERM or SIGINT, and says on stdout when it serves. The console is the caller's.
///
/// # Errors
/// A listener cannot be bound, or the store fails.
pub(crate) async fn run(
    config: Config,
    state: State,
    store: Store,
    console: Arc<dyn ConsoleService>,
    health: HealthChecks,
) -> anyhow::Result<()> {
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
    let left = store.left_tunnels(state.member, Timestamp::now()).await?;
    let bounds = (ssh, tunnel, health.bound);
    let udp = (bound.noted, endpoint.clone());
    let parts = start(&config, state, store, console, udp, bounds).await?;
    let Services {
        tunnels,
        peers,
        sessions,
        front,
        releaser,
    } = parts;

    let names = own_names(&config, ssh)?;
    let certificates = host_certificates::certificates(&front.state, "relay", &names);
    let ssh_config = algorithms::config(
        &front.state.ssh_host,
        certificates,
        &[MethodKind::PublicKey],
    );
    bound.socket.obey(tunnels.fence.clone());
    let accepting = server::run(front.clone(), listener, ssh_config);
    let accepting = tokio::spawn(accept_until_drained(
        accepting,
        tunnels.drains.watch(None),
        health.readiness.clone(),
    ));
    let draining = tokio::spawn(drain::run(sessions.clone()));
    let handshakes = Handshakes::default();
    let listening = tokio::spawn(listen::run(
        tunnels.clone(),
        peers.clone(),
        endpoint.clone(),
        handshakes.clone(),
    ));
    let resetting = tokio::spawn(reset::run(
        tunnels.clone(),
        bound.socket,
        bound.reset,
        left,
        handshakes,
    ));
    let mut watching = tokio::spawn(watch::run(sessions.clone(), front.clone()));
    let publishing = tokio::spawn(publish::run(sessions.clone()));
    let keeping = tokio::spawn(recording::keep(sessions.recordings.clone()));
    let releasing = tokio::spawn(releaser.run(Arc::downgrade(&sessions.leases)));
    health.readiness.serves(
        sessions.store.clone(),
        tunnels.fence.clone(),
        front.audit.clone(),
    );
    let checks = health.bound.map(|health| format!(" health={health}"));
    let checks = checks.unwrap_or_default();
    // It serves, whether or not the line that says so can be written.
    print(
        io::stdout(),
        format!("ready ssh={ssh} tunnel={tunnel}{checks}\n").as_bytes(),
    );
    let feeding = CancellationToken::new();
    let auditing = tokio::spawn(audit::serve(
        front.audit.clone(),
        sessions.store.in_background().of_member(tunnels.member),
        config.audit.clone(),
        feeding.clone(),
    ));

    let mut over = None;
    loop {
        tokio::select! {
            ended = &mut watching => {
                over = Some(ended.context("the relay's regular work failed")?);
            }
            _ = terminate.recv() => info!("SIGTERM: stopping"),
            _ = interrupt.recv() => info!("SIGINT: stopping"),
            _ = hangup.recv() => {
                info!("SIGHUP: the audit log's file is reopened");
                front.audit.reopen();
                continue;
            }
        }
        break;
    }
    health.readiness.stops();
    accepting.abort();
    draining.abort();
    resetting.abort();
    // What was declared dead has nothing any more that could end by itself.
    let grace = match &over {
        Some(_) => Duration::ZERO,
        None => config.drain_grace,
    };
    stop(&tunnels, &sessions, &peers, grace).await;
    watching.abort();
    publishing.abort();
    releasing.abort();
    keeping.abort();
    tunnels.fence.let_packets_go();
    for tunnel in tunnels.registry.all() {
        tunnel.close(CloseCode::Stopping, "the relay stops");
    }
    endpoint.close((CloseCode::Stopping as u32).into(), b"the relay stops");
    let _ = timeout(FINAL_STATUS_TIMEOUT, endpoint.wait_idle()).await;
    listening.abort();
    front.audit.note(Event::new(EventKind::RelayStopped)).await;
    let _ = timeout(FINAL_STATUS_TIMEOUT, front.audit.close()).await;
    feeding.cancel();
    let _ = timeout(FINAL_STATUS_TIMEOUT, auditing).await;
    if let Err(error) = note_stop(&sessions).await {
        warn!(%error, "cannot store that the relay stops");
    }
    sessions.store.close().await;
    match over {
        Some(over) => Err(over.into()),
        None => Ok(()),
    }
}

/// Accepts connections until the relay drains. The listener is closed then.
async fn accept_until_drained(
    accepting: impl Future<Output = ()>,
    mut drain: DrainWatch,
    readiness: Readiness,
) {
    tokio::select! {
        // First what waits in the listener's queue: it came before.
        biased;
        () = accepting => {}
        () = drain.begun() => readiness.drains(),
    }
}

/// Returns the names by which clients know the relay: that of all operators, its own, and its address. `ssh` compares
/// names without the port, and `ssh-add -h` as they are in known_hosts: there a port other than 22 is part of the name.
fn own_names(config: &Config, bound: SocketAddr) -> anyhow::Result<Vec<String>> {
    let here = (!bound.ip().is_unspecified()).then(|| bound.to_string());
    let public = [config.public_ssh(bound)?, config.own_ssh(bound)?];
    let mut names = vec![HOST_KEY_ALIAS.to_owned()];
    for address in public.into_iter().chain(here) {
        let (host, port) = address.rsplit_once(':').unwrap_or((&address, "22"));
        let host = host.trim_matches(['[', ']']);
        let with_port = (port != "22").then(|| format!("[{host}]:{port}"));
        for name in [host.to_owned()].into_iter().chain(with_port) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// Notes in the store that this run is over.
async fn note_stop(sessions: &Sessions) -> Result<(), StoreError> {
    let mut tx = sessions.store.begin(Durability::Process).await?;
    tx.relay_stopped(sessions.relay, Timestamp::now()).await?;
    tx.commit().await
}

async fn start(
    config: &Config,
    state: State,
    store: Store,
    console: Arc<dyn ConsoleService>,
    (noted_ids, endpoint): (Arc<NotedIds>, Endpoint),
    (ssh, tunnel, health): (SocketAddr, SocketAddr, Option<SocketAddr>),
) -> anyhow::Result<Services> {
    let state = Arc::new(state);
    let id = RelayId::random()?;
    let public = config.public_tunnel(tunnel)?;
    let public_ssh = config.public_ssh(ssh)?;
    check_cluster(config, &store).await?;
    let mut tx = store.begin(Durability::Disk).await?;
    let serving = ServingMember {
        id: state.member,
        tunnel_key: state.tunnel.public(),
        tunnel_address: public.clone(),
        ssh_address: public_ssh.clone(),
        bound_ssh: ssh,
    };
    let sent = clock::since_boot();
    let now = Timestamp::now();
    let name = tx.member_serves(&serving, now).await?;
    tx.relay_started(id, serving.id, now).await?;
    tx.meta_set(meta::PUBLIC_TUNNEL, &public).await?;
    tx.meta_set(meta::PUBLIC_SSH, &public_ssh).await?;
    let health = health.map(|health| health.to_string()).unwrap_or_default();
    let audit_file = config.audit.output.as_ref().map_or("", |_| "yes");
    let exposed = config.exposed.as_deref().map(Path::to_string_lossy);
    let exposed = exposed.unwrap_or_default();
    for (fact, value) in [
        (meta::BOUND_HEALTH, health.as_str()),
        (meta::AUDIT_FILE, audit_file),
        (meta::EXPOSED, &exposed),
    ] {
        tx.meta_set(&meta::of_member(fact, state.member), value)
            .await?;
    }
    tx.note_settings(state.member, &config.shared()).await?;
    tx.commit().await?;
    if let Some(file) = &config.exposed {
        warn!(
            "{} has the database's password, and other accounts can read it: chmod 600 it",
            file.display()
        );
    }
    for unlike in store.unlike_settings().await? {
        warn!("the relays of the cluster have different settings: {unlike}");
    }
    let fence = match store.is_shared() {
        true => StoreFence::new(config.on_store_loss, sent),
        false => StoreFence::none(),
    };
    let audit = Audit::open(store.clone(), Some(name), config.audit.when_unwritable);
    audit.note(Event::new(EventKind::RelayStarted)).await;
    let alone = config.recordings.place.why_alone(&store);
    let cluster = ClusterFacts::read(&store, config.release_key, state.clone(), alone).await?;
    let (leases, releaser) = Leases::new(store.clone(), id);
    let report = Report::new(audit.clone());
    let settings = config.recordings.clone();
    // What a session waits for there only writes.
    let recording_store = store.in_background();
    let recordings =
        Recordings::start(id, &state, recording_store, audit.clone(), settings).await?;
    let tunnels = Arc::new(Tunnels {
        relay: id,
        member: state.member,
        store: store.clone(),
        fence,
        audit: audit.clone(),
        registry: Registry::default(),
        noted_ids,
        clones: Clones::new(config.on_clone),
        cluster,
        uploads: Arc::new(recordings.clone()),
        stopping: AtomicBool::default(),
        drains: Drains::new(state.tunnel.public()),
    });
    let peers = Peers::new(tunnels.clone(), endpoint, PeerTls::new(&state.tunnel)?);
    let sessions = Arc::new(Sessions {
        relay: id,
        store,
        tunnels: tunnels.clone(),
        peers: peers.clone(),
        recordings,
        clients: Clients::default(),
        live: Arc::default(),
        leases,
        report,
        console: console::prefix(&public_ssh),
    });
    let host_keys = HostKeys::new(&state);
    let front = Arc::new(Front {
        sessions: sessions.clone(),
        state,
        audit,
        connections: Connections::new(config.penalty_exempt.clone()),
        balancers: Balancers::new(config.proxy_protocol.clone()),
        host_certificates: HostCertificates::default(),
        host_keys,
        copies: PayloadSlots::default(),
        console,
        login_grace: config.login_grace,
    });
    Ok(Services {
        tunnels,
        peers,
        sessions,
        front,
        releaser,
    })
}

/// Refuses a configuration that does not fit a cluster of several relays.
async fn check_cluster(config: &Config, store: &Store) -> anyhow::Result<()> {
    let members = store.members().await?;
    if present(&members).count() < 2 {
        return Ok(());
    }
    let place = &config.recordings.place;
    if let Some(why) = place.why_alone(store) {
        bail!("{why}");
    }
    let known = StorageBackend::remembered(store).await?;
    ensure!(
        place.is_same_place(&known),
        "the other relays of the cluster keep recordings elsewhere: the configuration's [recordings] has to name the \
         same bucket, prefix, endpoint and region on all of them"
    );
    Ok(())
}

/// Tells devices and operators, lets sessions end by themselves for a while, then ends them.
async fn stop(tunnels: &Tunnels, sessions: &Sessions, peers: &Peers, grace: Duration) {
    tunnels.stop();
    for tunnel in tunnels.registry.all() {
        // One that has no other relay to go to stays.
        if !sessions.store.is_shared() || tunnel.may_be_sent_away() {
            tunnel.tell(RelayMessage::Drain(DRAIN_REDIAL));
        }
    }
    let ending = Ending {
        cause: Cause::Stopping,
        why: "the relay is stopping".into(),
    };
    let own = timeout(grace, sessions.live.wait_empty());
    let (own, ()) = tokio::join!(own, peers.wait_idle(grace));
    if own.is_err() {
        sessions.live.end_where(|_| true, &ending);
        let _ = timeout(FINAL_STATUS_TIMEOUT, sessions.live.wait_empty()).await;
    }
    // Console commands that have no end by themselves hold up no sessions.
    sessions.live.end_consoles_where(|_| true, &ending);
    // A client whose session has ended goes by itself, and shows its exit status only if it may.
    let _ = timeout(FINAL_STATUS_TIMEOUT, sessions.clients.wait_empty()).await;
    let ends = sessions
        .clients
        .all()
        .into_iter()
        .map(|client| tokio::spawn(async move { client.close("the relay is stopping").await }));
    for end in ends.collect::<Vec<_>>() {
        let _ = end.await;
    }
}
