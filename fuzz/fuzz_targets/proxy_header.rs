//! The header with which a load balancer, or who claims to be one, begins a connection. Reading it ends within the
//! bound, takes nothing of what is behind it, and depends on nothing but the bytes.
#![no_main]

// The file alone: with the whole relay behind it a smoke run would compile for minutes.
#[path = "../../relay/src/ssh/stream/proxy_header/mod.rs"]
mod proxy_header;

use libfuzzer_sys::fuzz_target;
use proxy_header::{FIXED, Progress, SIGNATURE, begins, read};

const MOST: usize = 1_024;

fuzz_target!(|bytes: &[u8]| {
    whole(bytes);
    // The fuzzer need not find the signature first.
    whole(&[&SIGNATURE, bytes].concat());
});

fn whole(bytes: &[u8]) {
    let mut asked = FIXED;
    while let Some(came) = bytes.get(..asked) {
        match read(came, MOST) {
            Ok(Progress::Needs(more)) => {
                assert!(more > asked && more <= MOST);
                asked = more;
            }
            Ok(Progress::Whole(_)) => {
                assert!(begins(came));
                return;
            }
            Err(error) => {
                assert!(!error.to_string().chars().any(char::is_control));
                return;
            }
        }
    }
}
