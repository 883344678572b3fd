use std::collections::{HashMap, VecDeque};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::session::sftp::ahead::tests as ahead;
use crate::session::sftp::ahead::tests::{GUESS, Talk, close, handle, packet, status, string};
use holdfast_protocol::sftp::kind::VERSION;

/// The flags with which `sftp` opens a file that it puts, and `scp`.
const SFTP: u32 = 0x1a;
const SCP: u32 = 0x0a;

/// Returns the attributes of a file that is put.
fn mode() -> Attributes {
    Attributes {
        permissions: Some(0o644),
        ..Attributes::default()
    }
}

fn open(id: u32, path: &[u8], flags: u32) -> Vec<u8> {
    let open = SftpRequest::Open {
        path,
        flags,
        attributes: mode(),
    };
    open.packet(id)
}

fn open_as(number: u32, name: u32, path: &[u8], flags: u32) -> Vec<u8> {
    let open = SftpRequest::OpenAs {
        handle: &name.to_be_bytes(),
        path,
        flags,
        attributes: mode(),
    };
    open.packet(number)
}

fn write(id: u32, handle: &[u8]) -> Vec<u8> {
    let write = SftpRequest::Write {
        handle,
        offset: 0,
        data: b"data",
    };
    write.packet(id)
}

fn attributes(id: u32, handle: &[u8]) -> Vec<u8> {
    SftpRequest::Fsetstat(handle, mode()).packet(id)
}

fn release(number: u32, handle: &[u8]) -> Vec<u8> {
    SftpRequest::Release(handle).packet(number)
}

fn limits(id: u32) -> Vec<u8> {
    SftpRequest::Limits.packet(id)
}

fn version(extensions: &[&[u8]]) -> Vec<u8> {
    let named = |name: &&[u8]| [string(name), string(b"1")].concat();
    let extensions: Vec<_> = extensions.iter().map(named).collect();
    packet(VERSION, 3, &[&extensions.concat()])
}

/// Returns the server's and the client's first words.
fn begun(extensions: &[&[u8]], asks_limits: bool) -> Talk {
    let mut talk = Talk::fresh();
    let version = version(extensions);
    talk.answer(&version);
    assert_eq!(talk.take_answers(), version);
    if asks_limits {
        talk.ask(&limits(1));
        talk.answer(&packet(201, 1, &[&[0; 32]]));
    }
    talk.asked();
    talk.take_answers();
    talk
}

/// Puts the first file of a folder, with everything answered by the device.
fn put_first(talk: &mut Talk) {
    talk.ask(&open(2, b"/d/0", SFTP));
    assert_eq!(talk.asked(), open(2, b"/d/0", SFTP));
    talk.answer(&handle(2, b"own"));
    assert_eq!(talk.take_answers(), handle(2, b"own"));
    for asked in [write(3, b"own"), close(4, b"own")] {
        talk.ask(&asked);
        assert_eq!(talk.asked(), asked);
    }
    let answers = [status(3, 0), status(4, 0)].concat();
    talk.answer(&answers);
    assert_eq!(talk.take_answers(), answers);
}

const BOTH: [&[u8]; 2] = [OPEN_AS, RELEASE];

/// Returns a client that has put two files in this way: the second was opened ahead, and all further ones are closed so
/// as well.
fn going(before_close: &[u8]) -> Talk {
    let mut talk = begun(&BOTH, true);
    put_first(&mut talk);
    talk.ask(&open(10, b"/d/1", SFTP));
    assert_eq!(talk.take_answers(), handle(10, &[0; 4]));
    assert_eq!(talk.asked(), open_as(GUESS, 0, b"/d/1", SFTP));
    for (id, kind) in (11..).zip(before_close) {
        let asked = match *kind {
            WRITE => write(id, &[0; 4]),
            _ => attributes(id, &[0; 4]),
        };
        talk.ask(&asked);
        assert_eq!(talk.asked(), asked);
        talk.answer(&status(id, 0));
        assert_eq!(talk.take_answers(), status(id, 0));
    }
    talk.ask(&close(19, &[0; 4]));
    assert_eq!(talk.asked(), close(19, &[0; 4]));
    assert_eq!(talk.take_answers(), b"");
    talk.answer(&[handle(GUESS, &[0; 4]), status(19, 0)].concat());
    assert_eq!(talk.take_answers(), status(19, 0));
    talk
}

