use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::recording::record::{FileKind, Gap, GapReason, RecordedBytes};
use crate::sftp::kind::*;
use crate::sftp::{FileAction, Follower, Operation};

const KEY: ChainKey = ChainKey([7; 32]);

/// A record that owns its paths.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    kind: FileKind,
    path: Vec<u8>,
    other: Option<Vec<u8>>,
    size: u64,
    result: u32,
}

impl Line {
    fn of(record: &FileOperation<'_>) -> Self {
        Self {
            kind: record.kind,
            path: record.path.0.to_vec(),
            other: record.other.as_ref().map(|other| other.0.to_vec()),
            size: record.size,
            result: record.result,
        }
    }

    fn event(&self) -> Event<'_> {
        Event::File(FileOperation {
            kind: self.kind,
            path: RecordedBytes(&self.path),
            other: self.other.as_deref().map(RecordedBytes),
            size: self.size,
            result: self.result,
        })
    }
}

fn taken(follower: &mut Follower) -> Vec<Followed> {
    core::iter::from_fn(|| follower.poll()).collect()
}

fn lines(seen: &[Followed]) -> Vec<Line> {
    let operations = seen.iter().filter_map(|followed| match followed {
        Followed::Operation(operation) => Some(operation),
        Followed::Lost(_) => None,
    });
    let records = operations.flat_map(FileOperation::of);
    records.map(|record| Line::of(&record)).collect()
}

/// The facts of the relay, and its lists.
struct Relay {
    seen: SeenFiles,
    answered: Vec<Line>,
    left: Vec<Line>,
}

fn relay(requests: &[u8], answers: &[u8], is_comparable: bool) -> Relay {
    let (mut follower, mut digester) =
        (Follower::default(), FileDigester::new(&KEY, is_comparable));
    let mut answered = Vec::new();
    follower.handle_requests(requests);
    for piece in answers.chunks(50) {
        follower.handle_answers(piece);
        let seen = taken(&mut follower);
        digester.follow(&seen);
        answered.extend(lines(&seen));
    }
    let possible = follower.possible();
    follower.finish();
    let left = taken(&mut follower);
    digester.finish(&left, &possible);
    Relay {
        seen: digester.seen(),
        answered,
        left: lines(&left),
    }
}

/// Returns what a device records that gets and gives this.
fn device(requests: &[u8], answers: &[u8]) -> Vec<Line> {
    let mut follower = Follower::default();
    follower.handle_requests(requests);
    follower.handle_answers(answers);
    follower.finish();
    lines(&taken(&mut follower))
}

fn check(seen: &SeenFiles, view: View, records: &[Line], got_all: bool) -> FileProof {
    let mut check = FileCheck::new(&KEY, seen, view);
    for record in records {
        check.handle(&record.event());
    }
    check.finish(true, got_all)
}

fn string(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
}

fn packet(kind: u8, id: u32, fields: &[&[u8]]) -> Vec<u8> {
    string(&[&[kind][..], &id.to_be_bytes(), &fields.concat()].concat())
}

/// A request of a client; handles are those of an earlier request, by its number.
#[derive(Clone, Debug)]
enum Step {
    Remove(u8),
    Rename(u8, u8),
    Stat(u8),
    Open(u8, bool),
    OpenAs(u8),
    List(u8),
    Read(usize),
    Write(usize),
    Fstat(usize),
    Copy(usize, usize),
    Close(usize),
}

