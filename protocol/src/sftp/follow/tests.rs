use alloc::vec;

use proptest::collection::vec as some;
use proptest::prelude::*;

use super::outcome::END_OF_FILE;
use super::*;
use crate::limits::MAX_SFTP_OPEN;
use crate::sftp::kind::*;
use crate::sftp::operation::FileAction;

fn packet(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 1).unwrap().to_be_bytes();
    [&length[..], &[kind], &body].concat()
}

fn number(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&number(u32::try_from(text.len()).unwrap())[..], text].concat()
}

fn open(id: u32, path: &str, flags: u32) -> Vec<u8> {
    packet(
        OPEN,
        &[&number(id), &string(path), &number(flags), &number(0)],
    )
}

fn open_as(id: u32, handle: &str, path: &str) -> Vec<u8> {
    let (name, handle, path) = (string(OPEN_AS), string(handle), string(path));
    packet(
        EXTENDED,
        &[
            &number(id),
            &name,
            &handle,
            &path,
            &number(0x1a),
            &number(0),
        ],
    )
}

fn on(kind: u8, id: u32, name: &str) -> Vec<u8> {
    packet(kind, &[&number(id), &string(name), &number(0)])
}

fn read(id: u32, handle: &str) -> Vec<u8> {
    packet(READ, &[&number(id), &string(handle), &[0; 8], &number(9)])
}

fn write(id: u32, handle: &str, data: &[u8]) -> Vec<u8> {
    packet(
        WRITE,
        &[&number(id), &string(handle), &[0; 8], &string(data)],
    )
}

fn handle(id: u32, handle: &str) -> Vec<u8> {
    packet(HANDLE, &[&number(id), &string(handle)])
}

fn data(id: u32, data: &[u8]) -> Vec<u8> {
    packet(DATA, &[&number(id), &string(data)])
}

fn status(id: u32, code: u32) -> Vec<u8> {
    packet(
        STATUS,
        &[&number(id), &number(code), &string("why"), &string("")],
    )
}

fn init() -> Vec<u8> {
    packet(INIT, &[&number(3)])
}

fn version() -> Vec<u8> {
    packet(
        2,
        &[&number(3), &string("limits@openssh.com"), &string("1")],
    )
}

fn begun() -> Follower {
    let mut follower = Follower::default();
    follower.handle_requests(&init());
    follower.handle_answers(&version());
    follower
}

fn seen(follower: &mut Follower) -> Vec<Followed> {
    core::iter::from_fn(|| follower.poll()).collect()
}

fn failure(code: u32) -> FileOutcome {
    FileOutcome::Status {
        code,
        text: b"why".to_vec(),
    }
}

fn done(action: FileAction, path: &str, outcome: FileOutcome) -> Operation {
    Operation::new(action, path.into(), outcome)
}

fn booked(action: FileAction, path: &str, outcome: FileOutcome) -> Followed {
    Followed::Operation(done(action, path, outcome))
}

