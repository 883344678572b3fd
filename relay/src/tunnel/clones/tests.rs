use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn at(secs: u64) -> Timestamp {
    Timestamp(1_795_323_960_000_000).after(Duration::from_secs(secs))
}

/// Returns a run on a machine; machine 0 is one that cannot be distinguished from others.
fn run(id: u8, machine: u8) -> Run {
    Run {
        instance: Instance {
            id: [id; 16],
            machine: (machine != 0).then_some([machine; 16]),
        },
        address: SocketAddr::from(([192, 0, 2, id], 4000)),
    }
}

/// A relay that takes one `Hello` after the other, a second apart, and knows whose tunnel it has.
struct Fixture {
    watch: CloneWatch,
    policy: OnClone,
    holder: Option<Run>,
    secs: u64,
}

impl Fixture {
    fn new(policy: OnClone) -> Self {
        Self {
            watch: CloneWatch::default(),
            policy,
            holder: None,
            secs: 0,
        }
    }

    fn hello(&mut self, run: Run) -> Verdict {
        self.secs += 1;
        let verdict = self
            .watch
            .hello(at(self.secs), run, self.holder, self.policy);
        if verdict.refused_for.is_none() {
            self.holder = Some(run);
        }
        verdict
    }

    fn is_cloned(&self) -> bool {
        self.watch.pair(at(self.secs)).is_some()
    }
}

#[test]
fn two_live_machines_are_a_clone_at_the_fifth_hello() {
    for (a, b) in [(run(1, 0), run(2, 0)), (run(1, 7), run(2, 8))] {
        let mut fixture = Fixture::new(OnClone::Newest);
        for each in [a, b, a, b] {
            assert_eq!(fixture.hello(each), Verdict::default());
        }
        let verdict = fixture.hello(a);
        let pair = ClonePair {
            first: a.address,
            second: b.address,
        };
        assert_eq!((verdict.note, verdict.is_news), (Some(pair), true));
        // They go on, and it is written down once a minute, and is no news.
        let mut notes = 0;
        for each in [b, a].into_iter().cycle().take(120) {
            let verdict = fixture.hello(each);
            assert!(verdict.refused_for.is_none() && !verdict.is_news);
            notes += u64::from(verdict.note.is_some());
        }
        assert_eq!(notes, 120 / CLONE_NOTE.as_secs());
    }
}

#[test]
fn first_machine_keeps_its_tunnel_while_it_answers() {
    let (a, b) = (run(1, 7), run(2, 8));
    let mut fixture = Fixture::new(OnClone::First);
    for each in [a, b, a, b, a] {
        assert_eq!(fixture.hello(each).refused_for, None);
    }
    for _ in 0..5 {
        assert_eq!(fixture.hello(b).refused_for, Some(a.address));
        // The first one's new connections are taken, from wherever they come.
        let moved = Run {
            address: "198.51.100.9:1".parse().unwrap(),
            ..a
        };
        assert_eq!(fixture.hello(moved).refused_for, None);
        assert_eq!(fixture.hello(a).refused_for, None);
    }
    // The second machine's restart is on its own hardware.
    assert_eq!(fixture.hello(run(3, 8)).refused_for, Some(a.address));
    // The first one's restart is on that of the first, even if another has its place meanwhile.
    assert_eq!(fixture.hello(run(4, 7)).refused_for, None);
    fixture.holder = None;
    assert_eq!(fixture.hello(b).refused_for, None, "the first one is gone");
    assert_eq!(fixture.hello(run(5, 7)).refused_for, None);
    assert_eq!(fixture.hello(b).refused_for, Some(run(5, 7).address));
}

