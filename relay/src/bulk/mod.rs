//! Work on many devices at once: one command, or one file, for all that a selector picks.
//!
//! Each device gets a session of its own by the way that every session goes ([`Sessions::open`], [`Sessions::start`]):
//! decided on when its turn comes, counted, logged, recorded, in the registry. Nothing here decides who may do
//! what.

mod copy;
mod job;
pub(crate) mod limits;
mod lines;
mod outcome;
mod payload;
mod screen;
mod turns;

use std::sync::Arc;

use holdfast_protocol::ids::Login;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::job::Job;
use self::outcome::BulkOutcome;
use self::screen::ProgressScreen;
use self::turns::Scheduler;
use crate::access::decision::{self, Facts};
use crate::access::policy::{Ability, Subject};
use crate::access::selector::Selector;
use crate::bulk::limits::{BULK_LINES, BULK_POLL, MAX_BULK_PARALLEL};
use crate::clock::{self, Timestamp};
use crate::output::{DONE, FAILED, Out};
use crate::session::Sessions;
use crate::session::client::Client;
use crate::session::refusal::Refusal;
use crate::store::Device;
use crate::tunnel::peer::elsewhere::Elsewhere;

pub(crate) use copy::Copy;
pub(crate) use job::BulkRequest;
pub(crate) use payload::{Payload, PayloadError, PayloadSlots};
pub(crate) use turns::Pace;

/// A request for many devices.
#[derive(Clone, Debug)]
pub(crate) struct BulkJob {
    /// The devices.
    pub on: Selector,
    /// The account on the device.
    pub login: Login,
    /// The request.
    pub request: BulkRequest,
    /// The number of devices at a time, and the time that each may take.
    pub pace: Pace,
    /// True if what comes of it is for machines.
    pub json: bool,
}

/// The client that asks for it.
#[derive(Clone)]
pub(crate) struct BulkCaller {
    /// The service of sessions.
    pub(crate) sessions: Arc<Sessions>,
    /// The client that asks for it: what is started ends with it.
    pub(crate) client: Arc<Client>,
    /// True if it shows things on a terminal.
    pub(crate) terminal: bool,
    /// Cancelled when the operator has given it up, rather than being gone.
    pub(crate) interrupted: CancellationToken,
}

/// Does it, and says what comes of it: lines of output as they come, and in the end a table, or of each device a line
/// of JSON. Gives the exit status. Dropping this ends what runs.
///
/// # Errors
/// A sentence: no device was asked.
pub(crate) async fn work(
    caller: &BulkCaller,
    subject: &Subject,
    order: BulkJob,
    out: &mut Out<'_>,
    err: &mut Out<'_>,
) -> Result<u8, Refusal> {
    let devices = devices(caller, subject, &order.on).await?;
    let screen = ProgressScreen::new(out, err, caller.terminal, order.json, devices.len());
    // With more sessions than the user may have, those that come too late would only be refused.
    let most = subject.terms().limits.max_sessions;
    let most = most.map_or(MAX_BULK_PARALLEL, |most| most.get() as usize);
    let turns = Scheduler::new(devices, order.pace.within(most), clock::instant());
    let outcomes = run(caller, order, turns, screen).await;
    Ok(match outcomes {
        Ok(true) => DONE,
        // A client that reads no more gets nothing.
        Ok(false) | Err(_) => FAILED,
    })
}

/// Checks whether there is a device among those that are meant on which the user may do this: who has no such right
/// costs the relay nothing. Each device is decided on once more when its turn comes.
///
/// # Errors
/// A sentence.
pub(crate) async fn check_right(
    caller: &BulkCaller,
    subject: &Subject,
    on: &Selector,
    login: &Login,
    ability: Ability,
) -> Result<(), Refusal> {
    let address = caller.client.address.ip();
    let mut refused = None;
    for device in devices(caller, subject, on).await? {
        let facts = Facts {
            subject,
            client: address,
            name: device.name.as_str(),
            device: Some(&device),
        };
        match decision::reach(facts).and_then(|reach| reach.authorize(login, ability)) {
            Ok(_) => return Ok(()),
            Err(denied) => refused = refused.or(Some(denied)),
        }
    }
    Err(refused.map_or_else(|| Refusal::NoDevices(on.to_string()), Refusal::from))
}

/// Returns the devices that are meant, among those that the user may know of.
async fn devices(
    caller: &BulkCaller,
    subject: &Subject,
    on: &Selector,
) -> Result<Vec<Device>, Refusal> {
    let store = &caller.sessions.store;
    let devices = store.devices(Timestamp::now()).await;
    let mut devices = devices.map_err(|error| Refusal::Command(error.to_string()))?;
    devices.retain(|device| {
        device.revoked.is_none() && on.matches(&device.labels) && subject.may_see(&device.labels)
    });
    if devices.is_empty() {
        return Err(Refusal::NoDevices(on.to_string()));
    }
    Ok(devices)
}

/// Says whether all went well.
async fn run(
    caller: &BulkCaller,
    order: BulkJob,
    mut turns: Scheduler,
    mut screen: ProgressScreen<'_, '_>,
) -> std::io::Result<bool> {
    let over = CancellationToken::new();
    let _ends_all = over.clone().drop_guard();
    let (lines, mut shown) = mpsc::channel(BULK_LINES);
    let mut running: JoinSet<BulkOutcome> = JoinSet::new();
    let mut elsewhere = Elsewhere::default();
    let mut poll = interval(BULK_POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while let Some(device) = turns.next(running.len()) {
            let job = Job {
                caller: caller.clone(),
                device,
                login: order.login.clone(),
                request: order.request.clone(),
                timeout: turns.timeout(),
                keeps: order.json,
                lines: lines.clone(),
                over: over.clone(),
            };
            running.spawn(job.guarded());
        }
        if running.is_empty() && turns.is_over() {
            break;
        }
        tokio::select! {
            Some(line) = shown.recv() => screen.line(&line).await?,
            Some(done) = running.join_next() => {
                // Its lines were handed over before it was done.
                while let Ok(line) = shown.try_recv() {
                    screen.line(&line).await?;
                }
                if let Ok(outcome) = done {
                    screen.done(outcome).await?;
                }
            }
            _ = poll.tick() => {
                if turns.waiting() > 0 {
                    elsewhere.look(&caller.sessions.peers).await;
                }
                let registry = &caller.sessions.tunnels.registry;
                let is_online = |device| registry.get(device).is_some() || elsewhere.has(device);
                turns.look(is_online, clock::instant());
                screen.progress(running.len(), turns.waiting()).await?;
            }
        }
    }
    screen.end().await
}