fn some_step() -> impl Strategy<Value = Step> {
    let (name, handle) = (0_u8..4, 0_usize..30);
    prop_oneof![
        name.clone().prop_map(Step::Remove),
        (name.clone(), name.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        name.clone().prop_map(Step::Stat),
        (name.clone(), any::<bool>()).prop_map(|(name, writes)| Step::Open(name, writes)),
        (name.clone(), any::<bool>()).prop_map(|(name, writes)| Step::Open(name, writes)),
        name.clone().prop_map(Step::OpenAs),
        name.prop_map(Step::List),
        handle.clone().prop_map(Step::Read),
        handle.clone().prop_map(Step::Write),
        handle.clone().prop_map(Step::Fstat),
        (handle.clone(), handle.clone()).prop_map(|(from, to)| Step::Copy(from, to)),
        handle.clone().prop_map(Step::Close),
        handle.prop_map(Step::Close),
    ]
}

/// Returns the requests of some steps, and a server's answers. Some steps fail.
fn conversation(steps: &[(Step, bool)]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let path = |name: u8| string(format!("/{name}").as_bytes());
    let named = |id: usize| format!("h{id}");
    let (mut open, mut opening) = (Vec::<String>::new(), Vec::<String>::new());
    let (mut requests, mut answers) = (vec![], vec![]);
    for (number, (step, succeeds)) in steps.iter().enumerate() {
        let id = u32::try_from(number).unwrap();
        let handle = |at: &usize| match opening.len() {
            0 => "none".into(),
            count => opening[at % count].clone(),
        };
        let is_open = |handle: &String| open.contains(handle);
        let own = named(number);
        let status = |code: u32| {
            packet(
                STATUS,
                id,
                &[&code.to_be_bytes(), &string(b""), &string(b"")],
            )
        };
        let plain = || status(if *succeeds { 0 } else { 4 });
        let on = |handle: &String, answer: Vec<u8>| match is_open(handle) && *succeeds {
            true => answer,
            false => status(4),
        };
        let opened = || match succeeds {
            true => packet(HANDLE, id, &[&string(own.as_bytes())]),
            false => status(2),
        };
        let (request, answer) = match step {
            Step::Remove(name) => (packet(REMOVE, id, &[&path(*name)]), plain()),
            Step::Rename(from, to) => (packet(RENAME, id, &[&path(*from), &path(*to)]), plain()),
            Step::Stat(name) => (packet(STAT, id, &[&path(*name)]), plain()),
            Step::Open(name, writes) => {
                let flags = if *writes { 0x1a_u32 } else { 1 }.to_be_bytes();
                (packet(OPEN, id, &[&path(*name), &flags, &[0; 4]]), opened())
            }
            Step::OpenAs(name) => {
                let fields: [&[u8]; 5] = [
                    &string(OPEN_AS),
                    &string(own.as_bytes()),
                    &path(*name),
                    &0x1a_u32.to_be_bytes(),
                    &[0; 4],
                ];
                (packet(EXTENDED, id, &fields), opened())
            }
            Step::List(name) => (packet(OPENDIR, id, &[&path(*name)]), opened()),
            Step::Read(at) => {
                let handle = handle(at);
                let read = packet(READ, id, &[&string(handle.as_bytes()), &[0; 12]]);
                (read, on(&handle, packet(DATA, id, &[&string(&[1; 9])])))
            }
            Step::Write(at) => {
                let handle = handle(at);
                let fields: [&[u8]; 3] = [&string(handle.as_bytes()), &[0; 8], &string(&[1; 5])];
                (packet(WRITE, id, &fields), on(&handle, status(0)))
            }
            Step::Fstat(at) => {
                let handle = handle(at);
                let stat = packet(FSTAT, id, &[&string(handle.as_bytes())]);
                (stat, on(&handle, packet(ATTRS, id, &[&[0; 4]])))
            }
            Step::Copy(from, to) => {
                let (from, to) = (handle(from), handle(to));
                let fields: [&[u8]; 5] = [
                    &string(b"copy-data"),
                    &string(from.as_bytes()),
                    &[0; 16],
                    &string(to.as_bytes()),
                    &[0; 8],
                ];
                let copied = match is_open(&from) {
                    true => on(&to, status(0)),
                    false => status(4),
                };
                (packet(EXTENDED, id, &fields), copied)
            }
            Step::Close(at) => {
                let handle = handle(at);
                let close = packet(CLOSE, id, &[&string(handle.as_bytes())]);
                let answer = match is_open(&handle) {
                    true => plain(),
                    false => status(4),
                };
                open.retain(|open| *open != handle);
                (close, answer)
            }
        };
        if matches!(step, Step::Open(..) | Step::OpenAs(_) | Step::List(_)) {
            opening.push(own.clone());
            if *succeeds {
                open.push(own);
            }
        }
        requests.push(request);
        answers.push(answer);
    }
    (requests, answers)
}

/// A session: what each end has of it.
#[derive(Clone, Debug)]
struct Cut {
    steps: Vec<(Step, bool)>,
    requests: prop::sample::Index,
    answers: [prop::sample::Index; 2],
    exits: bool,
}

fn some_cut() -> impl Strategy<Value = Cut> {
    let steps = prop::collection::vec((some_step(), prop::bool::weighted(0.8)), 0..40);
    let index = any::<prop::sample::Index>;
    (steps, index(), [index(), index()], any::<bool>()).prop_map(
        |(steps, requests, answers, exits)| Cut {
            steps,
            requests,
            answers,
            exits,
        },
    )
}

/// Several readers of one file, whose records differ in their bytes alone.
fn some_readers() -> impl Strategy<Value = Cut> {
    let handle = 0_usize..30;
    let step = prop_oneof![
        Just(Step::Open(0, false)),
        handle.clone().prop_map(Step::Read),
        handle.prop_map(Step::Close),
    ];
    let steps = prop::collection::vec((step, prop::bool::weighted(0.95)), 0..60);
    let index = any::<prop::sample::Index>;
    (steps, index(), [index(), index()]).prop_map(|(steps, requests, answers)| Cut {
        steps,
        requests,
        answers,
        exits: false,
    })
}

/// The two ends of a session that was cut.
struct Ends {
    relay: Relay,
    device: Vec<Line>,
    view: View,
    /// The device has all requests.
    got_all: bool,
    /// The relay has all answers.
    saw_all: bool,
}

impl Cut {
    fn ends(&self) -> Ends {
        let (requests, answers) = conversation(&self.steps);
        let arrived = self.requests.index(requests.len() + 1);
        let got = requests[..arrived].concat();
        let given = answers[..arrived].concat();
        let given = &given[..self.answers[0].index(given.len() + 1)];
        let shown = match self.exits {
            true => given,
            false => &given[..self.answers[1].index(given.len() + 1)],
        };
        Ends {
            relay: relay(&requests.concat(), shown, true),
            device: device(&got, given),
            view: if self.exits {
                View::Exited
            } else {
                View::CutOff
            },
            got_all: arrived == requests.len(),
            saw_all: shown.len() == given.len(),
        }
    }
}

proptest! {
    #[test]
    fn honest_recordings_are_never_contradicted(cut in some_cut()) {
        let Ends { relay, device, view, got_all, saw_all } = cut.ends();
        let proof = check(&relay.seen, view, &device, got_all);
        prop_assert_eq!(proof.contradiction, None);
        if saw_all {
            prop_assert_eq!((proof.lack, proof.unproved), (None, 0));
            prop_assert_eq!(proof.proved, device.len() as u64);
        }
        // What a killed relay has kept is an earlier view without what was under way.
        let kept = SeenFiles { under_way: vec![], ..relay.seen };
        let proof = check(&kept, View::Stale, &device, got_all);
        prop_assert_eq!(proof.contradiction, None);
    }

    #[test]
    fn readers_of_one_file_are_never_contradicted(cut in some_readers()) {
        let Ends { relay, device, view, got_all, .. } = cut.ends();
        let proof = check(&relay.seen, view, &device, got_all);
        prop_assert_eq!(proof.contradiction, None);
    }

    #[test]
    fn no_other_list_is_proved(
        cut in some_cut(),
        lies in prop::collection::vec((0_u8..6, any::<[prop::sample::Index; 2]>()), 1..3),
    ) {
        let Ends { relay, device, view, got_all, .. } = cut.ends();
        let mut records = device;
        for (lie, [at, other]) in lies {
            let invented = Line {
                kind: FileKind::Remove,
                path: b"/etc/shadow".to_vec(),
                other: None,
                size: 0,
                result: 0,
            };
            if records.is_empty() {
                records.push(invented);
                continue;
            }
            let (at, other) = (at.index(records.len()), other.index(records.len()));
            match lie {
                0 => drop(records.remove(at)),
                1 => records.insert(at, invented),
                2 => records.insert(other, records[at].clone()),
                3 => records.swap(at, other),
                4 => records[at].path.push(b'x'),
                _ => records[at].result ^= 1,
            }
        }
        let proof = check(&relay.seen, view, &records, got_all);
        let count = relay.answered.len();
        let mut left = relay.left.clone();
        for (number, record) in records.iter().enumerate().take(usize::try_from(proof.proved).unwrap()) {
            match relay.answered.get(number) {
                Some(answered) => prop_assert_eq!(record, answered),
                None => {
                    let found = left.iter().position(|left| left == record);
                    prop_assert!(found.is_some(), "{:?}", record);
                    left.remove(found.unwrap());
                }
            }
        }
        if proof.contradiction.is_none() && proof.lack.is_none() {
            prop_assert_eq!(proof.proved, records.len() as u64);
            prop_assert!(records.len() >= count);
            prop_assert!(!got_all || left.is_empty(), "{:?}", left);
        }
    }
}

/// Returns the requests for two removals, a file of which three bytes are read, and another removal.
fn example() -> Vec<Vec<u8>> {
    vec![
        packet(REMOVE, 0, &[&string(b"/a")]),
        packet(REMOVE, 1, &[&string(b"/b")]),
        packet(OPEN, 2, &[&string(b"/c"), &1_u32.to_be_bytes(), &[0; 4]]),
        packet(READ, 3, &[&string(b"h"), &[0; 12]]),
        packet(REMOVE, 4, &[&string(b"/d")]),
    ]
}

fn answers() -> Vec<Vec<u8>> {
    let done = |id| packet(STATUS, id, &[&[0; 12]]);
    vec![
        done(0),
        done(1),
        packet(HANDLE, 2, &[&string(b"h")]),
        packet(DATA, 3, &[&string(b"123")]),
        done(4),
    ]
}

#[test]
fn operation_behind_a_cut_is_proved_as_far_as_the_relay_saw() {
    let (requests, answers) = (example().concat(), answers());
    let relay = relay(&requests, &answers[..4].concat(), true);
    // The answer to the last was on its way.
    let records = device(&requests, &answers.concat());
    let proof = check(&relay.seen, View::CutOff, &records, true);
    let expected = FileProof {
        contradiction: None,
        lack: Some(Unproved::NotShown),
        proved: 2,
        unproved: 2,
    };
    assert_eq!(proof, expected);
    // The same list is a lie where the session came to its end.
    let proof = check(&relay.seen, View::Exited, &records, true);
    assert_eq!(proof.contradiction, Some(Contradiction::FileAdded(3)));
    // What was not asked for is never under way.
    let mut invented = records.clone();
    invented[2].path = b"/etc/shadow".to_vec();
    let proof = check(&relay.seen, View::CutOff, &invented, true);
    assert_eq!(proof.contradiction, Some(Contradiction::FileAdded(3)));
    // The open file is recorded, however it ended.
    let proof = check(&relay.seen, View::CutOff, &records[..3], true);
    let missing = Contradiction::FilesMissing { recorded: 3 };
    assert_eq!(proof.contradiction, Some(missing));
}

#[test]
fn request_that_arrived_is_recorded() {
    let (requests, answers) = (example(), answers()[..4].concat());
    let relay = relay(&requests.concat(), &answers, true);
    let records = device(&requests[..4].concat(), &answers);
    let proof = check(&relay.seen, View::Exited, &records, false);
    assert_eq!((proof.contradiction, proof.lack), (None, None));
    let proof = check(&relay.seen, View::Exited, &records, true);
    let missing = Contradiction::FilesMissing { recorded: 3 };
    assert_eq!(proof.contradiction, Some(missing));
}

#[test]
fn operations_behind_a_gap_are_not_proved() {
    let (requests, answers) = (example().concat(), answers().concat());
    let relay = relay(&requests, &answers, true);
    let records = device(&requests, &answers);
    let of = |before: &[Line], behind: &[Line], lost| {
        let mut check = FileCheck::new(&KEY, &relay.seen, View::Exited);
        for record in before {
            check.handle(&record.event());
        }
        check.handle(&Event::Gap(Gap {
            micros: 0,
            bytes: [0; 3],
            after: Default::default(),
            records: lost,
            why: GapReason::SpoolFull,
        }));
        for record in behind {
            check.handle(&record.event());
        }
        check.finish(true, true)
    };
    let proof = of(&records[..1], &records[2..], 1);
    assert_eq!(
        (proof.contradiction, proof.lack),
        (None, Some(Unproved::Gaps))
    );
    assert_eq!((proof.proved, proof.unproved), (1, 2));
    // What was altered before it is known to be.
    let mut altered = records.clone();
    altered[0].path = b"/x".to_vec();
    let proof = of(&altered[..1], &altered[2..], 1);
    let differs = Contradiction::FilesAltered { from: 1 };
    assert_eq!(proof.contradiction, Some(differs));
    // A gap without records hides none.
    let proof = of(&records[..1], &records[2..], 0);
    assert!(proof.contradiction.is_some());
    let proof = of(&records[..1], &records[1..], 0);
    assert_eq!((proof.contradiction, proof.lack), (None, None));
}

#[test]
fn device_that_follows_in_another_way_is_not_contradicted() {
    let (requests, answers) = (example().concat(), answers().concat());
    let relay = relay(&requests, &answers, false);
    let mut records = device(&requests, &answers);
    let proof = check(&relay.seen, View::Exited, &records, true);
    assert_eq!((proof.contradiction, proof.lack), (None, None));
    records.pop();
    let proof = check(&relay.seen, View::Exited, &records, true);
    let older = Some(Unproved::NotComparable);
    assert_eq!((proof.contradiction, proof.lack), (None, older));
}

#[test]
fn what_is_missing_by_the_devices_word_is_no_contradiction() {
    let (requests, answers) = (example().concat(), answers().concat());
    let relay = relay(&requests, &answers, true);
    let records = device(&requests, &answers);
    let mut check = FileCheck::new(&KEY, &relay.seen, View::Exited);
    for record in &records[..1] {
        check.handle(&record.event());
    }
    check.handle(&Event::FilesUnfollowed("spool full"));
    let proof = check.finish(true, true);
    assert_eq!(proof.contradiction, None);
    assert_eq!((proof.proved, proof.unproved), (1, 2));
    assert_eq!(proof.lack, Some(Unproved::NotFollowed));
}

#[test]
fn what_follows_where_the_relay_lost_track_is_not_compared() {
    let (requests, answers) = (example().concat(), answers().concat());
    let mut follower = Follower::default();
    let mut digester = FileDigester::new(&KEY, true);
    follower.handle_requests(&requests);
    follower.handle_answers(&answers);
    digester.follow(&taken(&mut follower));
    // Not asked for.
    follower.handle_answers(&packet(STATUS, 9, &[&[0; 12]]));
    digester.follow(&taken(&mut follower));
    let possible = follower.possible();
    follower.finish();
    digester.finish(&taken(&mut follower), &possible);
    let seen = digester.seen();
    assert!(!seen.is_complete && seen.under_way.is_empty());
    let mut records = device(&requests, &answers);
    let proof = check(&seen, View::Exited, &records, true);
    assert_eq!(proof.contradiction, None);
    assert_eq!((proof.proved, proof.unproved), (3, 1));
    assert_eq!(proof.lack, Some(Unproved::NotFollowed));
    // A device that lists no more than what was followed hides the rest, however the session ended.
    for view in [View::Exited, View::CutOff] {
        let proof = check(&seen, view, &records[..3], true);
        let lack = Some(Unproved::NotFollowed);
        assert_eq!((proof.contradiction, proof.lack), (None, lack));
    }
    records[0].result = 4;
    let proof = check(&seen, View::Exited, &records, true);
    let differs = Contradiction::FilesAltered { from: 1 };
    assert_eq!(proof.contradiction, Some(differs));
}

#[test]
fn what_is_kept_of_operations_under_way_is_bounded() {
    let mut digester = FileDigester::new(&KEY, true);
    let operation = |number: usize| {
        Followed::Operation(Operation {
            action: FileAction::Stat,
            path: format!("/{number}").into_bytes(),
            to: None,
            outcome: FileOutcome::NotAnswered,
            read: 0,
            written: 0,
        })
    };
    let left: Vec<Followed> = (0..=MAX_SFTP_UNDER_WAY).map(operation).collect();
    digester.finish(
        &left,
        &PossibleOperations {
            operations: vec![],
            is_complete: true,
        },
    );
    let seen = digester.seen();
    assert_eq!(seen.under_way.len(), MAX_SFTP_UNDER_WAY);
    let records = lines(&left);
    let proof = check(&seen, View::Exited, &records, true);
    assert_eq!((proof.contradiction, proof.unproved), (None, 1));
    assert_eq!(proof.lack, Some(Unproved::NotShown));
    // One of those that were not kept may be what is missing.
    for recorded in [MAX_SFTP_UNDER_WAY, 0] {
        let proof = check(&seen, View::CutOff, &records[..recorded], false);
        assert_eq!(proof.contradiction, None);
        assert_eq!(proof.lack, Some(Unproved::NotShown));
    }
}
