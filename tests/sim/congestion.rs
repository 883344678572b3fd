//! The congestion control against a bottleneck in virtual time.

mod path;

use std::time::Duration;

use self::path::{Path, Run};
use crate::random::{Random, for_seeds};

const MTU: u64 = 1452;

fn any_path(random: &mut Random) -> Path {
    // From a bad mobile uplink to a good cable; logarithmic, so that slow ones are as many as fast ones.
    let rate = 40_000 << random.pick(0..9);
    let round_trip = random.millis(2..300);
    Path {
        rate,
        round_trip,
        buffer: any_buffer(rate, round_trip, random),
        loss_percent: random.pick(0..3),
        jitter: random.millis(0..4),
    }
}

/// Returns what the least window needs at this rate, and what the receiver holds back.
fn least_window(path: &Path) -> Duration {
    Duration::from_micros(7 * MTU * 1_000_000 / path.rate)
}

/// A buffer of 1 to 4 times what the empty path holds, as routers have, and more where they have.
fn any_buffer(rate: u64, round_trip: Duration, random: &mut Random) -> u64 {
    let product = rate * u64::try_from(round_trip.as_millis()).unwrap() / 1000;
    (product * random.pick(1..5)).max(64 * 1024)
}

#[test]
fn a_path_is_filled_and_its_queue_stays_short() {
    for_seeds(30, |random| {
        let path = any_path(random);
        let mut run = Run::new(path, random);
        run.until(Duration::from_secs(20), random);
        let measured = run.measure(Duration::from_secs(20), random);
        assert!(measured.used_percent >= 80, "{path:?} {measured:?}");
        let bearable = Duration::from_millis(25) + path.round_trip / 3 + least_window(&path);
        assert!(measured.queue <= bearable, "{path:?} {measured:?}");
    });
}

#[test]
fn a_path_that_becomes_longer_or_shorter_is_filled_again() {
    for_seeds(20, |random| {
        let path = any_path(random);
        let mut run = Run::new(path, random);
        run.until(Duration::from_secs(15), random);
        let round_trip = random.millis(2..400);
        let path = Path {
            round_trip,
            buffer: any_buffer(path.rate, round_trip, random),
            ..path
        };
        run.change(path);
        run.until(Duration::from_secs(30), random);
        let measured = run.measure(Duration::from_secs(20), random);
        assert!(measured.used_percent >= 75, "{path:?} {measured:?}");
    });
}

#[test]
fn a_path_that_changes_speed_is_filled_and_not_flooded() {
    for_seeds(20, |random| {
        let path = any_path(random);
        let mut run = Run::new(path, random);
        run.until(Duration::from_secs(15), random);
        let rate = 40_000 << random.pick(0..9);
        let path = Path {
            rate,
            buffer: path.buffer.max(any_buffer(rate, path.round_trip, random)),
            ..path
        };
        run.change(path);
        // What was under way at the old rate has to go first.
        let drained = Duration::from_secs(path.buffer / path.rate);
        run.until(drained + Duration::from_secs(40), random);
        let measured = run.measure(Duration::from_secs(20), random);
        assert!(measured.used_percent >= 75, "{path:?} {measured:?}");
        let bearable = Duration::from_millis(30) + path.round_trip / 2 + least_window(&path);
        assert!(measured.queue <= bearable, "{path:?} {measured:?}");
    });
}

#[test]
fn one_packet_that_was_too_fast_does_not_strangle_the_path() {
    for_seeds(12, |random| {
        let path = any_path(random);
        let mut run = Run::new(path, random);
        run.until(Duration::from_secs(5), random);
        run.say_round_trip(Duration::from_micros(12));
        run.until(Duration::from_secs(25), random);
        let measured = run.measure(Duration::from_secs(15), random);
        assert!(measured.used_percent >= 70, "{path:?} {measured:?}");
    });
}

#[test]
fn a_dead_path_is_filled_again_when_it_is_back() {
    for_seeds(12, |random| {
        let path = any_path(random);
        let mut run = Run::new(path, random);
        run.until(Duration::from_secs(10), random);
        run.change(Path {
            loss_percent: 100,
            ..path
        });
        run.until(Duration::from_secs(random.pick(1..30)), random);
        run.change(path);
        run.until(Duration::from_secs(15), random);
        let measured = run.measure(Duration::from_secs(15), random);
        assert!(measured.used_percent >= 70, "{path:?} {measured:?}");
    });
}

#[test]
fn after_hours_of_keystrokes_a_copy_fills_the_path() {
    for_seeds(6, |random| {
        let path = any_path(random);
        let mut run = Run::new(path, random);
        run.type_for(Duration::from_secs(3600), random);
        run.until(Duration::from_secs(20), random);
        let measured = run.measure(Duration::from_secs(10), random);
        assert!(measured.used_percent >= 75, "{path:?} {measured:?}");
    });
}
