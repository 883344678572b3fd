//! A cluster under virtual time: the fence, the judgement of other relays, and the store's own statements, while relays are
//! cut from the store, stopped, killed, and its clock is set.
//!
//! What takes time is modelled: a request reaches the store after a while, its answer comes after another, and either may
//! be lost. What decides is not: it is [`Fence`], [`Unbroken`] and the statements on SQLite. A failure prints its seed;
//! `HOLDFAST_SEED=N` runs that one alone, `HOLDFAST_SEEDS=N` so many, `HOLDFAST_SEEDS_TIMES=N` so many times as many.

mod random;
mod steps;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::num::NonZeroU32;
use std::time::Duration;

use holdfast_protocol::ids::UserName;
use holdfast_protocol::session::fence::{Fence, FenceState, FenceTimes};
use tokio::time::Instant;

use random::{Random, ShownOnFailure, seeds};

use super::heartbeat::Unbroken;
use crate::audit::{Actor, Event, EventKind};
use crate::clock::{self, Timestamp};
use crate::limits::{CLOCK_STEP, HEARTBEAT, STORE_HOLD, STORE_PATIENCE, STORE_POLL};
use crate::model::lock::LockTarget;
use crate::model::quota::Quota;
use crate::state::MemberId;
use crate::store::access::locks::NewLock;
use crate::store::sessions::leases::LeaseRow;
use crate::store::tests::database::{Backend, TestDatabase};
use crate::store::{AuditFilter, Durability, RelayId, Store, StoreError, Tx};

/// The interval at which `relay lock` asks whether all relays have acted on it, and the time after which it gives up.
const CONFIRM_POLL: Duration = Duration::from_millis(20);
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
const RELAYS: usize = 3;
const LIMIT: u32 = 3;
/// The virtual time of one seed.
const SPAN: Duration = Duration::from_secs(60);
/// The interval at which each session tries to pass a byte.
const BYTES: Duration = Duration::from_millis(300);
const T0: Timestamp = Timestamp(1_795_323_960_000_000);
/// The time after a lock's acknowledgement in which something may pass if the clock of the store was set.
const BOUND: Duration = Duration::from_secs(10);

/// Something that happens at a relay, or to it. Requests have arrived at the store when they happen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SimStep {
    Beat,
    BeatStored {
        sent: Duration,
        named: Timestamp,
    },
    BeatAnswered {
        sent: Duration,
        is_over: bool,
    },
    Judge {
        now: Timestamp,
    },
    Look,
    LookRead {
        began: Duration,
    },
    LookAnswered {
        began: Duration,
        version: i64,
        locked: Vec<String>,
    },
    Confirmed {
        began: Duration,
        version: i64,
    },
    ConfirmAnswered {
        began: Duration,
    },
    LogIn,
    SlotTaken {
        user: String,
    },
    SlotAnswered {
        user: String,
        number: i64,
        version: i64,
        is_locked: bool,
    },
    LogOut,
    Released {
        number: i64,
    },
    Byte,
    Lock,
    AskConfirmed {
        user: String,
        version: i64,
        until: Duration,
    },
    Fault,
    Start,
}

/// A step that is due at a moment: with a number that orders those of one moment, the relay, and the number of its run.
type Due = (Duration, u64, usize, usize, SimStep);

/// One relay, as far as it decides what passes.
struct SimRelay {
    member: MemberId,
    is_up: bool,
    fence: Fence,
    unbroken: Unbroken,
    cut_until: Duration,
    paused_until: Duration,
    /// The version of access that is enforced.
    enforced: i64,
    /// The users that were locked then.
    locked: Vec<String>,
    /// The offset of the store's clock, in microseconds, when it was measured last.
    offset: i64,
    sessions: BTreeMap<i64, String>,
    /// The runs so far, the newest last: what was on its way to one that has ended comes to nothing.
    runs: Vec<RelayId>,
}

