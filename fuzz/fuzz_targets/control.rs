//! The control stream: any bytes, cut anywhere. What was read must not depend on the cuts, and what
//! decodes must encode and decode to itself.
#![no_main]

use holdfast_protocol::codec::CodecError;
use holdfast_protocol::codec::control::{ControlMessage, ControlReader, encode};
use holdfast_protocol::wire::peer::PeerMessage;
use holdfast_protocol::wire::{AgentMessage, RelayMessage, UploadAnswer, UploadMessage};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    check::<AgentMessage>(usize::from(cut) + 1, bytes);
    check::<RelayMessage>(usize::from(cut) + 1, bytes);
    check::<UploadMessage>(usize::from(cut) + 1, bytes);
    check::<UploadAnswer>(usize::from(cut) + 1, bytes);
    check::<PeerMessage>(usize::from(cut) + 1, bytes);
});

fn check<T: ControlMessage + PartialEq + std::fmt::Debug>(cut: usize, bytes: &[u8]) {
    let (whole, ended) = read(std::iter::once(bytes));
    let (pieces, ended_in_pieces) = read(bytes.chunks(cut));
    assert_eq!((&whole, &ended), (&pieces, &ended_in_pieces));
    for message in whole {
        // A message may be longer encoded than it came only if it was not canonical.
        let Ok(again) = encode::<T>(&message) else {
            continue;
        };
        assert_eq!(
            read(std::iter::once(again.as_slice())),
            (vec![message], Ok(()))
        );
    }
}

fn read<'a, T: ControlMessage>(
    parts: impl Iterator<Item = &'a [u8]>,
) -> (Vec<T>, Result<(), CodecError>) {
    let mut reader = ControlReader::<T>::default();
    let mut messages = Vec::new();
    for mut part in parts {
        loop {
            match reader.read(&mut part) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
        }
        assert!(part.is_empty(), "the reader left bytes behind");
    }
    (messages, Ok(()))
}