#[test]
fn second_put_in_a_folder_opens_and_closes_ahead() {
    for device_is_quick in [true, false] {
        let mut talk = going(&[WRITE]);
        let name = 1_u32.to_be_bytes();
        talk.ask(&open(20, b"/d/2", SFTP));
        assert_eq!(talk.take_answers(), handle(20, &name));
        assert_eq!(talk.asked(), open_as(GUESS + 1, 1, b"/d/2", SFTP));
        talk.ask(&write(21, &name));
        assert_eq!(
            talk.asked(),
            [write(21, &name), release(GUESS + 2, &name)].concat()
        );
        talk.answer(&handle(GUESS + 1, &name));
        assert_eq!(talk.take_answers(), b"");
        // Of a write and of a close the client hears when the device has answered.
        talk.answer(&status(21, 0));
        assert_eq!(talk.take_answers(), status(21, 0));
        if device_is_quick {
            talk.answer(&status(GUESS + 2, 0));
            assert_eq!(talk.take_answers(), b"");
            talk.ask(&close(22, &name));
        } else {
            talk.ask(&close(22, &name));
            assert_eq!(talk.take_answers(), b"");
            talk.answer(&status(GUESS + 2, 0));
        }
        assert_eq!(talk.take_answers(), status(22, 0));
        // It has a number of the relay's: the client may use its own again at once.
        assert_eq!(talk.asked(), close(GUESS + 3, &name));
        talk.answer(&status(GUESS + 3, 0));
        assert_eq!(talk.take_answers(), b"");
        // Every number may be used again.
        talk.answer(&status(22, 4));
        assert_eq!(talk.take_answers(), status(22, 4));
    }
}

#[test]
fn failed_open_is_answered_by_the_device() {
    let mut talk = going(&[WRITE]);
    let name = 1_u32.to_be_bytes();
    talk.ask(&open(20, b"/d/2", SFTP));
    talk.ask(&write(21, &name));
    talk.asked();
    assert_eq!(talk.take_answers(), handle(20, &name));
    let failed = [GUESS + 1, 21, GUESS + 2].map(|id| status(id, 3));
    talk.answer(&failed.concat());
    assert_eq!(talk.take_answers(), status(21, 3));
    talk.ask(&close(22, &name));
    assert_eq!(talk.take_answers(), b"");
    talk.answer(&status(22, 3));
    assert_eq!(talk.take_answers(), status(22, 3));
    // The next one is opened by the device, whose word on it comes first.
    talk.asked();
    talk.ask(&open(30, b"/d/3", SFTP));
    assert_eq!(talk.asked(), open(30, b"/d/3", SFTP));
    talk.answer(&status(30, 3));
    assert_eq!(talk.take_answers(), status(30, 3));
    talk.ask(&open(40, b"/d/4", SFTP));
    assert_eq!(talk.asked(), open(40, b"/d/4", SFTP));
}

#[test]
fn significant_opens_are_answered_by_the_device() {
    let stays = |talk: &mut Talk, path: &[u8], flags| {
        talk.ask(&open(30, path, flags));
        assert_eq!(talk.asked(), open(30, path, flags), "{path:?} {flags:#x}");
        assert_eq!(talk.take_answers(), b"");
    };
    // A server that is not ours, one that only closes so, and a client of another kind.
    for (extensions, asks_limits) in [(&[][..], true), (&[RELEASE], true), (&BOTH, false)] {
        let mut talk = begun(extensions, asks_limits);
        put_first(&mut talk);
        stays(&mut talk, b"/d/1", SFTP);
    }
    // To read, to append, only a new one, none that is made; another folder, and what is in it.
    for flags in [1, 0x02, 0x1b, 0x0e, 0x1e, 0x2a, 0x3a, 0x18] {
        stays(&mut going(&[WRITE]), b"/d/1", flags);
    }
    for path in [&b"1"[..], b"/1", b"/dd/1", b"/d/d/1", b"d/1", b""] {
        stays(&mut going(&[WRITE]), path, SFTP);
    }
    // sshfs looks at the file while it opens it.
    let mut talk = begun(&BOTH, true);
    talk.ask(&[open(2, b"/d/0", SFTP), packet(7, 3, &[&string(b"/d/0")])].concat());
    talk.answer(&[handle(2, b"own"), status(3, 0)].concat());
    talk.asked();
    talk.take_answers();
    stays(&mut talk, b"/d/1", SFTP);
    // Nothing was opened there.
    let mut talk = begun(&BOTH, true);
    talk.ask(&open(2, b"/d/0", SFTP));
    talk.answer(&status(2, 3));
    talk.asked();
    talk.take_answers();
    stays(&mut talk, b"/d/1", SFTP);
    // A client that names handles itself, and one that counts like us.
    let mut talk = going(&[WRITE]);
    talk.ask(&open_as(20, 7, b"/d/7", SFTP));
    talk.asked();
    stays(&mut talk, b"/d/1", SFTP);
    let mut talk = going(&[WRITE]);
    talk.ask(&packet(7, GUESS + 9, &[&string(b"/d/0")]));
    talk.asked();
    stays(&mut talk, b"/d/1", SFTP);
}

