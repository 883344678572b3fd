//! Both directions of a session of file transfer, as anybody may send them: it is followed within bounds, however its
//! bytes are cut, and what cannot be followed ends it once and for good.
#![no_main]

use holdfast_protocol::sftp::{FileOutcome, Followed, Follower};
use libfuzzer_sys::{arbitrary, fuzz_target};

#[derive(Debug, arbitrary::Arbitrary)]
enum Step {
    Request {
        kind: u8,
        id: u8,
        fields: Vec<Field>,
    },
    Answer {
        kind: u8,
        id: u8,
        fields: Vec<Field>,
    },
    Sent(Vec<u8>),
    Answered(Vec<u8>),
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Field {
    /// One of few, so that handles and paths meet.
    Name(u8),
    Extension(u8),
    Number(u32),
    Bytes(Vec<u8>),
}

const EXTENSIONS: [&[u8]; 6] = [
    b"open-as@holdfast",
    b"release@holdfast",
    b"posix-rename@openssh.com",
    b"hardlink@openssh.com",
    b"copy-data",
    b"limits@openssh.com",
];

fuzz_target!(|steps: Vec<Step>| {
    let mut whole = Follower::default();
    let mut cut = Follower::default();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for step in &steps {
        let (is_request, bytes) = match step {
            Step::Request { kind, id, fields } => (true, packet(*kind, *id, fields)),
            Step::Answer { kind, id, fields } => (false, packet(*kind, *id, fields)),
            Step::Sent(bytes) => (true, bytes.clone()),
            Step::Answered(bytes) => (false, bytes.clone()),
        };
        if is_request {
            whole.handle_requests(&bytes);
            bytes.chunks(3).for_each(|bytes| cut.handle_requests(bytes));
        } else {
            whole.handle_answers(&bytes);
            bytes.chunks(3).for_each(|bytes| cut.handle_answers(bytes));
        }
        first.extend(std::iter::from_fn(|| whole.poll()));
        second.extend(std::iter::from_fn(|| cut.poll()));
        assert_eq!(first, second);
    }
    let lost_at = first
        .iter()
        .position(|seen| matches!(seen, Followed::Lost(_)));
    assert_eq!(lost_at.is_some(), whole.lost().is_some());
    if let Some(at) = lost_at {
        assert_eq!(at + 1, first.len(), "nothing is booked behind it");
    }
    whole.finish();
    while let Some(seen) = whole.poll() {
        // What is left has no success.
        assert!(
            matches!(seen, Followed::Operation(operation) if operation.outcome != FileOutcome::OK)
        );
    }
});

fn packet(kind: u8, id: u8, fields: &[Field]) -> Vec<u8> {
    let mut body = vec![kind, 0, 0, 0, id];
    for field in fields {
        match field {
            Field::Name(name) => string(&mut body, &[*name]),
            Field::Extension(which) => {
                string(
                    &mut body,
                    EXTENSIONS[usize::from(*which) % EXTENSIONS.len()],
                );
            }
            Field::Number(number) => body.extend(number.to_be_bytes()),
            Field::Bytes(bytes) => string(&mut body, bytes),
        }
    }
    let mut packet = Vec::new();
    string(&mut packet, &body);
    packet
}

fn string(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend(bytes);
}
