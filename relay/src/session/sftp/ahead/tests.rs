use proptest::collection::vec;
use proptest::prelude::*;

use holdfast_protocol::limits::MAX_SFTP_HANDLE as MAX_HANDLE;
use holdfast_protocol::sftp::SftpRequest;
use holdfast_protocol::sftp::kind::{DATA, STATUS, WRITE};

use super::*;
use crate::session::limits::{MAX_SFTP_GUESSES, SFTP_GUESS_LIFE};

const TICK: std::time::Duration = std::time::Duration::from_millis(1);

pub(in crate::session::sftp) fn packet(kind: u8, id: u32, rest: &[&[u8]]) -> Vec<u8> {
    let body = [&[kind][..], &id.to_be_bytes(), &rest.concat()].concat();
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
}

pub(in crate::session::sftp) fn string(bytes: &[u8]) -> Vec<u8> {
    [
        &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..],
        bytes,
    ]
    .concat()
}

fn open(id: u32, flags: u32) -> Vec<u8> {
    let open = SftpRequest::Open {
        path: b"/file",
        flags,
        attributes: Attributes::default(),
    };
    open.packet(id)
}

pub(in crate::session::sftp) fn read(id: u32, handle: &[u8], offset: u64, length: u32) -> Vec<u8> {
    let read = SftpRequest::Read {
        handle,
        offset,
        length,
    };
    read.packet(id)
}

pub(in crate::session::sftp) fn close(id: u32, handle: &[u8]) -> Vec<u8> {
    SftpRequest::Close(handle).packet(id)
}

pub(in crate::session::sftp) fn handle(id: u32, handle: &[u8]) -> Vec<u8> {
    packet(HANDLE, id, &[&string(handle)])
}

fn data(id: u32, bytes: &[u8]) -> Vec<u8> {
    packet(DATA, id, &[&string(bytes)])
}

pub(in crate::session::sftp) fn status(id: u32, code: u32) -> Vec<u8> {
    packet(
        STATUS,
        id,
        &[&code.to_be_bytes(), &string(b"text"), &[0; 4]],
    )
}

/// A session that is under way: what its two ends get.
pub(in crate::session::sftp) struct Talk {
    pub(in crate::session::sftp) ahead: Ahead,
    device: Vec<u8>,
    client: Vec<u8>,
}

impl Talk {
    /// Returns a state in which nothing has been said yet.
    pub(in crate::session::sftp) fn fresh() -> Self {
        Self {
            ahead: Ahead::default(),
            device: vec![],
            client: vec![],
        }
    }

    /// Returns a client that reads 1,000 bytes at a time, and has been seen to.
    pub(in crate::session::sftp) fn new() -> Self {
        let mut talk = Self::fresh();
        talk.answer(&packet(VERSION, 3, &[]));
        talk.ask(&[open(1, 1)].concat());
        talk.answer(&handle(1, b"a"));
        talk.ask(&read(2, b"a", 0, 1_000));
        talk.answer(&data(2, b"text"));
        talk.ask(&close(3, b"a"));
        talk.answer(&status(FIRST_GUESS, 0));
        (talk.device, talk.client) = (vec![], vec![]);
        talk
    }

    pub(in crate::session::sftp) fn ask(&mut self, bytes: &[u8]) {
        let parts = self.ahead.requests(bytes);
        join(&mut self.device, parts, bytes);
        self.settle();
    }

    pub(in crate::session::sftp) fn answer(&mut self, bytes: &[u8]) {
        let parts = self.ahead.answers(bytes);
        join(&mut self.client, parts, bytes);
        self.settle();
    }

    fn settle(&mut self) {
        let mut state = self.ahead.lock();
        self.device.extend(state.for_device.split());
        self.client.extend(state.take_answers().unwrap_or_default());
    }

    /// Returns what has come to the device since the last call.
    pub(in crate::session::sftp) fn asked(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.device)
    }

    pub(in crate::session::sftp) fn take_answers(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.client)
    }
}

fn join(to: &mut Vec<u8>, parts: Vec<ReadPart>, bytes: &[u8]) {
    for part in parts {
        match part {
            ReadPart::Same(range) => to.extend(&bytes[range]),
            ReadPart::Other(bytes) => to.extend(bytes),
        }
    }
}

