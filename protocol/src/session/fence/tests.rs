use alloc::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const TIMES: FenceTimes = FenceTimes {
    hold: Duration::from_secs(8),
    patience: Duration::from_secs(60),
};
/// A relay whose heartbeat is older counts as dead for the others.
const STALE: u64 = 10_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn frozen(ms: u64) -> FenceState {
    FenceState::Frozen {
        silence: Duration::from_millis(ms),
    }
}

#[test]
fn fence_stays_open_while_heartbeats_are_stored() {
    let mut fence = Fence::new(TIMES, ms(500));
    for second in (2..100).step_by(2) {
        let sent = ms(second * 1000);
        assert_eq!(fence.beat(sent, sent + ms(30)), FenceState::Open);
        assert_eq!(fence.until(), sent + TIMES.hold);
        assert!(!fence.awaits_enforcement());
    }
}

#[test]
fn fence_opens_after_the_newest_policy_is_enforced() {
    let mut fence = Fence::new(TIMES, ms(1000));
    assert_eq!(fence.until(), ms(9000));
    assert_eq!(fence.look(ms(8999)), FenceState::Open);
    // A policy that was enforced meanwhile opens nothing.
    assert_eq!(fence.enforced(ms(8900), ms(9000)), frozen(8000));
    assert_eq!(fence.until(), Duration::ZERO);
    assert_eq!(fence.look(ms(10_000)), frozen(9000));
    // The store is back: frozen still.
    assert_eq!(fence.beat(ms(20_000), ms(20_100)), frozen(100));
    assert!(fence.awaits_enforcement());
    assert_eq!(fence.enforced(ms(20_099), ms(20_200)), frozen(200));
    assert_eq!(fence.enforced(ms(20_100), ms(20_300)), FenceState::Open);
    assert_eq!(fence.until(), ms(28_000));
    assert!(!fence.awaits_enforcement());
}

#[test]
fn heartbeat_counts_from_when_it_was_sent() {
    // Its answer was waited for, or the process was stopped in between.
    let mut fence = Fence::new(TIMES, ms(0));
    assert_eq!(fence.beat(ms(2000), ms(7999)), FenceState::Open);
    assert_eq!(fence.until(), ms(10_000));
    assert_eq!(fence.beat(ms(4000), ms(10_000)), frozen(6000));
    assert!(fence.awaits_enforcement());
    // One that was answered after its own time proves nothing.
    let mut fence = Fence::new(TIMES, ms(0));
    assert_eq!(fence.beat(ms(2000), ms(10_000)), frozen(8000));
    assert!(!fence.awaits_enforcement());
    assert_eq!(fence.enforced(ms(10_000), ms(10_001)), frozen(8001));
}

#[test]
fn policy_of_before_a_second_loss_opens_nothing() {
    let mut fence = Fence::new(TIMES, ms(0));
    fence.beat(ms(20_000), ms(20_000));
    // Its enforcement took longer than the heartbeat holds.
    assert_eq!(fence.enforced(ms(20_001), ms(28_000)), frozen(8000));
    fence.beat(ms(29_000), ms(29_000));
    assert_eq!(fence.enforced(ms(20_001), ms(29_001)), frozen(1));
    assert_eq!(fence.enforced(ms(29_000), ms(29_001)), FenceState::Open);
}

#[test]
fn store_that_stays_away_is_given_up() {
    let mut fence = Fence::new(TIMES, ms(0));
    assert_eq!(fence.look(ms(8000)), frozen(8000));
    assert_eq!(fence.look(ms(67_999)), frozen(67_999));
    let silence = ms(68_000);
    assert_eq!(fence.look(silence), FenceState::GivenUp { silence });
    // It may be back nevertheless, for what begins then.
    fence.beat(ms(70_000), ms(70_001));
    assert_eq!(fence.enforced(ms(70_001), ms(70_002)), FenceState::Open);
    // A machine that was paused waits from then on.
    assert_eq!(fence.look(ms(9_000_000)), frozen(8_930_000));
}

#[test]
fn fence_that_is_shut_stays_so() {
    let mut fence = Fence::new(TIMES, ms(0));
    fence.shut();
    assert_eq!(fence.until(), Duration::ZERO);
    fence.beat(ms(20_000), ms(20_000));
    fence.enforced(ms(20_000), ms(20_000));
    assert_eq!(fence.until(), Duration::ZERO);
}

/// Something that happens to a relay, its store, or between them.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The store has the heartbeat that was sent then.
    Stored(u64),
    /// The relay knows that the store has the heartbeat that was sent then.
    Answered(u64),
    /// The policy is read, for the enforcement of this number.
    Read(usize),
    /// The policy that was read is enforced.
    Enforced(usize),
    /// An admin locks a user.
    Locked,
    /// The relay looks at its fence.
    Looked,
}