#[test]
fn write_ahead_follows_each_clients_habits() {
    // `scp` sets the length behind the last write; with `-p` the times as well.
    for habit in [&[WRITE, FSETSTAT][..], &[WRITE, FSETSTAT, FSETSTAT]] {
        let mut talk = going(habit);
        let name = 1_u32.to_be_bytes();
        talk.ask(&open(20, b"/d/2", SCP));
        assert_eq!(talk.asked(), open_as(GUESS + 1, 1, b"/d/2", SCP));
        let (last, first) = habit.split_last().unwrap();
        assert_eq!(*last, FSETSTAT);
        for (id, kind) in (21..).zip(first) {
            let asked = match *kind {
                WRITE => write(id, &name),
                _ => attributes(id, &name),
            };
            talk.ask(&asked);
            assert_eq!(talk.asked(), asked);
        }
        talk.ask(&attributes(25, &name));
        let asked = [attributes(25, &name), release(GUESS + 2, &name)].concat();
        assert_eq!(talk.asked(), asked);
    }
    let long = packet(
        WRITE,
        21,
        &[&string(&[0, 0, 0, 1]), &[0; 8], &string(&[7; 40_000])],
    );
    let sync = packet(
        EXTENDED,
        21,
        &[&string(b"fsync@openssh.com"), &string(&[0, 0, 0, 1])],
    );
    let look = packet(8, 21, &[&string(&[0, 0, 0, 1])]);
    for other in [long, sync, look] {
        let mut talk = going(&[WRITE]);
        let name = 1_u32.to_be_bytes();
        talk.ask(&open(20, b"/d/2", SFTP));
        talk.asked();
        // Neither is this file closed, nor is anything guessed of the next.
        let asked = [other, write(22, &name), close(23, &name)].concat();
        talk.ask(&asked);
        assert_eq!(talk.asked(), asked);
        let name = 2_u32.to_be_bytes();
        talk.ask(&open(30, b"/d/3", SFTP));
        talk.ask(&write(31, &name));
        let asked = [open_as(GUESS + 2, 2, b"/d/3", SFTP), write(31, &name)].concat();
        assert_eq!(talk.asked(), asked);
    }
}

#[test]
fn a_close_that_was_guessed_wrong_changes_nothing() {
    // The device has closed the file, or not yet, or will not.
    for (code, is_here) in [(0, true), (0, false), (8, true), (8, false)] {
        for other in [
            write(22, &[0, 0, 0, 1]),
            attributes(22, &[0, 0, 0, 1]),
            close(22, b"other"),
        ] {
            let mut talk = going(&[WRITE]);
            let name = 1_u32.to_be_bytes();
            talk.ask(&[open(20, b"/d/2", SFTP), write(21, &name)].concat());
            talk.answer(&[handle(GUESS + 1, &name), status(21, 0)].concat());
            if is_here {
                talk.answer(&status(GUESS + 2, code));
            }
            talk.asked();
            talk.take_answers();
            talk.ask(&[other.clone(), close(23, &name)].concat());
            assert_eq!(talk.asked(), [other, close(23, &name)].concat());
            if !is_here {
                talk.answer(&status(GUESS + 2, code));
            }
            assert_eq!(talk.take_answers(), b"");
            let answers = [status(22, 4), status(23, 4)].concat();
            talk.answer(&answers);
            assert_eq!(talk.take_answers(), answers);
        }
    }
    // The device will not close it, and the client asks: its answer is that to the close itself.
    for is_here in [true, false] {
        let mut talk = going(&[WRITE]);
        let name = 1_u32.to_be_bytes();
        talk.ask(&[open(20, b"/d/2", SFTP), write(21, &name)].concat());
        let answers = [
            handle(GUESS + 1, &name),
            status(21, 0),
            status(GUESS + 2, 8),
        ];
        let (now, later) = answers.split_at(if is_here { 3 } else { 2 });
        talk.answer(&now.concat());
        talk.take_answers();
        talk.ask(&close(22, &name));
        talk.answer(&later.concat());
        assert_eq!(talk.take_answers(), b"");
        let asked = if is_here { 22 } else { GUESS + 3 };
        assert!(talk.asked().ends_with(&close(asked, &name)));
        talk.answer(&status(asked, 4));
        assert_eq!(talk.take_answers(), status(22, 4));
    }
}

