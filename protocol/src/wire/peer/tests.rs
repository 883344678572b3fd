use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::codec::control::{ControlMessage as _, ControlReader, encode};

const HEARD: PeerHeard = PeerHeard {
    silent_ms: 300,
    rtt_us: 200,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Holds the bytes that two relays of different versions speak during an upgrade.
#[test]
fn messages_between_relays_keep_their_bytes() {
    let open = |purpose| {
        PeerMessage::Open(PeerOpen {
            device: DeviceId([0xd1; 16]),
            generation: Generation(300),
            purpose,
        })
    };
    let device = "d1".repeat(16);
    let facts = PeerFacts {
        minor: 5,
        clock_skew: -1,
        local_address: None,
        clones: None,
        heard: HEARD,
    };
    let address = "192.0.2.7:41822".parse().unwrap();
    let all = PeerFacts {
        local_address: Some(address),
        clones: Some((address, address)),
        ..facts.clone()
    };
    let v4 = "00c0000207dec602";
    let table = [
        (
            PeerMessage::Hello(PeerHello { minor: 0 }),
            "00020000".into(),
        ),
        (
            PeerMessage::Welcome(PeerWelcome { minor: 0 }),
            "00020100".into(),
        ),
        (open(PeerPurpose::Facts), format!("001402{device}ac0200")),
        (open(PeerPurpose::Session), format!("001402{device}ac0201")),
        (open(PeerPurpose::Terminal), format!("001402{device}ac0202")),
        (open(PeerPurpose::Forward), format!("001402{device}ac0203")),
        (PeerMessage::Facts(facts), "00090305010000ac02c801".into()),
        (
            PeerMessage::Facts(all),
            format!("002103050101{v4}01{v4}{v4}ac02c801"),
        ),
        (PeerMessage::Opened, "000104".into()),
        (
            PeerMessage::Refused(PeerRefused::NotHere),
            "00020500".into(),
        ),
        (PeerMessage::Refused(PeerRefused::Busy), "00020501".into()),
        (
            PeerMessage::Refused(PeerRefused::Stopping),
            "00020502".into(),
        ),
        (PeerMessage::Heard(HEARD), "000506ac02c801".into()),
    ];
    let mut variants: Vec<u32> = Vec::new();
    for (message, golden) in table {
        let golden: String = golden;
        let bytes = encode(&message).unwrap();
        assert_eq!(hex(&bytes), golden, "{message:?}");
        variants.push(bytes[2].into());
        let read = ControlReader::default().read(&mut bytes.as_slice());
        assert_eq!(read, Ok(Some(message)));
    }
    variants.dedup();
    let known: Vec<u32> = (0..PeerMessage::KNOWN).collect();
    assert_eq!(variants, known, "every variant, in its order");
}

#[test]
fn ends_of_a_tunnel_keep_their_codes() {
    let table = [
        (TunnelLoss::Lost, 0x100),
        (TunnelLoss::TimedOut, 0x101),
        (TunnelLoss::ClosedHere, 0x102),
        (TunnelLoss::Closed(6), 0x1_0006),
        (TunnelLoss::Closed(u32::MAX), 0x1_0000_ffff),
    ];
    for (end, code) in table {
        assert_eq!(end.code(), code);
        assert_eq!(TunnelLoss::from_code(end.code()), Some(end));
    }
}

proptest! {
    #[test]
    fn no_bytes_of_a_peer_panic_the_reader(bytes: Vec<u8>) {
        let mut reader = ControlReader::<PeerMessage>::default();
        let mut input = bytes.as_slice();
        while let Ok(Some(message)) = reader.read(&mut input) {
            let again = encode(&message).unwrap();
            let read = ControlReader::default().read(&mut again.as_slice());
            prop_assert_eq!(read, Ok(Some(message)));
        }
    }

    #[test]
    fn codes_of_a_device_are_its_own(code: u64) {
        match TunnelLoss::from_code(code) {
            None => prop_assert!(code < 0x100),
            Some(end @ TunnelLoss::Closed(_)) => prop_assert_eq!(end.code(), code),
            Some(end) => prop_assert_eq!(TunnelLoss::from_code(end.code()), Some(end)),
        }
    }
}
