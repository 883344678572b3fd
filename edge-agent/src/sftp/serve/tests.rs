use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use holdfast_protocol::sftp::{Attributes, Code};
use proptest::prelude::*;

use super::*;
use crate::sftp::limits::{MAX_SFTP_HANDLES, MAX_SFTP_TEMPORARY};

struct ServeFixture {
    folder: tempfile::TempDir,
    server: FileServer,
}

impl ServeFixture {
    fn new(read_only: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/b"), "text").unwrap();
        std::os::unix::fs::symlink("a/b", folder.path().join("l")).unwrap();
        // Whatever a test makes up stays in here.
        let tree = SftpTree::under(folder.path()).unwrap();
        let server = FileServer::new(tree, read_only);
        Self { folder, server }
    }

    /// Returns the one answer to a request: its kind and what follows its number.
    fn ask(&mut self, request: SftpRequest<'_>) -> (u8, Vec<u8>) {
        self.server.answers.clear();
        let request = Ok(request);
        self.server
            .answer(ClientPacket::Request { id: 77, request });
        let mut bytes = self.server.answers.bytes();
        let packet = next_packet(&mut bytes).unwrap().unwrap();
        assert!(bytes.is_empty());
        assert_eq!(packet[1..5], 77_u32.to_be_bytes());
        (packet[0], packet[5..].to_vec())
    }