/// Returns a download, an upload, a refusal, a rename, a listing, a copy and what is asked about files.
fn conversation() -> (Vec<u8>, Vec<u8>, Vec<Followed>) {
    let bytes = vec![7; 40_000];
    let posix_rename = string("posix-rename@openssh.com");
    let copy = [
        string("copy-data"),
        string("c"),
        vec![0; 16],
        string("d"),
        vec![0; 8],
    ];
    let requests = [
        init(),
        open(1, "/etc/hosts", 1),
        read(2, "a"),
        read(3, "a"),
        on(CLOSE, 4, "a"),
        open(5, "up.bin", 0x1a),
        write(6, "b", &bytes),
        write(7, "b", &bytes[..5]),
        read(8, "b"),
        on(CLOSE, 9, "b"),
        open(10, "/etc/shadow", 1),
        packet(
            EXTENDED,
            &[&number(11), &posix_rename, &string("x"), &string("y")],
        ),
        on(OPENDIR, 12, "/tmp"),
        on(READDIR, 13, "d"),
        on(CLOSE, 14, "d"),
        open(15, "from", 1),
        open(16, "to", 0x0a),
        packet(EXTENDED, &[&number(17)[..], &copy.concat()]),
        on(FSETSTAT, 18, "d"),
        on(FSTAT, 19, "d"),
        on(STAT, 20, "f"),
        on(REALPATH, 21, "."),
        packet(EXTENDED, &[&number(22), &string("limits@openssh.com")]),
        on(REMOVE, 23, "gone"),
        // Nothing that is known here.
        on(77, 24, "?"),
    ];
    let answers = [
        version(),
        handle(1, "a"),
        data(2, &bytes[..1234]),
        status(3, END_OF_FILE),
        status(4, 0),
        handle(5, "b"),
        status(6, 0),
        status(7, 0),
        data(8, b"123"),
        status(9, 0),
        status(10, 3),
        status(11, 0),
        handle(12, "d"),
        packet(NAME, &[&number(13), &number(0)]),
        status(14, 0),
        handle(15, "c"),
        handle(16, "d"),
        status(17, 0),
        status(18, 3),
        packet(ATTRS, &[&number(19), &number(0)]),
        status(20, 2),
        packet(NAME, &[&number(21), &number(0)]),
        packet(EXTENDED_REPLY, &[&number(22), &[0; 32]]),
        status(23, 0),
        status(24, 8),
    ];
    let with = |action, path, read, written| {
        Followed::Operation(Operation {
            read,
            written,
            ..done(action, path, FileOutcome::OK)
        })
    };
    let to = |action, path, to: &str| {
        Followed::Operation(Operation {
            to: Some(to.into()),
            ..done(action, path, FileOutcome::OK)
        })
    };
    let expected = vec![
        with(FileAction::Read, "/etc/hosts", 1234, 0),
        with(FileAction::Write, "up.bin", 3, 40_005),
        booked(FileAction::Read, "/etc/shadow", failure(3)),
        to(FileAction::Rename, "x", "y"),
        booked(FileAction::List, "/tmp", FileOutcome::OK),
        to(FileAction::Copy, "from", "to"),
        booked(FileAction::SetAttributes, "to", failure(3)),
        booked(FileAction::Stat, "to", FileOutcome::OK),
        booked(FileAction::Stat, "f", failure(2)),
        booked(FileAction::Resolve, ".", FileOutcome::OK),
        booked(FileAction::Extension, "limits@openssh.com", FileOutcome::OK),
        booked(FileAction::Remove, "gone", FileOutcome::OK),
    ];
    (requests.concat(), answers.concat(), expected)
}

#[test]
fn operations_are_booked_when_they_are_answered() {
    let (requests, answers, expected) = conversation();
    let mut follower = Follower::default();
    follower.handle_requests(&requests);
    assert_eq!(seen(&mut follower), []);
    follower.handle_answers(&answers);
    assert_eq!(seen(&mut follower), expected);
    follower.finish();
    assert_eq!(
        seen(&mut follower),
        [
            booked(FileAction::Read, "from", FileOutcome::NotClosed),
            booked(FileAction::Write, "to", FileOutcome::NotClosed)
        ]
    );
    assert_eq!(follower.lost(), None);
}

/// Covers a reused number: the first answer belongs to the first request; but a server out of order is not known from
/// one that does not.
#[test]
fn reused_request_number_ends_following() {
    let secret = open(7, "/etc/shadow", 1);
    for (first, second, expected) in [
        (
            secret.clone(),
            open(7, "/harmless", 1),
            [
                booked(FileAction::Read, "/harmless", FileOutcome::NotFollowed),
                booked(FileAction::Read, "/etc/shadow", FileOutcome::NotFollowed),
            ],
        ),
        (
            secret,
            on(REMOVE, 7, "/file"),
            [
                booked(FileAction::Remove, "/file", FileOutcome::NotFollowed),
                booked(FileAction::Read, "/etc/shadow", FileOutcome::NotFollowed),
            ],
        ),
    ] {
        let mut follower = begun();
        follower.handle_requests(&[first, second].concat());
        let mut all = expected.to_vec();
        all.push(Followed::Lost(FollowError::ReusedId(7)));
        assert_eq!(seen(&mut follower), all);
        // Once and for good: nothing is booked on a path that is not certain.
        follower.handle_answers(&[handle(7, "h"), status(7, 0)].concat());
        follower.handle_requests(&conversation().0);
        follower.finish();
        assert_eq!(seen(&mut follower), []);
        assert_eq!(follower.lost(), Some(FollowError::ReusedId(7)));
    }
}

