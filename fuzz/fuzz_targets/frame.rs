//! A session stream: any bytes, cut anywhere. Messages and data must not depend on the cuts, and what
//! decodes must encode and decode to itself.
#![no_main]

use holdfast_protocol::codec::CodecError;
use holdfast_protocol::codec::frame::{DataStream, FramePiece, FrameReader, SessionMessage};
use libfuzzer_sys::fuzz_target;

/// Pieces in their order; neighbouring data of one stream as one piece.
#[derive(Debug, PartialEq)]
enum Seen {
    Data(DataStream, Vec<u8>),
    Message(Box<SessionMessage>),
}

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let whole = read(std::iter::once(bytes));
    let pieces = read(bytes.chunks(usize::from(cut) + 1));
    assert_eq!(whole, pieces);
    for seen in whole.0 {
        let Seen::Message(message) = seen else {
            continue;
        };
        let Ok(again) = message.encode() else {
            continue;
        };
        assert_eq!(
            read(std::iter::once(again.as_slice())),
            (vec![Seen::Message(message)], Ok(true))
        );
    }
});

/// Returns what was seen, and whether the bytes ended between two frames.
fn read<'a>(parts: impl Iterator<Item = &'a [u8]>) -> (Vec<Seen>, Result<bool, CodecError>) {
    let mut reader = FrameReader::default();
    let mut seen = Vec::new();
    for mut part in parts {
        loop {
            match reader.read(&mut part) {
                Ok(Some(FramePiece::Message(message))) => {
                    seen.push(Seen::Message(Box::new(message)))
                }
                Ok(Some(FramePiece::Data(stream, bytes))) => match seen.last_mut() {
                    Some(Seen::Data(last, data)) if *last == stream => {
                        data.extend_from_slice(bytes);
                    }
                    _ => seen.push(Seen::Data(stream, bytes.to_vec())),
                },
                Ok(None) => break,
                Err(error) => return (seen, Err(error)),
            }
        }
        assert!(part.is_empty(), "the reader left bytes behind");
    }
    (seen, Ok(reader.is_between_frames()))
}
