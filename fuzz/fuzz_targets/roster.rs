//! A roster from a stranger. The signature is left out (a fuzzer can't make one), so that all behind
//! it is reached: what opens must hold the bounds and survive being sealed again.
#![no_main]

use holdfast_protocol::identity::roster::SignedRoster;
use holdfast_protocol::limits::{MAX_ADDRESS, MAX_RELAYS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let signed = SignedRoster {
        body: body.to_vec(),
        signature: Vec::new(),
    };
    let Ok(roster) = signed.open(|_, _, _| true) else {
        return;
    };
    assert!((1..=MAX_RELAYS).contains(&roster.relays.len()));
    assert!(
        roster
            .relays
            .iter()
            .all(|relay| relay.address.len() <= MAX_ADDRESS)
    );
    let again = roster.seal(|_| [0; 64]).open(|_, _, _| true);
    assert_eq!(again, Ok(roster));
});