#[test]
fn unclosed_files_and_unanswered_opens_are_bounded() {
    for answers in [true, false] {
        let mut talk = going(&[WRITE]);
        let opens = u32::try_from(MAX_SFTP_NAMED).unwrap() + 10;
        for (number, id) in (1..).zip(100..100 + opens) {
            talk.ask(&open(id, b"/d/f", SFTP));
            if answers {
                talk.answer(&handle(GUESS + number, &number.to_be_bytes()));
            } else {
                talk.ask(&close(1_000 + id, &number.to_be_bytes()));
            }
        }
        let asked = talk.asked();
        let ahead = asked.windows(OPEN_AS.len()).filter(|part| *part == OPEN_AS);
        assert_eq!(ahead.count(), MAX_SFTP_NAMED, "{answers}");
    }
}

/// The file of a handle: a path, and whether the file is closed but for its name; or why it could not be opened.
type Opened = Result<(Vec<u8>, bool), u32>;

/// A device with a server of ours, and what is true of it.
#[derive(Default)]
struct Device {
    input: Vec<u8>,
    handles: HashMap<Vec<u8>, Opened>,
    count: u32,
    /// Bytes that each path has had.
    stored: HashMap<Vec<u8>, usize>,
    releases: VecDeque<bool>,
}

impl Device {
    /// Answers all that has come.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.input.extend(bytes);
        let mut answers = vec![];
        while let Some((length, rest)) = self.input.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            if rest.len() < length {
                break;
            }
            let packet = rest[..length].to_vec();
            self.input.drain(..4 + length);
            answers.extend(self.answer(&packet));
        }
        answers
    }

    fn answer(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut fields = SftpFields::of(&packet[1..]);
        let id = fields.number().unwrap();
        let first = fields.string().unwrap().to_vec();
        let (given, path) = match (packet[0], &first[..]) {
            (OPEN, _) => (None, first.clone()),
            (EXTENDED, OPEN_AS) => {
                let name = fields.string().unwrap().to_vec();
                (Some(name), fields.string().unwrap().to_vec())
            }
            (EXTENDED, RELEASE) => {
                let open = self.handles.get_mut(fields.string().unwrap());
                let may = self.releases.pop_front().unwrap_or(true);
                return match open {
                    Some(Ok((_, is_closed))) if may && !*is_closed => {
                        *is_closed = true;
                        status(id, 0)
                    }
                    _ => status(id, 4),
                };
            }
            (EXTENDED, _) => return ahead::packet(201, id, &[&[0; 32]]),
            _ => return status(id, self.on_handle(packet[0], &first, fields)),
        };
        let is_bad = path.ends_with(b"!");
        let own = [b"own".as_slice(), &self.count.to_be_bytes()].concat();
        let name = given.clone().unwrap_or(own);
        self.count += 1;
        let open = if is_bad { Err(3) } else { Ok((path, false)) };
        if open.is_ok() || given.is_some() {
            assert!(self.handles.insert(name.clone(), open).is_none());
        }
        if is_bad {
            status(id, 3)
        } else {
            handle(id, &name)
        }
    }

    fn on_handle(&mut self, kind: u8, handle: &[u8], mut fields: SftpFields<'_>) -> u32 {
        let open = self.handles.get_mut(handle);
        let code = match open {
            None => 4,
            Some(Err(code)) => *code,
            Some(Ok((path, is_closed))) => {
                *is_closed = kind == CLOSE;
                if kind == WRITE {
                    fields.skip(8).unwrap();
                    *self.stored.entry(path.clone()).or_default() += fields.string().unwrap().len();
                }
                0
            }
        };
        if kind == CLOSE {
            self.handles.remove(handle);
        }
        code
    }

    fn is_closed(&self, handle: &[u8]) -> bool {
        !matches!(self.handles.get(handle), Some(Ok((_, false))))
    }
}

/// The requests of a client for one file: its name, its writes, how often it sets attributes, and whether it is in a
/// hurry and asks for several things at once.
type Put = (u8, u8, u8, bool);

