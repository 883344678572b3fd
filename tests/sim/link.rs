//! The agent's link against paths that lose, break and forget.

mod world;

use std::time::Duration;

use holdfast_protocol::limits::{KEEPALIVE, MAX_REBIND_INTERVAL, PARALLEL_DIAL_AFTER};

use crate::random::{Random, for_seeds};
use world::{Fault, World};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The longest round trip of a simulated path, and the time that a driver may be late with a timeout.
const SLACK: Duration = Duration::from_millis(1_100);

/// The slowest probing of a link that is long in doubt.
const PATIENT_PROBE: Duration = Duration::from_secs(5);

#[test]
fn whatever_happened_it_is_heard_soon_after_the_path_is_whole() {
    for_seeds(3_000, |random| {
        let mut world = World::new(random, KEEPALIVE);
        let mut end = Duration::ZERO;
        for _ in 0..world.random.pick(1..12) {
            let fault = any_fault(world.random);
            world.inflict(fault);
            end += world.random.millis(0..120_000);
            world.run_until(end);
        }
        world.heal();
        let healed = world.now();
        let bound = if world.socket_is_dead() {
            MAX_REBIND_INTERVAL.max(KEEPALIVE) + PATIENT_PROBE
        } else {
            KEEPALIVE
        } + SLACK;
        world.run_until(healed + bound);
        let heard = world.heard_since(healed);
        assert!(heard, "not heard {bound:?} after the path was whole again");
        world.run_until(healed + bound + PARALLEL_DIAL_AFTER);
        assert!(!world.is_dialling(), "it was heard, and still dials");
    });
}

#[test]
fn with_a_session_a_nat_rebinding_is_over_in_three_seconds() {
    for_seeds(2_000, |random| {
        let mut world = World::new(random, KEEPALIVE);
        world.inflict(Fault::Sessions(1));
        let quiet = world.random.millis(2_000..60_000);
        world.run_until(quiet);
        let fault = if world.random.chance(50) {
            Fault::MappingForgotten
        } else {
            Fault::SocketDead
        };
        world.inflict(fault);
        world.run_until(quiet + SECOND * 3 + SLACK);
        assert!(
            world.heard_since(quiet + world.round_trip()),
            "{fault:?} stalls the session for more than 3 s"
        );
        assert!(!world.is_dialling());
    });
}

#[test]
fn a_relay_that_moved_is_dialled_anew_and_once() {
    for_seeds(500, |random| {
        let mut world = World::new(random, KEEPALIVE);
        let away = world.random.millis(0..60_000);
        world.run_until(away);
        world.inflict(Fault::Partition(DAY));
        world.run_until(away + KEEPALIVE + PARALLEL_DIAL_AFTER + SECOND + SLACK);
        assert!(world.is_dialling());
        world.run_until(away + Duration::from_secs(3600));
        assert_eq!(world.dials(), 1, "the driver dials on until it is stopped");
    });
}

#[test]
fn a_good_path_is_kept_and_idle_traffic_is_within_budget() {
    for_seeds(40, |random| {
        let mut world = World::new(random, KEEPALIVE);
        world.run_until(DAY);
        assert_eq!((world.rebinds(), world.dials()), (0, 0));
        assert_budget(&world, 100);
    });
}

#[test]
fn some_loss_costs_some_probes_and_no_tunnel() {
    for_seeds(40, |random| {
        let mut world = World::new(random, KEEPALIVE);
        world.inflict(Fault::Loss(5));
        world.run_until(DAY);
        assert_eq!(world.dials(), 0, "5 % of loss is no outage");
        assert_budget(&world, 125);
    });
}

/// A beat and its answer are two datagrams of at most 80 bytes, all headers included: 0.6 MB a day is the
/// budget of an idle device.
fn assert_budget(world: &World<'_>, percent: u64) {
    let bytes = world.datagrams() * 80;
    let budget = 600_000 * percent / 100;
    assert!(bytes <= budget, "{bytes} bytes a day, budget {budget}");
}

fn any_fault(random: &mut Random) -> Fault {
    match random.pick(0..9) {
        0 => Fault::MappingForgotten,
        1 => Fault::SocketDead,
        2 | 3 => Fault::Partition(random.millis(0..300_000)),
        4 => Fault::Loss(random.pick(0..60)),
        5 => Fault::AddressChanged,
        6 => Fault::RoutesChanged,
        7 => Fault::Suspended(random.millis(0..600_000)),
        _ => Fault::Sessions(u32::try_from(random.pick(0..3)).unwrap()),
    }
}
