//! Both ends of a session under random operations, held against a small model of what must follow.

mod world;

use crate::random::{Random, for_seeds};
use world::{Cut, World};

/// Random steps before everything is brought to its end.
const STEPS: u64 = 60;

#[test]
fn every_session_ends_once_and_in_order() {
    for_seeds(20_000, |random| run(random, 0));
}

#[test]
fn a_lost_end_ends_or_leaves_the_process_as_the_terms_say() {
    for_seeds(20_000, |random| run(random, 4));
}

/// One session. At each step the operator goes away, or the tunnel is lost, at `cut_percent`.
fn run(random: &mut Random, cut_percent: u64) {
    let mut world = World::new(random);
    for _ in 0..STEPS {
        if world.random.chance(cut_percent) {
            let cut = [Cut::Reset, Cut::AfterAllWasRead, Cut::Order][world.random.index(3)];
            world.cut(cut);
        }
        step(&mut world);
    }
    world.bring_to_an_end();
    world.check();
}

fn step(world: &mut World<'_>) {
    match world.random.pick(0..14) {
        0 | 1 => world.operator_sends_data(),
        2 => world.operator_ends_input(),
        3 => world.operator_resizes(),
        4 => world.operator_signals(),
        5 | 6 => world.deliver_to_device(),
        7 | 8 => world.deliver_to_relay(),
        9 => world.start_completes(),
        10 | 11 => world.process_writes(),
        12 => world.process_does_something_final(),
        _ => world.time_passes(),
    }
}