pub(in crate::session::sftp) const GUESS: u32 = FIRST_GUESS;

/// The next number of the relay's behind [`Talk::new`], where it has closed a file.
const NEXT: u32 = GUESS + 1;

#[test]
fn a_small_file_is_read_before_it_is_asked_for() {
    // Whatever comes first: the device's answers, or the client's questions.
    for device_is_quick in [true, false] {
        let mut talk = Talk::new();
        talk.ask(&open(10, 1));
        assert_eq!(talk.asked(), open(10, 1));
        talk.answer(&handle(10, b"h"));
        assert_eq!(talk.take_answers(), handle(10, b"h"));
        assert_eq!(talk.asked(), read(NEXT, b"h", 0, 1_000));
        if device_is_quick {
            talk.answer(&data(NEXT, b"content"));
            assert_eq!(talk.asked(), read(NEXT + 1, b"h", 7, 993));
            talk.answer(&status(NEXT + 1, 1));
            assert_eq!(talk.take_answers(), b"");
            talk.ask(&read(11, b"h", 0, 1_000));
            assert_eq!(talk.take_answers(), data(11, b"content"));
            talk.ask(&read(12, b"h", 7, 993));
        } else {
            talk.ask(&read(11, b"h", 0, 1_000));
            talk.answer(&data(NEXT, b"content"));
            assert_eq!(talk.take_answers(), data(11, b"content"));
            assert_eq!(talk.asked(), read(NEXT + 1, b"h", 7, 993));
            talk.ask(&read(12, b"h", 7, 993));
            talk.answer(&status(NEXT + 1, 1));
        }
        assert_eq!(talk.take_answers(), status(12, 1));
        assert_eq!(talk.asked(), b"");
        // It is closed at once, and the device's answer goes nowhere.
        talk.ask(&close(13, b"h"));
        assert_eq!(talk.take_answers(), well(13));
        assert_eq!(talk.asked(), close(NEXT + 2, b"h"));
        talk.answer(&status(NEXT + 2, 0));
        assert_eq!(talk.take_answers(), b"");
        assert!(talk.ahead.lock().guesses.is_empty());
    }
}

#[test]
fn what_was_guessed_wrong_changes_nothing() {
    let mut talk = Talk::new();
    talk.ask(&open(10, 1));
    talk.answer(&handle(10, b"h"));
    talk.asked();
    talk.take_answers();
    // Another part of it, and another length.
    for wrong in [read(11, b"h", 5, 1_000), read(12, b"h", 0, 999)] {
        talk.ask(&wrong);
        assert_eq!(talk.asked(), wrong);
    }
    talk.answer(&[data(11, b"1"), data(NEXT, &[7; 1_000]), data(12, b"2")].concat());
    assert_eq!(
        talk.take_answers(),
        [data(11, b"1"), data(12, b"2")].concat()
    );
    // Nothing more is guessed of a file that goes on; closed, it is forgotten.
    assert_eq!(talk.asked(), b"");
    talk.ask(&close(13, b"h"));
    talk.answer(&status(NEXT + 1, 0));
    assert_eq!(talk.take_answers(), well(13));
    assert!(talk.ahead.lock().guesses.is_empty());
    // An answer to a guess that comes behind the close goes nowhere.
    talk.asked();
    talk.ask(&open(20, 1));
    talk.answer(&handle(20, b"i"));
    talk.ask(&close(21, b"i"));
    talk.take_answers();
    talk.answer(&[data(NEXT + 2, b"late"), status(NEXT + 3, 0)].concat());
    assert_eq!(talk.take_answers(), b"");
    assert!(talk.ahead.lock().guesses.is_empty());
}

/// Reuses a number that is free for the client. On the way to the device no two requests share one, so that each answer
/// belongs to one of them.
#[test]
fn number_of_an_early_answer_may_be_used_again() {
    let mut talk = opened();
    let removal = packet(13, 11, &[&string(b"/file")]);
    talk.ask(&close(11, b"h"));
    assert_eq!(talk.take_answers(), well(11));
    talk.ask(&removal);
    assert_eq!(talk.asked(), [close(NEXT + 1, b"h"), removal].concat());
    talk.answer(&[status(NEXT + 1, 0), status(11, 4)].concat());
    assert_eq!(talk.take_answers(), status(11, 4));
}

