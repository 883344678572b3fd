use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::limits::MAX_RECORD;

#[test]
fn what_a_newer_version_adds_is_skipped() {
    let mut bytes = vec![];
    let eof = Event::Eof(Stream::Stdin);
    let record = |event| Record { delta: 1, event };
    record(eof.clone()).encode(&mut bytes).unwrap();
    // A kind that is unknown here, and a known one with a field more.
    bytes.extend([5, 9, KNOWN_EVENTS, 1, 2, 3]);
    bytes.extend([4, 2, 5, 1, 99]);
    let mut input = bytes.as_slice();
    assert_eq!(decode(&mut input), Ok((1, Some(eof))));
    assert_eq!(decode(&mut input), Ok((9, None)), "its time counts");
    assert_eq!(
        decode(&mut input),
        Ok((2, Some(Event::Eof(Stream::Stdout))))
    );
    assert!(input.is_empty());
}

#[test]
fn a_record_over_the_bound_is_not_written() {
    let long = vec![b'x'; MAX_RECORD];
    let mut out = vec![1, 2, 3];
    let record = Record {
        delta: 0,
        event: Event::Data(Stream::Stdout, RecordedBytes(&long)),
    };
    assert_eq!(record.encode(&mut out), Err(RecordError::TooLong));
    assert_eq!(out, [1, 2, 3]);
}

proptest! {
    #[test]
    fn data_of_any_length_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..20_000), delta: u64) {
        let mut out = vec![];
        let event = Event::Data(Stream::Stderr, RecordedBytes(&bytes));
        let record = Record { delta, event };
        record.encode(&mut out).unwrap();
        let mut input = out.as_slice();
        prop_assert_eq!(decode(&mut input), Ok((delta, Some(record.event))));
        prop_assert!(input.is_empty());
    }

    #[test]
    fn no_bytes_panic_the_decoder(bytes: Vec<u8>) {
        let mut input = bytes.as_slice();
        while !input.is_empty() && decode(&mut input).is_ok() {}
    }
}
