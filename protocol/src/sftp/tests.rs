use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::attributes::{HAS_EXTENDED, HAS_PERMISSIONS};
use super::packet::PacketWriter;
use super::*;

/// One field of a request.
#[derive(Clone, Debug)]
enum Field {
    String(Vec<u8>),
    Number(u32),
    Long(u64),
    Attributes(Attributes),
}

impl Field {
    fn push(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::String(string) => {
                bytes.extend(u32::try_from(string.len()).unwrap().to_be_bytes());
                bytes.extend(string);
            }
            Self::Number(number) => bytes.extend(number.to_be_bytes()),
            Self::Long(number) => bytes.extend(number.to_be_bytes()),
            Self::Attributes(attributes) => {
                let mut writer = PacketWriter::default();
                writer.attributes(attributes);
                bytes.extend(writer.bytes);
            }
        }
    }
}

fn packet(kind: u8, id: u32, fields: &[Field]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(id.to_be_bytes());
    for field in fields {
        field.push(&mut bytes);
    }
    bytes
}

/// Returns the fields of a request as it was understood, and its kind: the decoder's reverse.
fn fields(request: &SftpRequest<'_>) -> (u8, Vec<Field>) {
    let string = |bytes: &[u8]| Field::String(bytes.to_vec());
    let attrs = |attributes: &Attributes| Field::Attributes(*attributes);
    let extended = |name: &str, fields: Vec<Field>| {
        let name = Field::String(name.into());
        (200, [vec![name], fields].concat())
    };
    match request {
        SftpRequest::Open {
            path,
            flags,
            attributes,
        } => (
            3,
            vec![string(path), Field::Number(*flags), attrs(attributes)],
        ),
        SftpRequest::OpenAs {
            handle,
            path,
            flags,
            attributes,
        } => extended(
            "open-as@holdfast",
            vec![
                string(handle),
                string(path),
                Field::Number(*flags),
                attrs(attributes),
            ],
        ),
        SftpRequest::Close(handle) => (4, vec![string(handle)]),
        SftpRequest::Read {
            handle,
            offset,
            length,
        } => (
            5,
            vec![string(handle), Field::Long(*offset), Field::Number(*length)],
        ),
        SftpRequest::Write {
            handle,
            offset,
            data,
        } => (6, vec![string(handle), Field::Long(*offset), string(data)]),
        SftpRequest::Lstat(path) => (7, vec![string(path)]),
        SftpRequest::Fstat(handle) => (8, vec![string(handle)]),
        SftpRequest::Setstat(path, attributes) => (9, vec![string(path), attrs(attributes)]),
        SftpRequest::Fsetstat(handle, attributes) => (10, vec![string(handle), attrs(attributes)]),
        SftpRequest::Opendir(path) => (11, vec![string(path)]),
        SftpRequest::Readdir(handle) => (12, vec![string(handle)]),
        SftpRequest::Remove(path) => (13, vec![string(path)]),
        SftpRequest::Mkdir(path, attributes) => (14, vec![string(path), attrs(attributes)]),
        SftpRequest::Rmdir(path) => (15, vec![string(path)]),
        SftpRequest::Realpath(path) => (16, vec![string(path)]),
        SftpRequest::Stat(path) => (17, vec![string(path)]),
        SftpRequest::Rename { from, to } => (18, vec![string(from), string(to)]),
        SftpRequest::Readlink(path) => (19, vec![string(path)]),
        SftpRequest::Symlink { target, link } => (20, vec![string(target), string(link)]),
        SftpRequest::Limits => extended("limits@openssh.com", vec![]),
        SftpRequest::PosixRename { from, to } => {
            extended("posix-rename@openssh.com", vec![string(from), string(to)])
        }
        SftpRequest::Hardlink { from, to } => {
            extended("hardlink@openssh.com", vec![string(from), string(to)])
        }
        SftpRequest::Fsync(handle) => extended("fsync@openssh.com", vec![string(handle)]),
        SftpRequest::Release(handle) => extended("release@holdfast", vec![string(handle)]),
        SftpRequest::Statvfs(path) => extended("statvfs@openssh.com", vec![string(path)]),
        SftpRequest::Fstatvfs(handle) => extended("fstatvfs@openssh.com", vec![string(handle)]),
        SftpRequest::Lsetstat(path, attributes) => extended(
            "lsetstat@openssh.com",
            vec![string(path), attrs(attributes)],
        ),
        SftpRequest::ExpandPath(path) => extended("expand-path@openssh.com", vec![string(path)]),
        SftpRequest::HomeDirectory(user) => extended("home-directory", vec![string(user)]),
        SftpRequest::CopyData {
            from,
            offset,
            length,
            to,
            to_offset,
        } => extended(
            "copy-data",
            vec![
                string(from),
                Field::Long(*offset),
                Field::Long(*length),
                string(to),
                Field::Long(*to_offset),
            ],
        ),
        SftpRequest::UsersGroupsById { users, groups } => extended(
            "users-groups-by-id@openssh.com",
            vec![string(users), string(groups)],
        ),
    }
}