    fn status(&mut self, request: SftpRequest<'_>) -> u32 {
        match self.ask(request) {
            (101, fields) => u32::from_be_bytes(fields[..4].try_into().unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn handle(&mut self, request: SftpRequest<'_>) -> Vec<u8> {
        match self.ask(request) {
            (102, fields) => fields[4..].to_vec(),
            other => panic!("{other:?}"),
        }
    }

    fn open(&mut self, path: &[u8], flags: u32) -> Vec<u8> {
        let attributes = Attributes::default();
        self.handle(SftpRequest::Open {
            path,
            flags,
            attributes,
        })
    }
}

const READ: u32 = 1;

fn write<'a>(handle: &'a [u8], offset: u64, data: &'a [u8]) -> SftpRequest<'a> {
    SftpRequest::Write {
        handle,
        offset,
        data,
    }
}

fn copy<'a>(from: (&'a [u8], u64), length: u64, to: (&'a [u8], u64)) -> SftpRequest<'a> {
    SftpRequest::CopyData {
        from: from.0,
        offset: from.1,
        length,
        to: to.0,
        to_offset: to.1,
    }
}

/// The flags that OpenSSH's `put` opens with: to write, made if it is not there, cut off if it is.
const PUT: u32 = 0x1a;

fn open_as<'a>(handle: &'a [u8], path: &'a [u8]) -> SftpRequest<'a> {
    SftpRequest::OpenAs {
        handle,
        path,
        flags: PUT,
        attributes: Attributes::default(),
    }
}

#[test]
fn a_file_is_opened_under_the_name_that_is_given() {
    let mut fixture = ServeFixture::new(false);
    let name = 7_u32.to_be_bytes();
    assert_eq!(fixture.handle(open_as(&name, b"new")), name);
    assert_eq!(fixture.status(write(&name, 0, b"text")), 0);
    // Neither a second one, nor one of the server's own, nor an older one; and none of them makes a file.
    for wrong in [&name[..], &[0; 8], &[0; 4], b""] {
        assert_eq!(fixture.status(open_as(wrong, b"other")), 4, "{wrong:?}");
    }
    assert!(!fixture.folder.path().join("other").exists());
    assert_eq!(fixture.status(write(&name, 4, b"!")), 0);
    assert_eq!(fixture.status(SftpRequest::Close(&name)), 0);
    assert_ne!(fixture.status(SftpRequest::Close(&name)), 0);
    let new = fixture.folder.path().join("new");
    assert_eq!(fs::read(new).unwrap(), b"text!");
}

#[test]
fn what_could_not_be_opened_is_refused_until_it_is_closed() {
    let mut fixture = ServeFixture::new(false);
    let mut held = ServeFixture::new(true);
    let (name, to) = (1_u32.to_be_bytes(), fixture.open(b"to", PUT));
    for (fixture, path, code) in [
        (&mut fixture, &b"missing/new"[..], Code::NoSuchFile),
        (&mut held, b"new", Code::PermissionDenied),
    ] {
        assert_eq!(fixture.status(open_as(&name, path)), code as u32);
        for request in [
            write(&name, 0, b"text"),
            SftpRequest::Fstat(&name),
            SftpRequest::Fsetstat(&name, Attributes::default()),
            SftpRequest::Fsync(&name),
            SftpRequest::Release(&name),
            copy((&to, 0), 0, (&name, 0)),
            copy((&name, 0), 0, (&to, 0)),
            SftpRequest::Close(&name),
        ] {
            assert_eq!(fixture.status(request.clone()), code as u32, "{request:?}");
        }
        // From then on it is an unknown handle.
        let closed = fixture.ask(SftpRequest::Close(&name)).1;
        assert!(closed.windows(3).any(|text| text == b"Bad"), "{closed:?}");
        assert!(!fixture.folder.path().join("new").exists());
    }
}

/// Returns whether some process has the file open for writing: then it can't be run.
fn is_written(path: &std::path::Path) -> bool {
    let run = std::process::Command::new(path).status();
    matches!(run, Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy)
}

#[test]
fn a_file_that_is_released_is_closed_and_its_handle_is_good() {
    let mut fixture = ServeFixture::new(false);
    let path = fixture.folder.path().join("tool");
    let name = 1_u32.to_be_bytes();
    let attributes = Attributes {
        permissions: Some(0o700),
        ..Attributes::default()
    };
    fixture.handle(SftpRequest::OpenAs {
        handle: &name,
        path: b"tool",
        flags: PUT,
        attributes,
    });
    assert_eq!(fixture.status(write(&name, 0, b"#!/bin/sh\nexit 0\n")), 0);
    assert!(is_written(&path));
    // Of a handle that is released already there is nothing to release.
    for code in [0, 4] {
        assert_eq!(fixture.status(SftpRequest::Release(&name)), code);
        assert!(!is_written(&path));
    }
    // Moving it away moves it with its handle: there may be another under its name.
    let moved = fixture.folder.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    fs::write(&path, "other").unwrap();
    assert_eq!(fixture.status(write(&name, 17, b"# more\n")), 0);
    assert!(is_written(&moved));
    assert_eq!(fs::read(&moved).unwrap(), b"#!/bin/sh\nexit 0\n# more\n");
    assert_eq!(fixture.status(SftpRequest::Release(&name)), 0);
    assert!(!is_written(&moved));
    assert_eq!(fixture.status(SftpRequest::Close(&name)), 0);
    assert_ne!(fixture.status(write(&name, 0, b"late")), 0);
    assert_eq!(fs::read(&path).unwrap(), b"other");
}

#[test]
fn what_could_not_be_opened_again_is_not_released() {
    let mut fixture = ServeFixture::new(false);
    let fifo = fixture.folder.path().join("fifo");
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let _reader = fs::File::options().read(true).write(true).open(&fifo);
    let pipe = fixture.open(b"fifo", 2);
    let (both, read) = (fixture.open(b"a/b", 3), fixture.open(b"a/b", READ));
    let folder = fixture.handle(SftpRequest::Opendir(b"a"));
    for handle in [&pipe, &both, &read, &folder, &vec![9; 4]] {
        assert_ne!(
            fixture.status(SftpRequest::Release(handle)),
            0,
            "{handle:?}"
        );
    }
    assert_eq!(fixture.status(write(&pipe, 0, b"")), 0);
    assert_eq!(fixture.status(write(&both, 4, b"!")), 0);
    assert_eq!(fixture.status(SftpRequest::Close(&pipe)), 0);
}

#[test]
fn one_handle_too_many_is_refused_and_makes_no_file() {
    let mut fixture = ServeFixture::new(false);
    allow_descriptors_for_the_test();
    let first = fixture.open(b"a/b", READ);
    for _ in 1..MAX_SFTP_HANDLES {
        fixture.open(b"a/b", READ);
    }
    let attributes = Attributes::default();
    let create = SftpRequest::Open {
        path: b"new",
        flags: 0x0a,
        attributes,
    };
    assert_eq!(fixture.status(create.clone()), Code::Failure as u32);
    assert_eq!(
        fixture.status(SftpRequest::Opendir(b"a")),
        Code::Failure as u32
    );
    assert!(!fixture.folder.path().join("new").exists());
    assert_eq!(fixture.status(SftpRequest::Close(&first)), 0);
    fixture.handle(create);
    assert!(fixture.folder.path().join("new").exists());
}

fn allow_descriptors_for_the_test() {
    crate::sftp::allow_descriptors();
}

#[test]
fn a_session_that_may_only_read_changes_nothing() {
    let mut fixture = ServeFixture::new(true);
    let attributes = Attributes {
        size: Some(0),
        permissions: Some(0),
        times: Some((1, 1)),
        ..Attributes::default()
    };
    let handle = fixture.open(b"a/b", READ);
    let (path, from, to) = (&b"a/b"[..], &b"a/b"[..], &b"c"[..]);
    let mut changes = vec![
        write(&handle, 0, b"x"),
        SftpRequest::Setstat(path, attributes),
        SftpRequest::Fsetstat(&handle, attributes),
        SftpRequest::Lsetstat(path, attributes),
        SftpRequest::Remove(path),
        SftpRequest::Mkdir(to, attributes),
        SftpRequest::Rmdir(b"a"),
        SftpRequest::Rename { from, to },
        SftpRequest::PosixRename { from, to },
        SftpRequest::Hardlink { from, to },
        SftpRequest::Symlink {
            target: from,
            link: to,
        },
        SftpRequest::Fsync(&handle),
        copy((&handle, 0), 0, (&handle, 9)),
    ];
    for flags in [2, 3, 4, 8, 0x10, 0x11, 0x1a, 0x3b] {
        changes.push(SftpRequest::Open {
            path: to,
            flags,
            attributes,
        });
    }
    for change in changes {
        let status = fixture.status(change.clone());
        assert_eq!(status, Code::PermissionDenied as u32, "{change:?}");
    }
    let names: Vec<_> = fs::read_dir(fixture.folder.path()).unwrap().collect();
    assert_eq!(names.len(), 2);
    assert_eq!(
        fs::read(fixture.folder.path().join("a/b")).unwrap(),
        b"text"
    );
    let read = SftpRequest::Read {
        handle: &handle,
        offset: 1,
        length: 2,
    };
    assert_eq!(fixture.ask(read), (103, b"\0\0\0\x02ex".to_vec()));
}

#[test]
fn data_is_copied_within_the_device() {
    let mut fixture = ServeFixture::new(false);
    let (from, to) = (fixture.open(b"a/b", READ), fixture.open(b"to", 0x1b));
    assert_eq!(fixture.status(copy((&from, 1), 2, (&to, 3))), 0);
    let copied = || fs::read(fixture.folder.path().join("to")).unwrap();
    assert_eq!(copied(), b"\0\0\0ex");
    assert_eq!(fixture.status(copy((&from, 0), 0, (&to, 0))), 0);
    let copied = || fs::read(fixture.folder.path().join("to")).unwrap();
    assert_eq!(copied(), b"textx");
    // More than there is; onto itself; into a folder.
    assert_eq!(fixture.status(copy((&from, 0), 9, (&to, 0))), 1);
    for (length, offset) in [(0, 4), (4, 3), (5, 0)] {
        let status = fixture.status(copy((&to, 0), length, (&to, offset)));
        assert_eq!(status, Code::Failure as u32, "{length} {offset}");
    }
    assert_eq!(fixture.status(copy((&to, 0), 2, (&to, 3))), 0);
    let folder = fixture.handle(SftpRequest::Opendir(b"a"));
    assert_eq!(fixture.status(copy((&from, 0), 0, (&folder, 0))), 4);
}

#[test]
fn a_rename_of_version_3_replaces_nothing() {
    let mut fixture = ServeFixture::new(false);
    let (from, to) = (&b"a/b"[..], &b"l"[..]);
    assert_eq!(fixture.status(SftpRequest::Rename { from, to }), 4);
    assert!(fixture.folder.path().join("l").is_symlink());
    let new = SftpRequest::Rename { from, to: b"new" };
    assert_eq!(fixture.status(new), 0);
    let replace = SftpRequest::PosixRename { from: b"new", to };
    assert_eq!(fixture.status(replace), 0);
    assert_eq!(fs::read(fixture.folder.path().join("l")).unwrap(), b"text");
}

#[test]
fn a_fifo_blocks_no_request() {
    let mut fixture = ServeFixture::new(false);
    let path = fixture.folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    fixture.open(b"fifo", READ);
}

/// `SSH_FXF_WRITE`, `_CREAT` and `_EXCL`.
const NEW: u32 = 0x2a;

fn open_temporary(path: &[u8], flags: u32) -> SftpRequest<'_> {
    let attributes = Attributes {
        temporary: true,
        ..Attributes::default()
    };
    SftpRequest::Open {
        path,
        flags,
        attributes,
    }
}

#[test]
fn what_was_not_to_outlive_the_session_is_gone_behind_it() {
    let mut fixture = ServeFixture::new(false);
    for path in [&b"gone"[..], b"a/gone", b"renamed", b"replaced", b"removed"] {
        fixture.handle(open_temporary(path, NEW));
    }
    // What was there is not the session's to remove.
    fixture.handle(open_temporary(b"a/b", 0x0a));
    fixture.open(b"plain", NEW);
    let rename = SftpRequest::PosixRename {
        from: b"renamed",
        to: b"kept",
    };
    assert_eq!(fixture.status(rename), 0);
    assert_eq!(fixture.status(SftpRequest::Remove(b"removed")), 0);
    let path = fixture.folder.path().join("replaced");
    // Its number must not come again: the handle holds it.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "another's").unwrap();
    let names = |folder: &std::path::Path| {
        let names = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = names.map(|name| name.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert!(fixture.folder.path().join("gone").exists());
    let (client, theirs) = UnixStream::pair().unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    fixture.server.serve(&theirs, &theirs).unwrap();
    let left = names(fixture.folder.path());
    assert_eq!(left, ["a", "kept", "l", "plain", "replaced"]);
    assert_eq!(names(&fixture.folder.path().join("a")), ["b"]);
}

#[test]
fn one_temporary_file_too_many_is_refused_and_not_made() {
    let mut fixture = ServeFixture::new(false);
    for number in 0..MAX_SFTP_TEMPORARY {
        fixture.handle(open_temporary(format!("t{number}").as_bytes(), NEW));
    }
    let status = fixture.status(open_temporary(b"more", NEW));
    assert_eq!(status, Code::Failure as u32);
    assert!(!fixture.folder.path().join("more").exists());
}

#[test]
fn requests_that_came_together_are_answered_together() {
    let fixture = ServeFixture::new(false);
    let mut server = fixture.server;
    let (mut client, theirs) = UnixStream::pair().unwrap();
    let mut bytes = b"\0\0\0\x05\x01\0\0\0\x03".to_vec();
    for id in 1..=200_u32 {
        // Malformed, unknown, and a good one.
        let body = match id % 3 {
            0 => b"\x10\0\0\0\0\0\0\0\x01.".to_vec(),
            1 => b"\x10\0\0\0\0\0\0\0\x09.".to_vec(),
            _ => b"\x63\0\0\0\0".to_vec(),
        };
        let mut body = body;
        body[1..5].copy_from_slice(&id.to_be_bytes());
        bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
    }
    client.write_all(&bytes).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let reader = std::thread::spawn(move || {
        let mut answers = Vec::new();
        client.read_to_end(&mut answers).unwrap();
        answers
    });
    server.serve(&theirs, &theirs).unwrap();
    drop(theirs);
    let answers = reader.join().unwrap();
    let mut rest = answers.as_slice();
    let version = next_packet(&mut rest).unwrap().unwrap();
    assert_eq!(version[..5], [2, 0, 0, 0, 3]);
    for id in 1..=200_u32 {
        let answer = next_packet(&mut rest).unwrap().unwrap();
        assert_eq!(answer[1..5], id.to_be_bytes());
        let (kind, code) = (answer[0], answer.get(8).copied());
        match id % 3 {
            0 => assert_eq!(kind, 104),
            1 => assert_eq!((kind, code), (101, Some(5))),
            _ => assert_eq!((kind, code), (101, Some(8))),
        }
    }
    assert!(rest.is_empty());
}

#[test]
fn what_is_no_sftp_ends_the_server() {
    for (bytes, expected) in [
        (
            &b"SSH-2.0-x\r\n"[..],
            "the client does not speak SFTP: a packet has",
        ),
        (b"\0\0\0\x05\x04\0\0\0\x03", "began without a version"),
        (b"\0\0\0\0", "a packet of 0 bytes is too short"),
    ] {
        let (mut client, theirs) = UnixStream::pair().unwrap();
        client.write_all(bytes).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let error = ServeFixture::new(false).server.serve(&theirs, &theirs);
        let text = error.unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
}

/// Returns bytes that mean something in the fixture, more often than not. No path among them leads up or begins at the
/// top: if the root did not hold, this test would wreck the machine that shows it.
fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    let names = prop::sample::select(vec![
        "", ".", "a", "a/b", "l", "c", "a/c", "~", "~/a", "a/./c", "a/b/c",
    ]);
    let odd = prop::collection::vec(any::<u8>(), 0..20).prop_map(|mut bytes| {
        bytes.retain(|byte| !b"/.".contains(byte));
        bytes
    });
    prop_oneof![
        6 => names.prop_map(|name| name.as_bytes().to_vec()),
        3 => (0..8_u64).prop_map(|handle| handle.to_be_bytes().to_vec()),
        3 => (0..8_u32).prop_map(|handle| handle.to_be_bytes().to_vec()),
        1 => odd,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Checks that each request gets one answer with its number, whatever the order.
    #[test]
    fn every_request_has_one_answer(
        requests in prop::collection::vec(
            (0..34_u8, some_bytes(), some_bytes(), 0..70_000_u64, any::<u32>(), any::<u8>()),
            1..40,
        ),
        read_only: bool,
    ) {
        let mut fixture = ServeFixture::new(read_only);
        for (which, a, b, x, n, bits) in requests {
            let has = |bit| bits & bit != 0;
            let attributes = Attributes {
                size: has(1).then_some(x),
                owner: has(2).then_some((u32::MAX, u32::MAX)),
                permissions: has(4).then_some(n | 0o700),
                times: has(8).then_some((n, n)),
                temporary: has(16),
            };
            let (path, handle) = (a.as_slice(), a.as_slice());
            let (from, to) = (a.as_slice(), b.as_slice());
            let request = match which {
                0..=3 => SftpRequest::Open { path, flags: n & 0x3f, attributes },
                4 => SftpRequest::Close(handle),
                5 => SftpRequest::Read { handle, offset: x, length: n % 100_000 },
                6 => write(handle, x, &b),
                7 => SftpRequest::Lstat(path),
                8 => SftpRequest::Fstat(handle),
                9 => SftpRequest::Setstat(path, attributes),
                10 => SftpRequest::Fsetstat(handle, attributes),
                11 | 12 => SftpRequest::Opendir(path),
                13 => SftpRequest::Readdir(handle),
                14 => SftpRequest::Remove(path),
                15 => SftpRequest::Mkdir(path, attributes),
                16 => SftpRequest::Rmdir(path),
                17 => SftpRequest::Realpath(path),
                18 => SftpRequest::Stat(path),
                19 => SftpRequest::Rename { from, to },
                20 => SftpRequest::Readlink(path),
                21 => SftpRequest::Symlink { target: from, link: to },
                22 => SftpRequest::Limits,
                23 => SftpRequest::PosixRename { from, to },
                24 => SftpRequest::Hardlink { from, to },
                25 => SftpRequest::Fstatvfs(handle),
                26 => SftpRequest::Statvfs(path),
                27 => SftpRequest::Lsetstat(path, attributes),
                28 => SftpRequest::ExpandPath(path),
                29 => SftpRequest::Release(handle),
                30 | 31 => SftpRequest::OpenAs { handle, path: to, flags: n & 0x3f, attributes },
                32 => copy((from, x), u64::from(n % 1000), (to, x)),
                _ => SftpRequest::UsersGroupsById { users: &a, groups: &b },
            };
            fixture.ask(request);
        }
    }
}
