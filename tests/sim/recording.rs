//! Recordings on media that tear, fill up and fail, over links that break: what was acknowledged is never
//! lost, what was shown is recorded, and each recording comes to one end.

mod hostile;
mod medium;
mod relay;
mod world;

use std::time::Duration;

use holdfast_protocol::limits::{MIN_SPOOL_BYTES, RELIST_DELAY, SPOOL_BYTES};
use holdfast_protocol::recording::ingest::{IngestState, LostReason, Truncated};
use holdfast_protocol::recording::medium::FileName;
use holdfast_protocol::recording::record::EndReason;
use holdfast_protocol::recording::spool::Sync;
use holdfast_protocol::wire::{RecordingMode, SegmentLost};

use crate::random::for_seeds;
use world::World;

#[test]
fn acknowledged_data_stays_and_each_recording_ends_once() {
    for_seeds(1_500, |random| {
        let sync = [Sync::Block, Sync::Close, Sync::Off][random.index(3)];
        let max = [MIN_SPOOL_BYTES, SPOOL_BYTES][random.index(2)];
        let mut world = World::new(random, max, sync);
        for _ in 0..world.random.pick(5..60) {
            anything(&mut world);
        }
        world.heal_and_deliver();
        check(&world);
    });
}

fn anything(world: &mut World<'_>) {
    let live: Vec<usize> = (0..world.sessions.len())
        .filter(|session| world.sessions[*session].live)
        .collect();
    let chosen = (!live.is_empty()).then(|| live[world.random.index(live.len())]);
    match (world.random.pick(0..24), chosen) {
        (0..=2, _) if world.sessions.len() < 8 => {
            let strict = world.random.chance(60);
            let mode = if strict {
                RecordingMode::Strict
            } else {
                RecordingMode::BestEffort
            };
            // A spool that is full begins none.
            let _ = world.begin(mode);
        }
        (3..=8, Some(session)) => {
            let most = [3, 200, 5_000, 120_000][world.random.index(4)];
            let length = 1 + world.random.index(most);
            world.output(session, length);
        }
        (9, Some(session)) => world.resize(session),
        (10, Some(session)) => world.end(session, EndReason::Exited),
        (11..=13, _) => {
            let time = world.random.millis(0..4_000);
            world.pass(time);
        }
        (14, _) => world.medium.failing = [0, 0, 20, 100][world.random.index(4)],
        (15, _) => {
            let used = world.medium.used();
            world.medium.capacity = used + [100, 70_000, 1 << 30][world.random.index(3)];
        }
        (16, _) => world.connect(),
        (17, _) => world.disconnect(),
        (18, _) if world.random.chance(40) => world.crash(),
        (18, _) => world.relay_crash(),
        (19, _) => world.deliver_stale(),
        (20, _) => world.break_stream(),
        (21 | 22, Some(session)) => world.open_forward(session),
        (23, Some(session)) => world.close_forward(session),
        _ => {}
    }
}

fn check(world: &World<'_>) {
    let names = world.medium.names();
    let bad = names.iter().any(|name| matches!(name, FileName::Bad(_)));
    // A medium that is never synced brings back a part of what was stored and removed long ago.
    let ghosts = world.config.sync == Sync::Off && !world.recovered.is_empty();
    assert!(
        !bad || ghosts,
        "an untouched segment was set aside: {names:?}"
    );
    for (number, sim) in world.sessions.iter().enumerate() {
        let kept = &world.relay.sessions[&sim.id];
        assert_eq!(kept.settled, 1, "session {number}: {:?}", kept.state);
        let recorded = world.recorded(number);
        let shown = sim.shown.len();
        if sim.crashed {
            let safe = world.is_safe(number);
            assert!(
                recorded >= safe,
                "{recorded} of {safe} bytes that had time to be written: {:?}",
                kept.state
            );
        } else {
            assert_eq!(recorded, shown, "session {number}: {:?}", kept.state);
            assert_eq!(kept.state, IngestState::Complete, "session {number}");
        }
    }
}

#[test]
fn a_session_that_power_was_cut_under_ends_as_power_loss() {
    for_seeds(100, |random| {
        let mut world = World::new(random, SPOOL_BYTES, Sync::Block);
        let session = world.begin(RecordingMode::Strict).unwrap();
        world.pass(Duration::from_secs(3));
        let length = 1 + world.random.index(200_000);
        world.output(session, length);
        let time = world.random.millis(0..4_000);
        world.pass(time);
        world.crash();
        assert_eq!(world.recovered[0].unfinished, [world.sessions[session].id]);
        world.heal_and_deliver();
        check(&world);
        let state = world.relay.sessions[&world.sessions[session].id].state;
        assert_eq!(state, IngestState::Truncated(Truncated::PowerLoss));
    });
}

