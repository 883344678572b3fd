use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::limits::{MAX_SFTP_OPEN, MAX_SFTP_PACKET, MAX_SFTP_PENDING};

fn packet(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 1).unwrap().to_be_bytes();
    [&length[..], &[kind], &body].concat()
}

fn number(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn string(text: &[u8]) -> Vec<u8> {
    [&number(u32::try_from(text.len()).unwrap())[..], text].concat()
}

fn open(id: u32, path: &str, flags: u32) -> Vec<u8> {
    packet(
        OPEN,
        &[
            &number(id),
            &string(path.as_bytes()),
            &number(flags),
            &number(0),
        ],
    )
}

fn close(id: u32, handle: &str) -> Vec<u8> {
    packet(CLOSE, &[&number(id), &string(handle.as_bytes())])
}

fn handle(id: u32, handle: &str) -> Vec<u8> {
    packet(HANDLE, &[&number(id), &string(handle.as_bytes())])
}

fn status(id: u32, code: u32, text: &str) -> Vec<u8> {
    packet(
        STATUS,
        &[
            &number(id),
            &number(code),
            &string(text.as_bytes()),
            &string(b""),
        ],
    )
}

fn write(id: u32, handle: &str, data: &[u8]) -> Vec<u8> {
    packet(
        WRITE,
        &[
            &number(id),
            &string(handle.as_bytes()),
            &[0; 8],
            &string(data),
        ],
    )
}

fn init() -> Vec<u8> {
    packet(1, &[&number(3)])
}

fn version() -> Vec<u8> {
    packet(
        2,
        &[&number(3), &string(b"limits@openssh.com"), &string(b"1")],
    )
}

/// A download, an upload, a refusal and a rename; the bytes both ways, and what is to be told.
fn conversation() -> (Vec<u8>, Vec<u8>, Vec<Operation>) {
    let data = vec![7; 40_000];
    let requests = [
        init(),
        open(1, "/etc/hosts", 1),
        packet(READ, &[&number(2), &string(b"a"), &[0; 8], &number(32_768)]),
        packet(READ, &[&number(3), &string(b"a"), &[0; 8], &number(32_768)]),
        close(4, "a"),
        open(5, "up.bin", 0x1a),
        write(6, "b", &data),
        write(7, "b", &data[..5]),
        close(8, "b"),
        open(9, "/etc/shadow", 1),
        packet(
            EXTENDED,
            &[
                &number(10),
                &string(b"posix-rename@openssh.com"),
                &string(b"x"),
                &string(b"y"),
            ],
        ),
        packet(OPENDIR, &[&number(11), &string(b"/tmp")]),
    ];
    let answers = [
        version(),
        handle(1, "a"),
        packet(DATA, &[&number(2), &string(&data[..1234])]),
        status(3, END_OF_FILE, "End of file"),
        status(4, 0, "Success"),
        handle(5, "b"),
        status(6, 0, ""),
        status(7, 0, ""),
        status(8, 0, ""),
        status(9, 3, "Permission denied"),
        status(10, 0, "Success"),
        handle(11, "d"),
    ];
    let told = vec![
        Operation {
            bytes_read: 1234,
            ..operation("read", b"/etc/hosts".to_vec(), ok())
        },
        Operation {
            bytes_written: 40_005,
            ..operation("write", b"up.bin".to_vec(), ok())
        },
        operation("read", b"/etc/shadow".to_vec(), "Permission denied".into()),
        Operation {
            to: Some(b"y".to_vec()),
            ..operation("rename", b"x".to_vec(), ok())
        },
        operation("list", b"/tmp".to_vec(), ok()),
    ];
    (requests.concat(), answers.concat(), told)
}

#[test]
fn what_was_done_is_told_when_it_is_answered() {
    let (requests, answers, told) = conversation();
    let mut follower = Follower::default();
    assert_eq!(follower.request(&requests), None);
    assert_eq!(follower.answer(&answers), told);
    assert_eq!(follower.end(), []);
}

#[test]
fn what_is_open_at_the_end_is_told_then() {
    let mut follower = Follower::default();
    follower.request(&[init(), open(1, "a", 0x1a), open(2, "b", 1)].concat());
    follower.request(&write(3, "h", b"12345"));
    follower.answer(&[version(), handle(1, "h"), status(3, 4, "No space left")].concat());
    let mut left = follower.end();
    left.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(
        left,
        [
            operation("write", b"a".to_vec(), "No space left".into()),
            operation("read", b"b".to_vec(), "not answered".into()),
        ]
    );
}

#[test]
fn what_cannot_be_followed_is_said_once() {
    let too_long = u32::try_from(MAX_SFTP_PACKET + 1).unwrap();
    for nonsense in [
        [&number(too_long)[..], &[OPEN]].concat(),
        [&number(0)[..], &[OPEN]].concat(),
        b"Welcome to this machine!\r\n".to_vec(),
    ] {
        let mut follower = Follower::default();
        let [told] = &follower.answer(&nonsense)[..] else {
            panic!("nothing was said of {nonsense:?}");
        };
        assert_eq!(told.name, "unfollowed");
        assert_eq!(follower.answer(&conversation().1), []);
        assert_eq!(follower.request(&conversation().0), None);
    }
}

#[test]
fn its_memory_has_a_bound() {
    let mut follower = Follower::default();
    let last = u32::try_from(MAX_SFTP_PENDING).unwrap();
    for id in 0..last {
        assert_eq!(follower.request(&open(id, "f", 1)), None);
    }
    let told = follower.request(&open(last, "f", 1)).unwrap();
    assert_eq!(
        (told.name, &*told.result),
        ("unfollowed", "too many requests at once")
    );

    let mut follower = Follower::default();
    for id in 0..=u32::try_from(MAX_SFTP_OPEN).unwrap() {
        let told = follower.request(&open_as(id, &id.to_string(), "f"));
        assert_eq!(told.is_none(), (id as usize) < MAX_SFTP_OPEN, "{id}");
        follower.answer(&handle(id, &id.to_string()));
    }

    let mut follower = Follower::default();
    for id in 0..=u32::try_from(MAX_SFTP_OPEN).unwrap() {
        assert_eq!(follower.request(&open(id, "f", 1)), None);
        let told = follower.answer(&handle(id, &id.to_string()));
        assert_eq!(told.is_empty(), (id as usize) < MAX_SFTP_OPEN, "{id}");
    }
}

proptest! {
    #[test]
    fn packets_are_found_however_they_are_cut(cuts in vec(1_usize..3000, 1..200)) {
        let (requests, answers, told) = conversation();
        let mut follower = Follower::default();
        let pieces = |bytes: &[u8]| {
            let (mut rest, mut cuts, mut pieces) = (bytes.to_vec(), cuts.iter().cycle(), vec![]);
            while !rest.is_empty() {
                let at = (*cuts.next().unwrap()).min(rest.len());
                pieces.push(rest.drain(..at).collect::<Vec<u8>>());
            }
            pieces
        };
        for piece in pieces(&requests) {
            prop_assert_eq!(follower.request(&piece), None);
        }
        let mut done = vec![];
        for piece in pieces(&answers) {
            done.extend(follower.answer(&piece));
        }
        prop_assert_eq!(done, told);
    }

    #[test]
    fn nothing_panics(pieces in vec((any::<bool>(), vec(any::<u8>(), 0..300)), 0..40)) {
        let mut follower = Follower::default();
        follower.request(&init());
        for (up, mut piece) in pieces {
            // Lengths that are plausible more often than chance has it.
            if let [a, b, c, ..] = &mut piece[..] {
                (*a, *b, *c) = (0, 0, 0);
            }
            if up { follower.request(&piece); } else { follower.answer(&piece); }
        }
        follower.end();
    }
}

fn open_as(id: u32, handle: &str, path: &str) -> Vec<u8> {
    packet(
        EXTENDED,
        &[
            &number(id),
            &string(OPEN_AS),
            &string(handle.as_bytes()),
            &string(path.as_bytes()),
            &number(0x1a),
            &number(0),
        ],
    )
}

#[test]
fn a_file_that_the_relay_opens_ahead_is_told_as_any_other() {
    let mut follower = Follower::default();
    let release = packet(EXTENDED, &[&number(4), &string(RELEASE), &string(b"1")]);
    let requests = [
        init(),
        open_as(1, "1", "/good"),
        write(2, "1", b"12345"),
        packet(FSETSTAT, &[&number(3), &string(b"1"), &number(0)]),
        release,
        close(5, "1"),
        open_as(6, "2", "/bad"),
        write(7, "2", b"12345"),
        // A name that is taken is refused, and the file that has it is none the worse.
        open_as(8, "3", "/left"),
        open_as(9, "3", "/twice"),
        write(10, "3", b"123"),
        open_as(11, "4", "/late"),
    ];
    assert_eq!(follower.request(&requests.concat()), None);
    let answers = [
        version(),
        handle(1, "1"),
        status(2, 0, ""),
        status(3, 0, ""),
        status(4, 0, ""),
        status(5, 0, ""),
        status(6, 3, "Permission denied"),
        status(7, 3, "Permission denied"),
        handle(8, "3"),
        status(9, 4, "no name for a handle"),
        status(10, 0, ""),
    ];
    let told = |name, path: &str, result: &str, bytes_written| Operation {
        bytes_written,
        ..operation(name, path.as_bytes().to_vec(), result.to_owned())
    };
    assert_eq!(
        follower.answer(&answers.concat()),
        [
            told("setstat", "/good", "ok", 0),
            told("write", "/good", "ok", 5),
            told("write", "/bad", "Permission denied", 0),
            told("write", "/twice", "no name for a handle", 0),
        ]
    );
    // Behind a failed open nothing more is told of it.
    follower.request(&packet(FSETSTAT, &[&number(12), &string(b"2"), &number(0)]));
    follower.request(&close(13, "2"));
    let late = [status(12, 3, ""), status(13, 3, "")].concat();
    assert_eq!(follower.answer(&late), []);
    assert_eq!(
        follower.end(),
        [
            told("write", "/late", "not answered", 0),
            told("write", "/left", "not closed", 3),
        ]
    );
}

#[test]
fn a_copy_within_the_device_names_both_files() {
    let mut follower = Follower::default();
    let requests = [init(), open(1, "/from", 1), open(2, "/to", 0x1a)].concat();
    assert_eq!(follower.request(&requests), None);
    let answers = [version(), handle(1, "a"), handle(2, "b")].concat();
    assert_eq!(follower.answer(&answers), []);
    let copy = |id: u32, from: &[u8], to: &[u8]| {
        let name = string(b"copy-data");
        let (from, to) = (string(from), string(to));
        packet(
            EXTENDED,
            &[&number(id), &name, &from, &[0; 16], &to, &[0; 8]],
        )
    };
    let requests = [copy(3, b"a", b"b"), copy(4, b"a", b"?")].concat();
    assert_eq!(follower.request(&requests), None);
    let answers = [status(3, 0, "Success"), status(4, 4, "no such handle")].concat();
    let copied = Operation {
        to: Some(b"/to".to_vec()),
        ..operation("copy", b"/from".to_vec(), ok())
    };
    assert_eq!(follower.answer(&answers), [copied]);
}