fn some_string() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

fn some_attributes() -> impl Strategy<Value = Attributes> {
    let parts = (
        any::<Option<u64>>(),
        any::<Option<(u32, u32)>>(),
        any::<Option<u32>>(),
        any::<Option<(u32, u32)>>(),
        any::<bool>(),
    );
    parts.prop_map(|(size, owner, permissions, times, temporary)| Attributes {
        size,
        owner,
        permissions,
        times,
        temporary,
    })
}

/// Returns any request, as the kind of its packet and its fields.
fn some_request() -> impl Strategy<Value = (u8, Vec<Field>)> {
    let strings = (some_string(), some_string());
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>());
    (0..33_usize, strings, numbers, some_attributes()).prop_map(
        |(which, (a, b), (x, y, z, n), attributes)| {
            let every = [
                SftpRequest::Open {
                    path: &a,
                    flags: n,
                    attributes,
                },
                SftpRequest::OpenAs {
                    handle: &b,
                    path: &a,
                    flags: n,
                    attributes,
                },
                SftpRequest::Release(&a),
                SftpRequest::Close(&a),
                SftpRequest::Read {
                    handle: &a,
                    offset: x,
                    length: n,
                },
                SftpRequest::Write {
                    handle: &a,
                    offset: x,
                    data: &b,
                },
                SftpRequest::Lstat(&a),
                SftpRequest::Fstat(&a),
                SftpRequest::Setstat(&a, attributes),
                SftpRequest::Fsetstat(&a, attributes),
                SftpRequest::Opendir(&a),
                SftpRequest::Readdir(&a),
                SftpRequest::Remove(&a),
                SftpRequest::Mkdir(&a, attributes),
                SftpRequest::Rmdir(&a),
                SftpRequest::Realpath(&a),
                SftpRequest::Stat(&a),
                SftpRequest::Rename { from: &a, to: &b },
                SftpRequest::Readlink(&a),
                SftpRequest::Symlink {
                    target: &a,
                    link: &b,
                },
                SftpRequest::Limits,
                SftpRequest::PosixRename { from: &a, to: &b },
                SftpRequest::Hardlink { from: &a, to: &b },
                SftpRequest::Fsync(&a),
                SftpRequest::Statvfs(&a),
                SftpRequest::Fstatvfs(&a),
                SftpRequest::Lsetstat(&a, attributes),
                SftpRequest::ExpandPath(&a),
                SftpRequest::HomeDirectory(&a),
                SftpRequest::CopyData {
                    from: &a,
                    offset: x,
                    length: y,
                    to: &b,
                    to_offset: z,
                },
                SftpRequest::UsersGroupsById {
                    users: &a,
                    groups: &b,
                },
            ];
            fields(&every[which % every.len()])
        },
    )
}

