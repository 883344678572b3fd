use super::*;

fn packet(kind: u8, id: u32, fields: &[&[u8]]) -> Vec<u8> {
    let body = [&[kind][..], &id.to_be_bytes(), &fields.concat()].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&length[..], &body].concat()
}

fn string(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&length[..], text].concat()
}

fn all(files: &mut Files) -> Vec<Done> {
    std::mem::take(&mut files.done).into()
}

fn done(kind: FileKind, path: &str, size: u64, result: u32) -> Done {
    Done {
        size,
        result,
        ..Done::new(kind, path.into())
    }
}

#[test]
fn a_written_file_is_told_of_when_it_is_closed_however_the_bytes_are_cut() {
    let data = vec![7; 30_000];
    let requests = [
        // The version has no number, and is no operation.
        vec![0, 0, 0, 5, 1, 0, 0, 0, 3],
        packet(3, 1, &[&string(b"/tmp/a"), &2_u32.to_be_bytes(), &[0; 4]]),
        packet(6, 2, &[&string(b"h"), &[0; 8], &string(&data)]),
        packet(4, 3, &[&string(b"h")]),
        packet(18, 4, &[&string(b"/tmp/a"), &string(b"/tmp/b")]),
        packet(13, 5, &[&string(b"/no")]),
    ]
    .concat();
    let answers = [
        vec![0, 0, 0, 5, 2, 0, 0, 0, 3],
        packet(102, 1, &[&string(b"h")]),
        packet(101, 2, &[&[0; 4]]),
        packet(101, 3, &[&[0; 4]]),
        packet(101, 4, &[&[0; 4]]),
        packet(101, 5, &[&2_u32.to_be_bytes()]),
    ]
    .concat();
    for cut in [1, 3, 100, 100_000] {
        let mut files = Files::default();
        // The open has to be answered before its handle can be used.
        for part in requests.chunks(cut) {
            files.handle_requests(part);
        }
        for part in answers.chunks(cut) {
            files.handle_answers(part);
        }
        let renamed = Done {
            other: Some(b"/tmp/b".to_vec()),
            ..done(FileKind::Rename, "/tmp/a", 0, 0)
        };
        let expected = [
            done(FileKind::Write, "/tmp/a", 30_000, 0),
            renamed,
            done(FileKind::Remove, "/no", 0, 2),
        ];
        assert_eq!(all(&mut files), expected, "in parts of {cut}");
    }
}

#[test]
fn a_file_that_is_opened_under_a_given_name_is_told_of_as_any_other() {
    let open_as = |id, handle: &[u8], path: &[u8]| {
        let name = string(b"open-as@holdfast");
        let flags = 0x1a_u32.to_be_bytes();
        let (handle, path) = (string(handle), string(path));
        packet(200, id, &[&name, &handle, &path, &flags, &[0; 4]])
    };
    let mut files = Files::default();
    // All of it before any answer.
    let release = packet(200, 4, &[&string(b"release@holdfast"), &string(b"1")]);
    let requests = [
        open_as(1, b"1", b"/good"),
        packet(6, 2, &[&string(b"1"), &[0; 8], &string(b"12345")]),
        packet(10, 3, &[&string(b"1"), &[0; 4]]),
        release,
        packet(4, 5, &[&string(b"1")]),
        open_as(6, b"2", b"/bad"),
        packet(6, 7, &[&string(b"2"), &[0; 8], &string(b"12345")]),
        open_as(9, b"3", b"/late"),
        // A name that is taken is refused, and the file that has it is none the worse.
        open_as(10, b"3", b"/twice"),
    ];
    files.handle_requests(&requests.concat());
    let status = |id, code: u32| packet(101, id, &[&code.to_be_bytes()]);
    files.handle_answers(&packet(102, 1, &[&string(b"1")]));
    for id in 2..=5 {
        files.handle_answers(&status(id, 0));
    }
    for id in 6..=7 {
        files.handle_answers(&status(id, 3));
    }
    files.handle_answers(&status(10, 4));
    files.finish();
    let expected = [
        done(FileKind::SetAttributes, "/good", 0, 0),
        done(FileKind::Write, "/good", 5, 0),
        done(FileKind::Write, "/bad", 0, 3),
        done(FileKind::Write, "/twice", 0, 4),
        done(FileKind::Write, "/late", 0, CONNECTION_LOST),
    ];
    assert_eq!(all(&mut files), expected);
}

#[test]
fn what_is_still_open_at_the_end_is_told_of_too() {
    let mut files = Files::default();
    files.handle_requests(&packet(
        3,
        1,
        &[&string(b"f"), &1_u32.to_be_bytes(), &[0; 4]],
    ));
    files.handle_answers(&packet(102, 1, &[&string(b"h")]));
    files.handle_requests(&packet(5, 2, &[&string(b"h"), &[0; 12]]));
    files.handle_answers(&packet(103, 2, &[&string(&[1; 500])]));
    files.finish();
    assert_eq!(
        all(&mut files),
        [done(FileKind::Read, "f", 500, CONNECTION_LOST)]
    );
}

#[test]
fn a_client_that_floods_is_followed_within_bounds() {
    let mut files = Files::default();
    for id in 0..100_000 {
        files.handle_requests(&packet(17, id, &[&string(&[b'x'; 64])]));
    }
    files.handle_requests(&[0xff; 1_000_000]);
    assert_eq!(files.pending.len(), MAX_FILE_REQUESTS);
    let told = all(&mut files);
    assert_eq!(told.len(), 100_000 - MAX_FILE_REQUESTS, "none is left out");
    assert!(told.iter().all(|done| done.result == NOT_FOLLOWED));
    assert!(files.requests.head.capacity() <= 2 * HEAD);
}