#[test]
fn number_may_be_used_again_behind_its_answer() {
    let mut follower = begun();
    for path in ["a", "b"] {
        follower.handle_requests(&on(REMOVE, 0, path));
        follower.handle_answers(&status(0, 0));
    }
    let removed = ["a", "b"].map(|path| booked(FileAction::Remove, path, FileOutcome::OK));
    assert_eq!(seen(&mut follower), removed);
}

#[test]
fn unexpected_answer_ends_following() {
    let opened = || open(1, "f", 1);
    let removed = || on(REMOVE, 1, "f");
    for (requests, answers, lost) in [
        (vec![], status(1, 0), FollowError::Unasked(1)),
        (removed(), status(2, 0), FollowError::Unasked(2)),
        (vec![], version(), FollowError::Unasked(3)),
        (init(), packet(2, &[&number(6)]), FollowError::Version(6)),
        (
            removed(),
            data(1, b"1"),
            FollowError::WrongAnswer { id: 1, kind: 103 },
        ),
        (
            opened(),
            status(1, 0),
            FollowError::WrongAnswer { id: 1, kind: 101 },
        ),
        (
            read(1, "h"),
            handle(1, "h"),
            FollowError::WrongAnswer { id: 1, kind: 102 },
        ),
        (read(1, "h"), data(1, b"1"), FollowError::UnknownHandle),
        (
            write(1, "h", b"1"),
            status(1, 0),
            FollowError::UnknownHandle,
        ),
        (on(CLOSE, 1, "h"), status(1, 0), FollowError::UnknownHandle),
        (
            on(FSETSTAT, 1, "h"),
            status(1, 0),
            FollowError::UnknownHandle,
        ),
        (
            open_as(1, "h", "f"),
            handle(1, "i"),
            FollowError::UnknownHandle,
        ),
        (
            [opened(), open(2, "g", 1)].concat(),
            [handle(1, "h"), handle(2, "h")].concat(),
            FollowError::HandleInUse,
        ),
        (
            opened(),
            handle(1, &"h".repeat(257)),
            FollowError::LongHandle,
        ),
        (opened(), packet(HANDLE, &[&number(1)]), FollowError::Short),
        (vec![], packet(STATUS, &[]), FollowError::Short),
        (vec![], vec![0; 5], FollowError::Length(0)),
        (vec![], vec![0xff; 5], FollowError::Length(u32::MAX)),
        (
            vec![],
            b"Welcome to this machine!".to_vec(),
            FollowError::Length(0x5765_6c63),
        ),
    ] {
        let mut follower = begun();
        follower.handle_requests(&requests);
        follower.handle_answers(&answers);
        assert_eq!(follower.lost(), Some(lost));
        let seen = seen(&mut follower);
        let (last, before) = seen.split_last().unwrap();
        assert_eq!(last, &Followed::Lost(lost));
        for followed in before {
            let Followed::Operation(operation) = followed else {
                panic!("it is lost once");
            };
            assert_eq!(operation.outcome, FileOutcome::NotFollowed);
        }
    }
}

#[test]
fn failures_on_unknown_handles_are_nothing() {
    let mut follower = begun();
    let requests = [
        read(1, "h"),
        write(2, "h", b"1"),
        on(CLOSE, 3, "h"),
        on(FSETSTAT, 4, "h"),
    ];
    follower.handle_requests(&requests.concat());
    follower.handle_answers(&(1..5).flat_map(|id| status(id, 4)).collect::<Vec<_>>());
    assert_eq!(seen(&mut follower), []);
    assert_eq!(follower.lost(), None);
}