/// A heartbeat: the time since the one before, to the store and back, and whether it comes there, and its answer back.
#[derive(Clone, Copy, Debug)]
struct Beat {
    gap: u64,
    there: u64,
    back: u64,
    is_stored: bool,
    is_answered: bool,
}

fn delay() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..300, 2 => 0_u64..4000, 1 => 0_u64..15_000]
}

fn beat() -> impl Strategy<Value = Beat> {
    let fate = (prop::bool::weighted(0.7), prop::bool::weighted(0.8));
    (delay(), delay(), delay(), fate).prop_map(|(gap, there, back, (is_stored, is_answered))| {
        Beat {
            gap: gap + 500,
            there,
            back,
            is_stored,
            is_answered,
        }
    })
}

/// A lock, as its admin and the relay see it.
struct Lock {
    committed: u64,
    /// The time at which it was acknowledged because the relay counted as dead.
    acknowledged: Option<u64>,
    is_enforced: bool,
}

/// Returns the events in their order.
fn events(
    beats: &[Beat],
    enforcements: &[(u64, u64, u64)],
    locks: &[u64],
    looks: &[u64],
) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    let mut now = 0;
    for beat in beats {
        now += beat.gap;
        let (sent, stored) = (now, now + beat.there);
        now = stored + beat.back;
        if beat.is_stored {
            events.push((stored, Event::Stored(sent)));
            if beat.is_answered {
                events.push((now, Event::Answered(sent)));
            }
        }
    }
    let mut now = 0;
    for (number, (gap, wait, takes)) in enforcements.iter().enumerate() {
        now += gap + 50;
        events.push((now + wait, Event::Read(number)));
        now += wait + takes;
        events.push((now, Event::Enforced(number)));
    }
    let mut now = 0;
    for gap in locks {
        now += gap * 10;
        events.push((now, Event::Locked));
    }
    let mut now = 0;
    for gap in looks {
        now += gap;
        events.push((now, Event::Looked));
    }
    events.sort_by_key(|(at, _)| *at);
    events
}

proptest! {
    /// Shows that no byte passes that a lock forbids which did not wait for this relay, whatever is lost, late or stopped.
    #[test]
    fn nothing_passes_that_an_acknowledged_lock_forbids(
        beats in vec(beat(), 1..40),
        enforcements in vec((delay(), delay(), delay()), 1..60),
        locks in vec(delay(), 1..12),
        looks in vec(delay(), 0..60),
    ) {
        let mut fence = Fence::new(TIMES, ms(0));
        let mut heartbeat = 0;
        let mut seen: Vec<Lock> = Vec::new();
        // Of each enforcement: when it began, and how many locks it has read.
        let mut began = Vec::new();
        let mut read = Vec::new();
        let mut now = 0;
        for (gap, wait, takes) in &enforcements {
            now += gap + 50;
            began.push(now);
            read.push(0);
            now += wait + takes;
        }
        let events = events(&beats, &enforcements, &locks, &looks);
        for (number, (at, event)) in events.iter().enumerate() {
            match *event {
                Event::Stored(sent) => heartbeat = sent.max(heartbeat),
                Event::Answered(sent) => {
                    fence.beat(ms(sent), ms(*at));
                }
                Event::Read(which) => read[which] = seen.len(),
                Event::Enforced(which) => {
                    seen.iter_mut().take(read[which]).for_each(|lock| lock.is_enforced = true);
                    fence.enforced(ms(began[which]), ms(*at));
                }
                Event::Locked => seen.push(Lock {
                    committed: *at,
                    acknowledged: None,
                    is_enforced: false,
                }),
                Event::Looked => {
                    fence.look(ms(*at));
                }
            }
            let next = events.get(number + 1).map_or(at + 60_000, |(next, _)| *next);
            // Until the next event, bytes pass from `at` to `closes`.
            let until = u64::try_from(fence.until().as_millis()).unwrap();
            let closes = until.min(next);
            for lock in seen.iter_mut().filter(|lock| !lock.is_enforced) {
                let dead = lock.committed.max(heartbeat + STALE + 1).max(*at);
                let acknowledged = lock.acknowledged.or((dead < next).then_some(dead));
                lock.acknowledged = acknowledged;
                if let Some(acknowledged) = acknowledged {
                    prop_assert!(
                        closes <= *at || closes <= acknowledged,
                        "open from {at} to {closes}, and acknowledged at {acknowledged}"
                    );
                }
            }
        }
    }

    /// Shows that bytes pass again when the store is back.
    #[test]
    fn fence_opens_when_the_store_is_back(away in 0_u64..300_000) {
        let mut fence = Fence::new(TIMES, ms(0));
        fence.look(ms(away));
        fence.beat(ms(away), ms(away + 20));
        fence.enforced(ms(away + 20), ms(away + 40));
        prop_assert_eq!(fence.look(ms(away + 1000)), FenceState::Open);
        prop_assert_eq!(fence.until(), ms(away + 8000));
    }
}