#[test]
fn replacement_of_a_dead_machine_gets_in() {
    // Without a clone: whether or not the relay has noticed that the old one is dead.
    for holder in [None, Some(run(1, 7))] {
        let mut fixture = Fixture::new(OnClone::First);
        fixture.hello(run(1, 7));
        fixture.holder = holder;
        for _ in 0..9 {
            assert_eq!(fixture.hello(run(2, 8)), Verdict::default());
        }
    }
    // With one that was there an hour ago.
    let (a, b) = (run(1, 0), run(2, 0));
    let mut fixture = Fixture::new(OnClone::First);
    for each in [a, b, a, b, a] {
        fixture.hello(each);
    }
    fixture.secs += CLONE_MEMORY.as_secs();
    assert!(!fixture.is_cloned());
    assert_eq!(fixture.hello(b), Verdict::default());
}

#[test]
fn copy_that_is_another_run_each_time_is_found_and_refused() {
    let a = run(1, 7);
    let mut fixture = Fixture::new(OnClone::First);
    fixture.hello(a);
    for id in 2..5 {
        assert!(!fixture.is_cloned());
        fixture.hello(run(id, 0));
        fixture.hello(a);
    }
    assert!(fixture.is_cloned());
    for id in 5..9 {
        assert_eq!(fixture.hello(run(id, 0)).refused_for, Some(a.address));
    }
}

#[test]
fn a_third_machine_is_seen_too() {
    let (a, b, c) = (run(1, 0), run(2, 0), run(3, 0));
    let mut fixture = Fixture::new(OnClone::Newest);
    for each in [a, b, c, a, b, c] {
        fixture.hello(each);
    }
    assert!(!fixture.is_cloned());
    fixture.hello(a);
    assert!(fixture.is_cloned());
}

proptest! {
    /// Runs one device: a run after the other, each with any number of connections from anywhere, and one `Hello` of a
    /// run before that was on a slow path, which the present run answers with a new connection.
    #[test]
    fn one_device_is_no_clone(
        connections in prop::collection::vec(1_usize..4, 1..40),
        late in prop::collection::vec(any::<bool>(), 40),
        machines in prop::collection::vec(0_u8..3, 40),
        policy in prop_oneof![Just(OnClone::Newest), Just(OnClone::First)],
    ) {
        let mut fixture = Fixture::new(policy);
        for (id, count) in connections.iter().enumerate() {
            let now = run(u8::try_from(id).unwrap(), machines[id]);
            for port in 0..*count {
                let address = SocketAddr::from(([203, 0, 113, 1], u16::try_from(port).unwrap()));
                prop_assert_eq!(fixture.hello(Run { address, ..now }), Verdict::default());
            }
            if id > 0 && late[id] {
                let before = run(u8::try_from(id - 1).unwrap(), machines[id - 1]);
                prop_assert_eq!(fixture.hello(before), Verdict::default());
                prop_assert_eq!(fixture.hello(now), Verdict::default());
            }
            prop_assert!(!fixture.is_cloned());
        }
    }

    /// Runs two machines that dial again as soon as they have lost the tunnel, with any restarts of either: while
    /// neither restarts, five changes of hand are enough.
    #[test]
    fn two_live_machines_are_found(restarts in 0_u8..20, policy in prop_oneof![Just(OnClone::Newest), Just(OnClone::First)]) {
        let mut fixture = Fixture::new(policy);
        for id in 0..restarts {
            fixture.hello(run(100 + id, 0));
        }
        for each in [run(1, 0), run(2, 0)].into_iter().cycle().take(5) {
            fixture.hello(each);
        }
        prop_assert!(fixture.is_cloned());
    }

    /// Checks any order of runs: the number that is remembered is bounded, and no run is refused without a holder.
    #[test]
    fn memory_is_bounded(hellos in prop::collection::vec((0_u8..30, 0_u8..4, any::<bool>()), 0..200)) {
        let mut fixture = Fixture::new(OnClone::First);
        for (id, machine, gone) in hellos {
            if gone {
                fixture.holder = None;
            }
            let holder = fixture.holder;
            let verdict = fixture.hello(run(id, machine));
            prop_assert!(verdict.refused_for.is_none() || holder.is_some());
            prop_assert!(fixture.watch.runs.len() <= MAX_CLONE_RUNS);
        }
    }
}
