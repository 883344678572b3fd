use super::*;
use proptest::prelude::*;

fn timer(after: Option<u64>, role: Option<&str>) -> IdleTimer {
    IdleTimer::new(&policy::Idle {
        after: after.map(Duration::from_secs),
        role: role.map(|role| RoleName::new(role).unwrap()),
    })
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_quiet_session_is_warned_once_and_then_ends() {
    let mut timer = timer(Some(900), Some("operator"));
    assert_eq!(timer.poll(at(0)), Step::Wait(at(840)));
    assert_eq!(timer.poll(at(839)), Step::Wait(at(840)));
    assert_eq!(timer.poll(at(840)), Step::Warn);
    assert_eq!(timer.poll(at(840)), Step::Wait(at(900)));
    assert_eq!(timer.poll(at(899)), Step::Wait(at(900)));
    assert_eq!(timer.poll(at(900)), Step::Close);
}

#[test]
fn activity_after_a_warning_begins_anew() {
    let mut timer = timer(Some(900), None);
    assert_eq!(timer.poll(at(850)), Step::Warn);
    timer.activity(at(860));
    assert_eq!(timer.poll(at(860)), Step::Wait(at(860 + 840)));
    assert_eq!(timer.poll(at(860 + 840)), Step::Warn);
    // What was seen earlier and reported later.
    timer.activity(at(100));
    assert_eq!(timer.poll(at(860 + 900)), Step::Close);
}

#[test]
fn the_lead_is_half_a_short_timeout() {
    for (after, warned) in [
        (4, 2),
        (60, 30),
        (119, 59),
        (120, 60),
        (121, 61),
        (3_600, 3_540),
    ] {
        let mut timer = timer(Some(after), None);
        assert_ne!(
            timer.poll(at(warned) - Duration::from_millis(1)),
            Step::Warn,
            "{after}"
        );
        assert_eq!(
            timer.poll(at(warned) + Duration::from_millis(500)),
            Step::Warn,
            "{after}"
        );
    }
}

#[test]
fn the_longest_duration_is_warned_of_and_no_activity_moves_it() {
    let terms = |hours: Option<u64>| policy::Longest {
        after: hours.map(|hours| at(hours * 3_600)),
        role: Some(RoleName::new("operator").unwrap()),
    };
    let mut timer = IdleTimer::longest(&terms(Some(8)));
    timer.activity(at(8 * 3_600 - 61));
    assert_eq!(timer.poll(at(0)), Step::Wait(at(8 * 3_600 - 60)));
    assert_eq!(timer.poll(at(8 * 3_600 - 60)), Step::Warn);
    assert_eq!(
        timer.warning(true),
        "a session lasts at most 8 hours (role operator): this session closes in 60 s."
    );
    timer.activity(at(8 * 3_600 - 1));
    assert_eq!(timer.poll(at(8 * 3_600)), Step::Close);
    assert_eq!(
        timer.reason(),
        "a session lasts at most 8 hours (role operator)"
    );
    // A shorter one than the session is old warns first; none lifts it.
    timer.change_longest(&terms(Some(1)), at(7 * 3_600));
    assert_eq!(timer.poll(at(7 * 3_600)), Step::Warn);
    assert_eq!(timer.poll(at(7 * 3_600)), Step::Wait(at(7 * 3_600 + 60)));
    timer.change_longest(&terms(None), at(7 * 3_600 + 1));
    assert_eq!(timer.poll(Duration::MAX), Step::Never);
}

#[test]
fn never_is_never() {
    let mut timer = timer(None, Some("kiosk"));
    assert_eq!(timer.poll(Duration::MAX), Step::Never);
}

#[test]
fn the_sentences_are_exact() {
    let fifteen = timer(Some(900), Some("operator"));
    assert_eq!(
        fifteen.warning(true),
        "no input for 14 minutes: this session closes in 60 s. Press any key to stay."
    );
    assert_eq!(fifteen.reason(), "idle for 15 minutes (role operator)");
    let four = timer(Some(4), None);
    assert_eq!(
        four.warning(false),
        "no input for 2 seconds: this session closes in 2 s."
    );
    assert_eq!(four.reason(), "idle for 4 seconds (the default)");
    assert_eq!(
        timer(Some(1), None).warning(false),
        "no input for 0.5 seconds: this session closes in 0.5 s."
    );
    for (seconds, text) in [
        (90, "90 seconds"),
        (3_600, "1 hour"),
        (86_400, "1 day"),
        (60, "1 minute"),
    ] {
        assert!(timer(Some(seconds), None).reason().contains(text), "{text}");
    }
}

#[test]
fn new_terms_hold_at_once_and_never_without_a_warning() {
    let terms = |after: Option<u64>| policy::Idle {
        after: after.map(Duration::from_secs),
        role: Some(RoleName::new("tech").unwrap()),
    };
    // Timeout before, idle for so long, timeout after, and what follows: a warning, and the end.
    let table = [
        // Shorter, with time left.
        (Some(900), 100, Some(300), Some((240, 300))),
        // Shorter than it has been idle already: the whole time of the warning is left.
        (Some(900), 500, Some(300), Some((500, 560))),
        (Some(900), 299, Some(300), Some((299, 359))),
        (Some(900), 500, Some(10), Some((500, 505))),
        (None, 5_000, Some(900), Some((5_000, 5_060))),
        (None, 10, Some(900), Some((840, 900))),
        // Longer.
        (Some(300), 100, Some(900), Some((840, 900))),
        // Longer or none, when a warning was given already.
        (Some(300), 250, Some(900), Some((840, 900))),
        (Some(300), 250, None, None),
        (Some(300), 10, None, None),
        // The same, as after a change of something else: as if nothing had been.
        (Some(300), 250, Some(300), Some((u64::MAX, 300))),
        (None, 250, None, None),
    ];
    for (before, idle, after, expected) in table {
        let shown = format!("{before:?} -> {after:?} at {idle}");
        let mut timer = timer(before, None);
        let warned = before.is_some_and(|before| idle >= before - 60);
        assert_eq!(timer.poll(at(idle)) == Step::Warn, warned, "{shown}");
        timer.change(&terms(after), at(idle));
        let Some((warning, end)) = expected else {
            assert_eq!(timer.poll(Duration::MAX), Step::Never, "{shown}");
            continue;
        };
        if warning != u64::MAX {
            if warning > idle {
                assert_eq!(timer.poll(at(idle)), Step::Wait(at(warning)), "{shown}");
            }
            assert_eq!(timer.poll(at(warning)), Step::Warn, "{shown}");
        }
        assert_eq!(timer.poll(at(end - 1)), Step::Wait(at(end)), "{shown}");
        assert_eq!(timer.poll(at(end)), Step::Close, "{shown}");
    }
}

#[test]
fn a_warning_under_new_terms_tells_how_long_it_was_quiet() {
    let mut timer = timer(Some(900), None);
    timer.activity(at(100));
    let terms = policy::Idle {
        after: Some(at(240)),
        role: Some(RoleName::new("tech").unwrap()),
    };
    timer.change(&terms, at(700));
    assert_eq!(timer.poll(at(700)), Step::Warn);
    assert_eq!(
        timer.warning(false),
        "no input for 10 minutes: this session closes in 60 s."
    );
    assert_eq!(timer.reason(), "idle for 4 minutes (role tech)");
    // A user who types in time goes on under the new terms.
    timer.activity(at(720));
    assert_eq!(timer.poll(at(720)), Step::Wait(at(720 + 180)));
    assert_eq!(timer.poll(at(720 + 180)), Step::Warn);
    assert_eq!(
        timer.warning(false),
        "no input for 3 minutes: this session closes in 60 s."
    );
}

proptest! {
    /// Checks changes of terms at any time: nothing ends unless it was idle for as long as the current ones say,
    /// and not without a warning, which has its full time.
    #[test]
    fn no_change_of_terms_ends_a_session_unwarned(
        steps in proptest::collection::vec((0u64..100, 0u8..4, 1u64..400), 1..200),
    ) {
        let mut timer = timer(Some(100), None);
        let (mut now, mut active, mut after) = (at(0), at(0), at(100));
        let mut warned = None;
        for (delta, what, value) in steps {
            // It is asked exactly when it wants to be.
            let then = now + at(delta);
            while now <= then {
                match timer.poll(now) {
                    Step::Close => {
                        prop_assert!(now - active >= after);
                        prop_assert_eq!(warned, Some(now - WARNING.min(after / 2)));
                        return Ok(());
                    }
                    Step::Warn => {
                        prop_assert_eq!(warned, None);
                        warned = Some(now);
                    }
                    Step::Wait(until) if until <= then => {
                        prop_assert!(until > now);
                        now = until;
                    }
                    Step::Wait(_) => break,
                    Step::Never => prop_assert!(false),
                }
            }
            now = then;
            if what == 0 && now > active {
                timer.activity(now);
                (active, warned) = (now, None);
            }
            if what == 1 && at(value) != after {
                let terms = policy::Idle { after: Some(at(value)), role: None };
                timer.change(&terms, now);
                (after, warned) = (at(value), None);
            }
        }
    }

    /// Checks any order of activity and polls: never closed early, never late, and warned before.
    #[test]
    fn it_ends_exactly_a_timeout_after_the_last_activity(
        after in 1u64..2_000,
        steps in proptest::collection::vec((0u64..700, any::<bool>()), 1..100),
    ) {
        let mut timer = timer(Some(after), None);
        let (mut now, mut last, mut warned) = (0, 0, false);
        for (delta, active) in steps {
            now += delta;
            let idle = now - last;
            match timer.poll(at(now)) {
                Step::Close => { prop_assert!(idle >= after); break }
                Step::Warn => { prop_assert!(!warned && idle < after); warned = true }
                Step::Wait(until) => { prop_assert!(idle < after && until > at(now) && until <= at(last + after)) }
                Step::Never => prop_assert!(false),
            }
            if active {
                timer.activity(at(now));
                if now > last { (last, warned) = (now, false) }
            }
        }
    }
}