proptest! {
    #[test]
    fn every_request_is_understood_as_it_was_meant((kind, sent) in some_request(), id: u32) {
        let bytes = packet(kind, id, &sent);
        let Ok(ClientPacket::Request { id: read, request: Ok(request) }) = decode(&bytes) else {
            panic!("{:?}", decode(&bytes));
        };
        prop_assert_eq!(read, id);
        let (kind, fields) = fields(&request);
        prop_assert_eq!(packet(kind, id, &fields), &*bytes);
        // What is written of it is what came.
        let written = request.packet(id);
        let mut input = &*written;
        prop_assert_eq!(next_packet(&mut input), Ok(Some(&*bytes)));
        prop_assert!(input.is_empty());
    }

    #[test]
    fn a_request_that_is_cut_is_malformed((kind, sent) in some_request(), cut: prop::sample::Index) {
        let bytes = packet(kind, 7, &sent);
        let cut = cut.index(bytes.len());
        match decode(&bytes[..cut]) {
            Err(Broken::TooShort(length)) => prop_assert!(length == cut && cut < 5),
            Ok(ClientPacket::Request { id: 7, request }) => {
                // A cut name of an extension is another extension's.
                prop_assert!(matches!(request, Err(Unclear::Malformed | Unclear::Unknown)));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_bytes_are_too_odd_for_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut input = bytes.as_slice();
        while let Ok(Some(packet)) = next_packet(&mut input) {
            prop_assert!(packet.len() <= MAX_PACKET);
            let _ = decode(packet);
        }
        let _ = decode(&bytes);
    }

    #[test]
    fn packets_are_found_however_they_come(
        packets in prop::collection::vec(some_string(), 0..10),
        cut: prop::sample::Index,
    ) {
        let mut bytes = Vec::new();
        for packet in &packets {
            Field::String(packet.clone()).push(&mut bytes);
        }
        let (first, _) = bytes.split_at(cut.index(bytes.len() + 1));
        let mut found = Vec::new();
        let mut input = first;
        while let Some(packet) = next_packet(&mut input).unwrap() {
            found.push(packet.to_vec());
        }
        let taken = first.len() - input.len();
        let mut input = &bytes[taken..];
        while let Some(packet) = next_packet(&mut input).unwrap() {
            found.push(packet.to_vec());
        }
        prop_assert_eq!(found, packets);
        prop_assert!(input.is_empty());
    }
}

#[test]
fn a_length_over_the_bound_is_refused_before_its_packet_comes() {
    let longest = u32::try_from(MAX_PACKET).unwrap();
    assert_eq!(next_packet(&mut &longest.to_be_bytes()[..]), Ok(None));
    let mut input = &(longest + 1).to_be_bytes()[..];
    assert_eq!(next_packet(&mut input), Err(Broken::TooLong(longest + 1)));
    let mut input = &[255; 8][..];
    assert_eq!(next_packet(&mut input), Err(Broken::TooLong(u32::MAX)));
}

#[test]
fn extended_attributes_are_passed_over() {
    let one = [Field::String(b"acl@x".to_vec()), Field::String(vec![1; 9])];
    let head = [
        Field::String(b"/a".to_vec()),
        Field::Number(HAS_EXTENDED | HAS_PERMISSIONS),
        Field::Number(0o644),
        Field::Number(2),
    ];
    let bytes = packet(9, 1, &[&head[..], &one, &one].concat());
    let attributes = Attributes {
        permissions: Some(0o644),
        ..Attributes::default()
    };
    let request = Ok(SftpRequest::Setstat(b"/a", attributes));
    assert_eq!(decode(&bytes), Ok(ClientPacket::Request { id: 1, request }));
    let lying = packet(9, 1, &[&head[..], &one].concat());
    let request = Err(Unclear::Malformed);
    assert_eq!(decode(&lying), Ok(ClientPacket::Request { id: 1, request }));
}

#[test]
fn temporary_files_are_reported_among_them() {
    for (name, temporary) in [(&b"temporary@holdfast"[..], true), (b"temporary@", false)] {
        let fields = [
            Field::String(b"/a".to_vec()),
            Field::Number(0x2a),
            Field::Number(HAS_EXTENDED),
            Field::Number(1),
            Field::String(name.to_vec()),
            Field::String(vec![]),
        ];
        let attributes = Attributes {
            temporary,
            ..Attributes::default()
        };
        let request = Ok(SftpRequest::Open {
            path: b"/a",
            flags: 0x2a,
            attributes,
        });
        let bytes = packet(3, 1, &fields);
        assert_eq!(decode(&bytes), Ok(ClientPacket::Request { id: 1, request }));
    }
}

#[test]
fn answers_are_these_bytes() {
    let mut answers = SftpAnswers::default();
    answers.status(7, Code::NoSuchFile, "No");
    answers.handle(8, b"h");
    let read: Result<usize, ()> = answers.data(9, |bytes| {
        bytes.extend(b"abc");
        Ok(3)
    });
    assert_eq!(read, Ok(3));
    assert_eq!(answers.data(10, |_| Err(())), Err(()));
    let none: Result<u32, ()> = answers.names(11, |_| Ok(()));
    assert_eq!(none, Ok(0));
    let one: Result<u32, ()> = answers.names(12, |names| {
        names.push(b"n", b"line", &Attributes::default());
        Ok(())
    });
    assert_eq!(one, Ok(1));
    let full = Attributes {
        size: Some(1),
        owner: Some((2, 3)),
        permissions: Some(4),
        times: Some((5, 6)),
        // It is asked for, and never reported.
        temporary: true,
    };
    answers.attributes(13, &full);
    answers.numbers(14, &[1]);
    answers.lists(15, [&["r".to_owned(), String::new()], &[]]);
    let expected: [&[u8]; 8] = [
        b"\0\0\0\x15\x65\0\0\0\x07\0\0\0\x02\0\0\0\x02No\0\0\0\x02en",
        b"\0\0\0\x0a\x66\0\0\0\x08\0\0\0\x01h",
        b"\0\0\0\x0c\x67\0\0\0\x09\0\0\0\x03abc",
        b"\0\0\0\x1a\x68\0\0\0\x0c\0\0\0\x01\0\0\0\x01n\0\0\0\x04line\0\0\0\0",
        b"\0\0\0\x25\x69\0\0\0\x0d\0\0\0\x0f\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04",
        b"\0\0\0\x05\0\0\0\x06",
        b"\0\0\0\x0d\xc9\0\0\0\x0e\0\0\0\0\0\0\0\x01",
        b"\0\0\0\x16\xc9\0\0\0\x0f\0\0\0\x09\0\0\0\x01r\0\0\0\0\0\0\0\0",
    ];
    assert_eq!(answers.bytes(), expected.concat());
}