#[test]
fn what_is_written_is_answered_by_the_device_alone() {
    let mut talk = Talk::new();
    // Reading and writing, and writing.
    for (id, flags) in [(10, 3), (20, 0x1a)] {
        talk.ask(&open(id, flags));
        talk.answer(&handle(id, b"h"));
        let write = packet(WRITE, id + 1, &[&string(b"h"), &[0; 8], &string(b"x")]);
        talk.ask(&[write.clone(), close(id + 2, b"h")].concat());
        let asked = [open(id, flags), write, close(id + 2, b"h")].concat();
        assert_eq!(talk.asked(), asked);
        assert_eq!(talk.take_answers(), handle(id, b"h"));
        let failed = [status(id + 1, 4), status(id + 2, 4)].concat();
        talk.answer(&failed);
        assert_eq!(talk.take_answers(), failed);
    }
    // Nor is an unknown handle closed.
    talk.ask(&close(30, b"other"));
    assert_eq!(talk.take_answers(), b"");
}

/// Returns a file that is open, and whose beginning has been asked for.
fn opened() -> Talk {
    let mut talk = Talk::new();
    talk.ask(&open(10, 1));
    talk.answer(&handle(10, b"h"));
    assert_eq!(
        talk.asked(),
        [open(10, 1), read(NEXT, b"h", 0, 1_000)].concat()
    );
    talk.take_answers();
    talk
}

#[tokio::test(start_paused = true)]
async fn what_is_old_is_asked_for_again() {
    for (age, is_old) in [(SFTP_GUESS_LIFE, false), (SFTP_GUESS_LIFE + TICK, true)] {
        let mut talk = opened();
        talk.answer(&data(NEXT, &[7; 1_000]));
        tokio::time::advance(age).await;
        talk.ask(&read(11, b"h", 0, 1_000));
        if is_old {
            assert_eq!(talk.asked(), read(11, b"h", 0, 1_000));
            talk.answer(&data(11, &[8; 1_000]));
        }
        let byte = if is_old { 8 } else { 7 };
        assert_eq!(talk.take_answers(), data(11, &[byte; 1_000]), "{age:?}");
    }
}

#[test]
fn a_client_reads_what_it_wrote() {
    let change = |kind| packet(kind, 20, &[&string(b"x"), &[0; 8], &string(b"new")]);
    let changes = (0..=u8::MAX).filter(|kind| !matches!(*kind, OPEN | READ | CLOSE));
    for kind in changes.filter(|kind| !LOOKS.contains(kind)) {
        // The answer to the guess comes before the change, or behind it.
        for is_here in [true, false] {
            let mut talk = opened();
            if is_here {
                talk.answer(&data(NEXT, &[7; 1_000]));
            }
            let asked = [change(kind), read(21, b"h", 0, 1_000)].concat();
            talk.ask(&asked);
            assert_eq!(talk.asked(), asked, "{kind}");
            if !is_here {
                talk.answer(&data(NEXT, &[7; 1_000]));
            }
            assert_eq!(talk.take_answers(), b"");
            talk.answer(&data(21, &[8; 1_000]));
            assert_eq!(talk.take_answers(), data(21, &[8; 1_000]));
        }
    }
    // Looking at something changes nothing.
    for kind in LOOKS {
        let mut talk = opened();
        talk.answer(&data(NEXT, &[7; 1_000]));
        talk.ask(&[change(kind), read(21, b"h", 0, 1_000)].concat());
        assert_eq!(talk.take_answers(), data(21, &[7; 1_000]));
    }
}

#[test]
fn a_file_that_is_cut_off_is_read_again() {
    let mut talk = opened();
    talk.answer(&data(NEXT, &[7; 1_000]));
    let asked = [open(20, 0x1a), read(21, b"h", 0, 1_000)].concat();
    talk.ask(&asked);
    assert_eq!(talk.asked(), asked);
    assert_eq!(talk.take_answers(), b"");
}

