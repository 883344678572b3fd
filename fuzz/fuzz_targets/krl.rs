//! Revocation lists that an operator hands in. What is read stays within its bound, names no serial number
//! zero, and depends on nothing but the bytes.
#![no_main]

// The file alone: with the whole relay behind it a smoke run would compile for minutes.
#[path = "../../relay/src/identity/krl/mod.rs"]
mod krl;

use krl::{KrlEntry, KrlError, MAGIC, looks_like_one, parse};
use libfuzzer_sys::fuzz_target;

const MOST: usize = 1_000;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    // The fuzzer need not find eight bytes and a header first.
    let format = 1_u32.to_be_bytes();
    let header = [MAGIC.as_slice(), &format, &[0; 24], &[0; 8]].concat();
    read(&[&header, bytes].concat());
});

fn read(bytes: &[u8]) {
    let parsed = parse(bytes, MOST);
    assert!(looks_like_one(bytes) || parsed == Err(KrlError::NotOne));
    match parsed {
        Ok(list) => {
            assert!(list.entries.len() <= MOST);
            for entry in &list.entries {
                if let KrlEntry::Serials(_, serials) = entry {
                    assert!(*serials.start() > 0 && !serials.is_empty());
                }
            }
        }
        Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
    }
}