#[test]
fn session_that_a_killed_relay_opened_is_judged_a_tunnel_later() {
    for_seeds(100, |random| {
        let mut world = World::new(random, SPOOL_BYTES, Sync::Block);
        world.connect();
        let session = world.begin(RecordingMode::Strict).unwrap();
        world.output(session, 5_000);
        for _ in 0..9 {
            world.pass(Duration::from_secs(1));
        }
        let lost = world.begin_and_kill_relay();
        let time = world.random.millis(0..90_000);
        world.pass(time);
        world.connect();
        let state = |world: &World<'_>| world.relay.sessions[&lost].state;
        for _ in 0..RELIST_DELAY.as_secs() - 1 {
            world.pass(Duration::from_secs(1));
            assert_eq!(state(&world), IngestState::Uploading, "one may still begin");
        }
        for _ in 0..9 {
            world.pass(Duration::from_secs(1));
        }
        let is_lost = LostReason::NotHeld(SegmentLost::Missing);
        assert_eq!(state(&world), IngestState::Lost(is_lost));
        world.heal_and_deliver();
        check(&world);
    });
}

#[test]
fn what_root_does_to_a_spool_is_named() {
    for_seeds(200, |random| {
        let mut world = World::new(random, SPOOL_BYTES, Sync::Block);
        let session = world.begin(RecordingMode::Strict).unwrap();
        let id = world.sessions[session].id;
        for _ in 0..world.random.pick(1..30) {
            let length = 1 + world.random.index(120_000);
            world.output(session, length);
            world.pass(Duration::from_secs(3));
        }
        world.end(session, EndReason::Exited);
        world.pass(Duration::from_secs(3));
        let names = world.medium.names();
        let victim = names[world.random.index(names.len())];
        let what = world.random.pick(0..3);
        let (at, bit) = {
            let length = world.medium.length(victim);
            let at = usize::try_from(world.random.pick(0..length)).unwrap();
            (at, world.random.pick(0..8))
        };
        world.acknowledged.clear();
        world.medium.change(victim, |bytes| match what {
            0 => bytes[at] ^= 1 << bit,
            1 => bytes.truncate(at),
            _ => bytes.clear(),
        });
        if world.random.chance(50) {
            // As an agent finds it that is started anew.
            world.crash();
        }
        world.heal_and_deliver();
        let kept = &world.relay.sessions[&id];
        assert_eq!(kept.settled, 1);
        let honest = matches!(kept.state, IngestState::Complete);
        assert!(!honest, "the change was not noticed");
    });
}

#[test]
fn a_full_spool_ends_strict_sessions_and_leaves_gaps_in_others() {
    for_seeds(12, |random| {
        let mut world = World::new(random, MIN_SPOOL_BYTES, Sync::Block);
        let strict = world.begin(RecordingMode::Strict).unwrap();
        let loose = world.begin(RecordingMode::BestEffort).unwrap();
        let mut sent = 0;
        while world.sessions[strict].live {
            assert!(sent < 1_000, "the spool never is full");
            sent += 1;
            let length = 1 + world.random.index(60_000);
            world.output(strict, length);
            world.pass(Duration::from_secs(3));
        }
        for _ in 0..20 {
            world.output(loose, 30_000);
        }
        for _ in 0..100 {
            let Ok(another) = world.begin(RecordingMode::Strict) else {
                break;
            };
            world.output(another, 3_000);
            if world.sessions[another].live {
                world.end(another, EndReason::Exited);
            }
            world.pass(Duration::from_secs(3));
        }
        let refused = world.begin(RecordingMode::Strict).unwrap_err().to_string();
        assert!(
            refused.starts_with("spool full (1.6 of 2.0 MiB; 0.2 MiB are kept for"),
            "{refused}"
        );
        world.connect();
        for _ in 0..200 {
            world.pass(Duration::from_secs(3));
        }
        for _ in 0..5 {
            world.output(loose, 30_000);
            world.pass(Duration::from_secs(3));
        }
        world.heal_and_deliver();
        check(&world);
    });
}
