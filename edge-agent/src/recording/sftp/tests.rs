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

fn status(id: u32, code: u32) -> Vec<u8> {
    packet(101, id, &[&code.to_be_bytes()])
}

fn all(files: &mut FollowedTransfer) -> Vec<SftpStream> {
    std::mem::take(&mut files.seen).into()
}

fn done(kind: FileKind, path: &str, size: u64, result: u32) -> SftpStream {
    SftpStream::Done(EndedOperation {
        kind,
        path: path.into(),
        other: None,
        size,
        result,
    })
}

#[test]
fn file_that_is_written_and_read_is_recorded_as_both() {
    let mut files = FollowedTransfer::default();
    let requests = [
        packet(3, 1, &[&string(b"/tmp/a"), &3_u32.to_be_bytes(), &[0; 4]]),
        packet(6, 2, &[&string(b"h"), &[0; 8], &string(&[7; 30_000])]),
        packet(5, 3, &[&string(b"h"), &[0; 12]]),
        packet(4, 4, &[&string(b"h")]),
        packet(18, 5, &[&string(b"/tmp/a"), &string(b"/tmp/b")]),
        packet(13, 6, &[&string(b"/no")]),
    ];
    files.handle_requests(&requests.concat());
    let answers = [
        packet(102, 1, &[&string(b"h")]),
        status(2, 0),
        packet(103, 3, &[&string(b"123")]),
        status(4, 0),
        status(5, 0),
        status(6, 2),
    ];
    files.handle_answers(&answers.concat());
    let renamed = SftpStream::Done(EndedOperation {
        kind: FileKind::Rename,
        path: b"/tmp/a".to_vec(),
        other: Some(b"/tmp/b".to_vec()),
        size: 0,
        result: 0,
    });
    let expected = [
        done(FileKind::Read, "/tmp/a", 3, 0),
        done(FileKind::Write, "/tmp/a", 30_000, 0),
        renamed,
        done(FileKind::Remove, "/no", 0, 2),
    ];
    assert_eq!(all(&mut files), expected);
}

#[test]
fn what_is_unfinished_at_the_end_is_recorded_too() {
    let mut files = FollowedTransfer::default();
    let open = packet(3, 1, &[&string(b"f"), &1_u32.to_be_bytes(), &[0; 4]]);
    files.handle_requests(&open);
    files.handle_answers(&packet(102, 1, &[&string(b"h")]));
    files.handle_requests(&packet(5, 2, &[&string(b"h"), &[0; 12]]));
    files.handle_answers(&packet(103, 2, &[&string(&[1; 500])]));
    files.handle_requests(&packet(13, 3, &[&string(b"/gone")]));
    files.finish();
    assert_eq!(
        all(&mut files),
        [
            done(FileKind::Remove, "/gone", 0, CONNECTION_LOST),
            done(FileKind::Read, "f", 500, CONNECTION_LOST)
        ]
    );
}

/// Covers an operation that is booked on one path and done on another.
#[test]
fn reused_request_number_is_recorded_as_the_end_of_following() {
    let mut files = FollowedTransfer::default();
    let removal = packet(13, 7, &[&string(b"/evidence")]);
    files.handle_requests(&[packet(17, 7, &[&string(b"/harmless")]), removal].concat());
    files.handle_answers(&[packet(105, 7, &[&[0; 4]]), status(7, 0)].concat());
    files.finish();
    let why = "the client used request number 7 again before it was answered";
    assert_eq!(
        all(&mut files),
        [
            done(FileKind::Remove, "/evidence", 0, NOT_FOLLOWED),
            done(FileKind::Stat, "/harmless", 0, NOT_FOLLOWED),
            SftpStream::Unfollowed(why.into()),
        ]
    );
}