/// A client that puts these files, one after the other, as a relay and a device answer.
struct Client {
    talk: Talk,
    device: Device,
    /// The bytes on their way, in both directions.
    there: Vec<u8>,
    back: Vec<u8>,
    heard: Vec<u8>,
    cuts: VecDeque<usize>,
    id: u32,
}

impl Client {
    /// Moves some bytes on: how many, chance says.
    fn turn(&mut self) {
        let cut = |cuts: &mut VecDeque<usize>, bytes: &mut Vec<u8>| {
            let count = cuts.pop_front().unwrap_or(usize::MAX);
            bytes.drain(..count.min(bytes.len())).collect::<Vec<u8>>()
        };
        let there = cut(&mut self.cuts, &mut self.there);
        self.talk.ask(&there);
        let asked = self.talk.asked();
        let answers = self.device.take(&asked);
        self.back.extend(answers);
        let back = cut(&mut self.cuts, &mut self.back);
        self.talk.answer(&back);
        self.heard.extend(self.talk.take_answers());
    }

    /// Asks for all of these, and waits for their answers: by number, a kind and what is behind the number.
    fn ask(&mut self, requests: &[Vec<u8>]) -> HashMap<u32, (u8, Vec<u8>)> {
        self.there.extend(requests.concat());
        let mut answers = HashMap::new();
        for _ in 0..10_000 {
            self.turn();
            while let Some((length, rest)) = self.heard.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if rest.len() < length {
                    break;
                }
                let packet = rest[..length].to_vec();
                self.heard.drain(..4 + length);
                let id = u32::from_be_bytes(packet[1..5].try_into().unwrap());
                let twice = answers.insert(id, (packet[0], packet[5..].to_vec()));
                assert!(twice.is_none(), "{id} is answered twice");
            }
            if answers.len() >= requests.len() {
                return answers;
            }
        }
        panic!("{requests:?} have these answers only: {answers:?}");
    }

    fn next(&mut self) -> u32 {
        self.id += 1;
        self.id
    }

    fn put(&mut self, (number, writes, sets, hurries): Put) {
        let bad = if number % 5 == 0 { "!" } else { "" };
        let path = format!("/{}/{number}{bad}", number % 3).into_bytes();
        let before = self.device.stored.get(&path).copied().unwrap_or(0);
        let id = self.next();
        let answers = self.ask(&[open(id, &path, if sets > 0 { SCP } else { SFTP })]);
        let (kind, fields) = &answers[&id];
        if *kind == STATUS {
            assert_eq!(bad, "!");
            return;
        }
        let handle = fields[4..].to_vec();
        let mut asked = vec![];
        for _ in 0..writes {
            asked.push((WRITE, write(self.next(), &handle)));
        }
        for _ in 0..sets {
            asked.push((FSETSTAT, attributes(self.next(), &handle)));
        }
        asked.push((CLOSE, close(self.next(), &handle)));
        let first = self.id + 1 - u32::try_from(asked.len()).unwrap();
        let step = if hurries { asked.len() } else { 1 };
        let (mut done, mut written) = (0, before);
        for batch in asked.chunks(step) {
            let packets: Vec<_> = batch.iter().map(|(_, packet)| packet.clone()).collect();
            let answers = self.ask(&packets);
            for (kind, _) in batch {
                let (answer, fields) = &answers[&(first + done)];
                done += 1;
                assert_eq!(*answer, STATUS);
                let is_well = fields[..4] == [0; 4];
                // Who could not open it hears of that each time.
                assert_eq!(is_well, bad.is_empty(), "{kind} of {path:?}");
                written += if is_well && *kind == WRITE { 4 } else { 0 };
            }
            // What was said to be stored is, and what was said to be closed.
            assert!(self.device.stored.get(&path).copied().unwrap_or(0) >= written);
        }
        assert_eq!(self.device.stored.get(&path).copied().unwrap_or(0), written);
        assert!(self.device.is_closed(&handle), "{path:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Checks any cuts of packets and any order: each request has one answer, and each answer is true.
    #[test]
    fn answers_match_the_device(
        puts in vec((0..12_u8, 0..3_u8, 0..3_u8, prop::bool::weighted(0.2)), 1..30),
        cuts in vec(0..90_usize, 0..400),
        releases in vec(prop::bool::weighted(0.8), 0..30),
    ) {
        let mut client = Client {
            talk: begun(&BOTH, true),
            device: Device { releases: releases.into(), ..Device::default() },
            there: vec![],
            back: vec![],
            heard: vec![],
            cuts: cuts.into(),
            id: 100,
        };
        for put in puts {
            client.put(put);
        }
    }
}