#[test]
fn answers_are_never_interleaved() {
    let mut talk = Talk::new();
    talk.ask(&open(10, 1));
    talk.answer(&handle(10, b"h"));
    talk.take_answers();
    let long = data(9, &[1; 100]);
    talk.answer(&long[..50]);
    talk.ask(&close(11, b"h"));
    assert_eq!(talk.take_answers(), long[..50]);
    talk.answer(&long[50..]);
    assert_eq!(talk.take_answers(), [&long[50..], &well(11)].concat());
}

#[test]
fn clashing_ids_and_other_versions_pass_through() {
    let mut talk = Talk::new();
    talk.ask(&read(NEXT + 5, b"x", 0, 1));
    talk.ask(&open(10, 1));
    talk.asked();
    talk.answer(&handle(10, b"h"));
    assert_eq!(talk.asked(), b"");
    let other = Ahead::default();
    let version = packet(VERSION, 6, &[]);
    assert_eq!(other.answers(&version), [ReadPart::Same(0..version.len())]);
    assert_eq!(
        other.requests(&open(1, 1)),
        [ReadPart::Same(0..open(1, 1).len())]
    );
    assert!(other.lock().opening.is_empty());
}

#[test]
fn guesses_are_few_and_none_comes_behind_the_end() {
    let mut talk = Talk::new();
    for id in 10..20 {
        talk.ask(&open(id, 1));
        talk.answer(&handle(id, &id.to_be_bytes()));
    }
    let guesses = talk.asked();
    let length = read(0, &[0; 4], 0, 0).len();
    let opens = 10 * open(0, 1).len();
    assert_eq!(guesses.len(), opens + MAX_SFTP_GUESSES * length);
    assert!(talk.ahead.end().is_empty());
    talk.answer(&data(NEXT, b"short"));
    assert_eq!(talk.asked(), b"");
}

#[test]
fn a_device_that_says_too_much_is_not_kept() {
    let mut talk = Talk::new();
    talk.ask(&open(10, 1));
    talk.answer(&handle(10, &[b'h'; MAX_HANDLE + 1]));
    assert_eq!(talk.asked(), open(10, 1));
    talk.ask(&open(20, 1));
    talk.answer(&handle(20, b"h"));
    talk.asked();
    talk.take_answers();
    talk.answer(&data(NEXT, &[7; 1_001]));
    assert!(talk.ahead.lock().guesses.is_empty());
    // What the client asks for now goes to the device.
    talk.ask(&read(21, b"h", 0, 1_000));
    assert_eq!(talk.asked(), read(21, b"h", 0, 1_000));
    assert_eq!(talk.take_answers(), b"");
}

#[test]
fn what_is_no_sftp_passes_whole() {
    for text in [&b"This account is not available.\n"[..], b"no\n"] {
        let ahead = Ahead::default();
        let mut passed = Vec::new();
        for byte in text.chunks(1) {
            join(&mut passed, ahead.answers(byte), byte);
        }
        passed.extend(ahead.rest());
        assert_eq!(passed, text);
    }
}

proptest! {
    /// Checks any data, cut in any way: with nothing to guess, what passes is what came.
    #[test]
    fn all_else_passes_as_it_came(
        packets in vec((any::<u8>(), any::<u32>(), vec(any::<u8>(), 0..40)), 0..20),
        garbage in vec(any::<u8>(), 0..30),
        cuts in vec(1..60_usize, 0..40),
    ) {
        let packets = packets.iter().map(|(kind, id, body)| packet(*kind, *id, &[body]));
        let bytes = [packets.collect::<Vec<_>>().concat(), garbage].concat();
        let ahead = Ahead::default();
        ahead.answers(&packet(VERSION, 3, &[]));
        let (mut rest, mut cuts) = (bytes.as_slice(), cuts.into_iter());
        let (mut there, mut back) = (Vec::new(), Vec::new());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cuts.next().unwrap_or(rest.len()).min(rest.len()));
            join(&mut back, ahead.answers(now), now);
            join(&mut there, ahead.requests(now), now);
            rest = later;
        }
        back.extend(ahead.rest());
        there.extend(ahead.end());
        prop_assert!(ahead.lock().for_client.is_empty());
        prop_assert_eq!(&back, &bytes);
        prop_assert_eq!(&there, &bytes);
    }
}