#[test]
fn handle_may_be_used_before_its_open_is_answered() {
    let mut follower = begun();
    let release = packet(EXTENDED, &[&number(4), &string(RELEASE), &string("1")]);
    let requests = [
        open_as(1, "1", "/good"),
        write(2, "1", b"12345"),
        on(FSETSTAT, 3, "1"),
        release,
        on(CLOSE, 5, "1"),
        open_as(6, "2", "/bad"),
        write(7, "2", b"12345"),
        on(CLOSE, 8, "2"),
        open_as(9, "3", "/left"),
        // A name that is taken is refused, and the file that has it is none the worse.
        open_as(10, "3", "/twice"),
        write(11, "3", b"123"),
        open_as(12, "4", "/late"),
    ];
    follower.handle_requests(&requests.concat());
    let answers = [
        handle(1, "1"),
        status(2, 0),
        status(3, 0),
        status(4, 0),
        status(5, 0),
        status(6, 3),
        status(7, 3),
        status(8, 3),
        handle(9, "3"),
        status(10, 4),
        status(11, 0),
    ];
    follower.handle_answers(&answers.concat());
    let written = |path, outcome, written| {
        Followed::Operation(Operation {
            written,
            ..done(FileAction::Write, path, outcome)
        })
    };
    assert_eq!(
        seen(&mut follower),
        [
            booked(FileAction::SetAttributes, "/good", FileOutcome::OK),
            written("/good", FileOutcome::OK, 5),
            written("/bad", failure(3), 0),
            written("/twice", failure(4), 0),
        ]
    );
    follower.finish();
    assert_eq!(
        seen(&mut follower),
        [
            written("/late", FileOutcome::NotAnswered, 0),
            written("/left", FileOutcome::NotClosed, 3),
        ]
    );
}

#[test]
fn first_failure_of_a_file_is_its_outcome() {
    let mut follower = begun();
    follower
        .handle_requests(&[open(1, "a", 0x1a), write(2, "h", b"1"), on(CLOSE, 3, "h")].concat());
    follower.handle_answers(&[handle(1, "h"), status(2, 4), status(3, 0)].concat());
    assert_eq!(
        seen(&mut follower),
        [booked(FileAction::Write, "a", failure(4))]
    );
}

#[test]
fn memory_is_bounded() {
    let mut follower = begun();
    let mut asked = 0;
    while follower.lost().is_none() {
        follower.handle_requests(&on(STAT, asked, &"x".repeat(1000)));
        asked += 1;
    }
    assert_eq!(follower.lost(), Some(FollowError::TooManyRequests));
    let all = seen(&mut follower);
    assert_eq!(all.len(), asked as usize + 1, "none is left out");
    assert!((asked as usize) < MAX_SFTP_PENDING / 1000);

    // What a client asks for that wants a whole file at once.
    let mut follower = begun();
    for id in 0..20_000 {
        follower.handle_requests(&read(id, "1234"));
    }
    assert_eq!(follower.lost(), None);

    let mut follower = begun();
    for id in 0..=u32::try_from(MAX_SFTP_OPEN).unwrap() {
        assert_eq!(follower.lost(), None);
        follower.handle_requests(&open(id, "f", 1));
        follower.handle_answers(&handle(id, &alloc::format!("{id}")));
    }
    assert_eq!(follower.lost(), Some(FollowError::TooManyFiles));
}

proptest! {
    #[test]
    fn neither_cuts_nor_interleaving_matter(cuts in some(1_usize..3000, 1..200)) {
        let (requests, answers, expected) = conversation();
        let mut follower = Follower::default();
        // An answer never comes before all that was asked: whatever else the order is.
        let (mut requests, mut answers, mut cuts) = (&requests[..], &answers[..], cuts.iter().cycle());
        while !requests.is_empty() {
            let (now, later) = requests.split_at((*cuts.next().unwrap()).min(requests.len()));
            follower.handle_requests(now);
            requests = later;
        }
        while !answers.is_empty() {
            let (now, later) = answers.split_at((*cuts.next().unwrap()).min(answers.len()));
            follower.handle_answers(now);
            answers = later;
        }
        prop_assert_eq!(seen(&mut follower), expected);
    }

    #[test]
    fn no_bytes_are_too_odd(pieces in some((any::<bool>(), some(any::<u8>(), 0..300)), 0..40)) {
        let mut follower = begun();
        for (up, mut piece) in pieces {
            // Lengths that are plausible more often than chance has it.
            if let [a, b, c, ..] = &mut piece[..] {
                (*a, *b, *c) = (0, 0, 0);
            }
            if up { follower.handle_requests(&piece); } else { follower.handle_answers(&piece); }
        }
        follower.finish();
        prop_assert!(follower.pending.is_empty() && follower.open.is_empty());
    }
}
