use holdfast_protocol::recording::record::{FileKind, RecordedBytes};

use super::*;

/// SFTP's status code for an operation that was still under way when its session ended.
const CONNECTION_LOST: u32 = 7;

/// The result of an operation whose outcome is not known.
const NOT_FOLLOWED: u32 = u32::MAX;

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

/// Returns all records, as text.
fn all(files: &mut FollowedTransfer) -> Vec<String> {
    let mut records = vec![];
    while let Some(event) = files.front() {
        records.push(match event {
            Event::File(file) => line(&file),
            other => format!("{other:?}"),
        });
        files.pop();
    }
    records
}

fn line(file: &FileOperation<'_>) -> String {
    let text = |path: &RecordedBytes<'_>| String::from_utf8(path.0.to_vec()).unwrap();
    let other = file.other.as_ref().map(text).unwrap_or_default();
    let (kind, path) = (file.kind, text(&file.path));
    format!("{kind:?} {path} {other} {} {}", file.size, file.result)
}

fn done(kind: FileKind, path: &str, size: u64, result: u32) -> String {
    line(&FileOperation {
        kind,
        path: RecordedBytes(path.as_bytes()),
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
    let renamed = line(&FileOperation {
        kind: FileKind::Rename,
        path: RecordedBytes(b"/tmp/a"),
        other: Some(RecordedBytes(b"/tmp/b")),
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
            format!("{:?}", Event::FilesUnfollowed(why)),
        ]
    );
}