struct SimCluster<'a> {
    store: &'a Store,
    random: Random,
    now: Duration,
    /// The moment of the wall clock at which it begins.
    began: Timestamp,
    instant: Instant,
    relays: Vec<SimRelay>,
    queue: BinaryHeap<Reverse<Due>>,
    counter: u64,
    /// The number of the run whose step is taken, at its relay.
    life: usize,
    clock_offset: i64,
    clock_was_set: bool,
    /// The users of this seed.
    users: Vec<String>,
    /// The moments at which locks were acknowledged.
    acknowledged: HashMap<String, Duration>,
    sums: SimSums,
}

/// The sums over all seeds: a simulation in which nothing happens proves nothing.
#[derive(Default)]
struct SimSums {
    bytes: u64,
    refused: u64,
    declared: u64,
    locks: usize,
}

// A thousand seeds, in parts that run side by side.
#[tokio::test]
async fn no_fault_lets_pass_what_is_forbidden_first() {
    run_part(0).await;
}

#[tokio::test]
async fn no_fault_lets_pass_what_is_forbidden_second() {
    run_part(1).await;
}

#[tokio::test]
async fn no_fault_lets_pass_what_is_forbidden_third() {
    run_part(2).await;
}

#[tokio::test]
async fn no_fault_lets_pass_what_is_forbidden_fourth() {
    run_part(3).await;
}

/// Runs the seeds of one part; fails if a byte passes that a limit or a lock forbids, or if the audit log has a gap.
async fn run_part(part: u64) {
    let bed = TestDatabase::new(Backend::Sqlite);
    let store = bed.open().await;
    let mut sums = SimSums::default();
    let seeds = seeds(part, 250);
    let is_whole = seeds.clone().count() >= 100;
    for seed in seeds {
        let _shown = ShownOnFailure(seed);
        let mut cluster = SimCluster::new(&store, seed).await;
        cluster.run().await;
        sums.bytes += cluster.sums.bytes;
        sums.refused += cluster.sums.refused;
        sums.declared += cluster.sums.declared;
        sums.locks += cluster.acknowledged.len();
    }
    if is_whole {
        assert!(
            sums.bytes > 1_000 && sums.refused > 100,
            "{} {}",
            sums.bytes,
            sums.refused
        );
        assert!(
            sums.declared > 100 && sums.locks > 100,
            "{} {}",
            sums.declared,
            sums.locks
        );
    }
    let rows = store
        .audit_after(&AuditFilter::default(), 0, 10_000_000)
        .await
        .unwrap();
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let gapless: Vec<i64> = (1..).take(ids.len()).collect();
    assert!(ids == gapless, "the audit log has a gap");
}

impl<'a> SimCluster<'a> {
    async fn new(store: &'a Store, seed: u64) -> Self {
        // Each seed has the database's later years and users of its own.
        let began = T0.after(Duration::from_secs(3600 * (seed + 1)));
        let users = (0..3).map(|number| format!("u{seed}-{number}")).collect();
        let mut cluster = Self {
            store,
            random: Random(seed),
            now: Duration::from_secs(1),
            began,
            instant: clock::instant(),
            relays: Vec::new(),
            queue: BinaryHeap::new(),
            counter: 0,
            life: 0,
            clock_offset: 0,
            clock_was_set: false,
            users,
            acknowledged: HashMap::new(),
            sums: SimSums::default(),
        };
        for relay in 0..RELAYS {
            let id = u8::try_from(relay + 1).unwrap();
            let now = cluster.now;
            cluster.relays.push(SimRelay {
                member: MemberId([id; 16]),
                is_up: false,
                fence: fence(now),
                unbroken: Unbroken::new(cluster.instant),
                cut_until: Duration::ZERO,
                paused_until: Duration::ZERO,
                enforced: 0,
                locked: Vec::new(),
                offset: 0,
                sessions: BTreeMap::new(),
                runs: Vec::new(),
            });
            cluster.start(relay).await;
            cluster.push(relay, Duration::from_millis(100), SimStep::LogIn);
            cluster.push(relay, Duration::from_millis(900), SimStep::Fault);
        }
        cluster.push(0, Duration::from_secs(5), SimStep::Lock);
        cluster
    }

