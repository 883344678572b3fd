use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};

use super::super::tests::{begin, secret, spool, terms, work};
use super::*;
use crate::recording::reader::{ReadVerdict, RecordingReader};
use crate::recording::record::{EndReason, FileKind, FileOperation, RecordedBytes};
use crate::wire::{ProcessRequest, RecordingMode, SessionRequest, StdinMode};

const SESSION: SessionId = SessionId([0x5a; 16]);
const T: Duration = Duration::from_secs(50);

/// Offers operations of a transfer, of which the medium writes none unless it `works`, until they are not accepted.
fn transfer(spool: &mut Spool, files: &mut BTreeMap<u32, Vec<u8>>, works: bool) -> (u64, Accept) {
    let request = SessionRequest::from(ProcessRequest::Subsystem("sftp".into()));
    let terms = terms(RecordingMode::Strict, StdinMode::Full);
    begin(spool, &terms, &request, false).unwrap();
    let mut count = 0;
    loop {
        match spool.accept(T, SESSION, operation(count)) {
            Accept::Accepted => count += 1,
            Accept::Wait if works => work(spool, T, files),
            other => return (count, other),
        }
    }
}

/// Returns an operation on a path that does not compress, of which that is the size.
fn operation(number: u64) -> Event<'static> {
    let mut noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let path: Vec<u8> = core::iter::repeat_with(|| {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise.to_be_bytes()[0]
    })
    .take(1_000)
    .collect();
    Event::File(FileOperation {
        kind: FileKind::Remove,
        path: RecordedBytes(path.leak()),
        other: None,
        size: number,
        result: 0,
    })
}

/// Returns the operations of a recording that is complete, and why there may be more.
fn listed(files: &BTreeMap<u32, Vec<u8>>) -> (u64, Option<String>) {
    let secrets = [secret()];
    let mut reader = RecordingReader::new(SESSION, &secrets);
    let (mut count, mut unfollowed) = (0, None);
    for file in files.values() {
        let read = reader.read_segment(file, &mut |_, record| match &record.event {
            Event::File(file) => {
                assert_eq!(file.size, count);
                count += 1;
            }
            Event::FilesUnfollowed(why) => unfollowed = Some((*why).to_string()),
            _ => {}
        });
        assert_eq!(read, Ok(()));
    }
    assert!(matches!(reader.verdict(), ReadVerdict::Complete { .. }));
    (count, unfollowed)
}

#[test]
fn last_operations_do_not_wait_for_a_slow_medium() {
    let (mut spool, mut files) = (spool(64 << 20), BTreeMap::new());
    let (count, stopped) = transfer(&mut spool, &mut files, false);
    assert_eq!(stopped, Accept::Wait);
    for more in 0..3 {
        let accept = spool.accept_last(T, SESSION, operation(count + more));
        assert_eq!(accept, Accept::Accepted);
    }
    spool.end(T, SESSION, None, EndReason::ClientGone);
    work(&mut spool, T, &mut files);
    assert_eq!(listed(&files), (count + 3, None));
}

#[test]
fn operations_that_find_no_room_are_said_to_be_missing() {
    let (mut spool, mut files) = (spool(2 << 20), BTreeMap::new());
    let (count, stopped) = transfer(&mut spool, &mut files, true);
    assert!(matches!(stopped, Accept::Refused(_)));
    let last = spool.accept_last(T, SESSION, operation(count));
    let Accept::Refused(why) = last else {
        panic!("{last:?}")
    };
    spool.unfollowed(T, SESSION, &why.to_string());
    spool.end(T, SESSION, None, EndReason::SpoolFull);
    work(&mut spool, T, &mut files);
    assert!(spool.used() <= spool.config().max_bytes);
    assert_eq!(listed(&files), (count, Some(why.to_string())));
}