    async fn run(&mut self) {
        while let Some(Reverse((at, _, relay, life, step))) = self.queue.pop() {
            if at > SPAN {
                break;
            }
            self.now = self.now.max(at);
            let of_process = !matches!(
                step,
                SimStep::BeatStored { .. }
                    | SimStep::Judge { .. }
                    | SimStep::LookRead { .. }
                    | SimStep::Confirmed { .. }
                    | SimStep::SlotTaken { .. }
                    | SimStep::Released { .. }
                    | SimStep::Lock
                    | SimStep::AskConfirmed { .. }
                    | SimStep::Fault
                    | SimStep::LogIn
                    | SimStep::Start
            );
            let it = &self.relays[relay];
            self.life = life;
            if of_process && (life != it.runs.len() || !it.is_up) {
                continue;
            }
            if of_process && it.paused_until > self.now {
                // It goes on with what it was at, when it goes on.
                let wait = it.paused_until.saturating_sub(self.now);
                self.push(relay, wait, step);
                continue;
            }
            self.step(relay, step).await;
        }
    }

    fn push(&mut self, relay: usize, after: Duration, step: SimStep) {
        self.counter += 1;
        let event = (self.now + after, self.counter, relay, self.life, step);
        self.queue.push(Reverse(event));
    }

    /// Sends a request to the store, which may be lost.
    fn send(&mut self, relay: usize, step: SimStep) {
        if self.relays[relay].cut_until <= self.now {
            let way = self.way();
            self.push(relay, way, step);
        }
    }

    /// Answers a request, unless the relay is cut off by then.
    fn answer(&mut self, relay: usize, step: SimStep) {
        self.send(relay, step);
    }

    /// Returns the time of a way to the store or back: mostly short, seldom long.
    fn way(&mut self) -> Duration {
        match self.random.chance(5) {
            true => self.random.millis(100, 3_000),
            false => self.random.millis(1, 30),
        }
    }

    fn time(&self, offset: i64) -> Timestamp {
        Timestamp(self.began.after(self.now).0 + offset)
    }

    fn instant(&self) -> Instant {
        self.instant + self.now
    }

    fn run_of(&self, at: usize) -> RelayId {
        self.relays[at].runs[self.life - 1]
    }

    async fn start(&mut self, at: usize) {
        if self.relays[at].is_up {
            return;
        }
        if self.relays[at].cut_until > self.now {
            self.push(at, Duration::from_secs(1), SimStep::Start);
            return;
        }
        let run = RelayId::random().unwrap();
        let (now, instant, member) = (self.now, self.instant(), self.relays[at].member);
        let named = self.time(self.clock_offset);
        let starts = async |tx: &mut Tx| tx.relay_started(run, member, named).await;
        self.store.change(starts).await.unwrap();
        let it = &mut self.relays[at];
        it.runs.push(run);
        it.is_up = true;
        it.fence = fence(now);
        it.unbroken = Unbroken::new(instant);
        (it.enforced, it.offset) = (0, self.clock_offset);
        it.locked.clear();
        self.life = it.runs.len();
        for (after, step) in [
            (HEARTBEAT, SimStep::Beat),
            (STORE_POLL, SimStep::Look),
            (BYTES, SimStep::Byte),
            (BYTES, SimStep::LogOut),
        ] {
            self.push(at, after, step);
        }
    }

    /// Ends the process of a relay.
    fn end(&mut self, at: usize) {
        let it = &mut self.relays[at];
        it.is_up = false;
        it.paused_until = Duration::ZERO;
        it.sessions.clear();
    }

    fn any_user(&mut self) -> String {
        let index = self.random.index(self.users.len());
        self.users[index].clone()
    }
}

fn fence(now: Duration) -> Fence {
    let times = FenceTimes {
        hold: STORE_HOLD,
        patience: STORE_PATIENCE,
    };
    Fence::new(times, now)
}
