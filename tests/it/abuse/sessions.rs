//! The requests on a session: its environment, its terminal, and new keys.

use super::{Fixture, open, request};
use hostile::operator::raw::{
    CHANNEL_DATA, CHANNEL_EXTENDED_DATA, CHANNEL_FAILURE, CHANNEL_OPEN_CONFIRMATION,
    CHANNEL_SUCCESS, KEXINIT, PacketFields, Raw, SshMessage,
};

#[track_caller]
fn opened(raw: &mut Raw) -> u32 {
    raw.say(open(0, 1 << 24, 1 << 15));
    let opened = raw.wait(CHANNEL_OPEN_CONFIRMATION);
    let mut fields = PacketFields::of(&opened);
    fields.number();
    fields.number()
}

/// Reads output until it holds `text`.
#[track_caller]
fn wait_text(raw: &mut Raw, text: &str) -> String {
    let mut shown = String::new();
    while !shown.contains(text) {
        let data = raw.wait(CHANNEL_DATA);
        shown += &String::from_utf8_lossy(&data[9..]);
    }
    shown
}

/// Of ten thousand requests, those whose value has 64 KiB: nothing changes after these but the time that they take.
/// `HOLDFAST_LARGE_ENV=10000` makes all of them large.
const LARGE: u32 = 1_000;

#[test]
fn an_environment_has_bounds() {
    let wanted = std::env::var("HOLDFAST_LARGE_ENV").ok();
    let large_ones = wanted.map_or(LARGE, |text| text.parse().unwrap());
    let fixture = Fixture::new();
    let mut raw = fixture.on_device();
    let theirs = opened(&mut raw);
    let (large, small) = ("x".repeat(64 * 1024), "x");
    let (mut taken, mut sentences) = (0, 0);
    for number in 0..10_000 {
        let value = if number < large_ones { &*large } else { small };
        let name = format!("LC_{number}");
        raw.say(request(theirs, "env", true).string(name).string(value));
        // What is refused is said on the channel too, for the first few.
        let answer = loop {
            match raw.next().unwrap()[0] {
                CHANNEL_EXTENDED_DATA => sentences += 1,
                answer => break answer,
            }
        };
        match answer {
            CHANNEL_SUCCESS => taken += 1,
            answer => assert_eq!(answer, CHANNEL_FAILURE),
        }
    }
    assert!(taken <= 256, "{taken} were taken");
    assert!((1..=8).contains(&sentences), "{sentences} sentences");
    raw.say(request(theirs, "exec", true).string("echo fine"));
    wait_text(&mut raw, "fine");
    fixture.is_undisturbed();
    // They are in the log, without filling it.
    let rows = fixture
        .site
        .relay
        .admin(&["audit", "--event", "env.rejected", "--limit", "0"]);
    let count = rows.ok().out().lines().count();
    assert!(count < 200, "{count} rows");
}

#[test]
fn a_terminal_of_any_size_is_one() {
    let fixture = Fixture::new();
    for size in [0, 1, 65_535, 65_536, u32::MAX] {
        let mut raw = fixture.on_device();
        let theirs = opened(&mut raw);
        let pty = request(theirs, "pty-req", true).string("xterm");
        raw.say(
            pty.number(size)
                .number(size)
                .number(size)
                .number(size)
                .string(""),
        );
        raw.wait(CHANNEL_SUCCESS);
        raw.say(request(theirs, "exec", true).string("stty size; read x; stty size; echo over"));
        wait_text(&mut raw, "\r\n");
        let change = request(theirs, "window-change", false);
        raw.say(change.number(size).number(size).number(0).number(0));
        raw.say(
            request(theirs, "window-change", false)
                .number(90)
                .number(30)
                .number(0)
                .number(0),
        );
        raw.say(SshMessage::new(CHANNEL_DATA).number(theirs).string("\r"));
        wait_text(&mut raw, "30 90\r\nover");
    }
    // A storm of them, of which the last counts.
    let mut raw = fixture.on_device();
    let theirs = opened(&mut raw);
    let pty = request(theirs, "pty-req", true).string("xterm");
    raw.say(pty.number(80).number(24).number(0).number(0).string(""));
    raw.wait(CHANNEL_SUCCESS);
    raw.say(request(theirs, "exec", true).string("echo begun; read x; stty size; echo over"));
    wait_text(&mut raw, "begun");
    let mut storm = Vec::new();
    for number in 0..20_000 {
        let change = request(theirs, "window-change", false);
        let change = change
            .number(100 + number % 50)
            .number(40)
            .number(0)
            .number(0);
        storm.extend(raw.packet(change.payload()));
    }
    raw.write(&storm).unwrap();
    fixture.is_undisturbed();
    raw.say(SshMessage::new(CHANNEL_DATA).number(theirs).string("\r"));
    wait_text(&mut raw, "40 149\r\nover");
}

/// Both are russh's: an exchange after the other, and no second proposal within one.
#[test]
fn new_keys_again_and_again_are_had_or_refused() {
    let fixture = Fixture::new();
    let mut raw = fixture.on_device();
    let theirs = opened(&mut raw);
    for _ in 0..100 {
        raw.exchange_keys();
    }
    raw.say(request(theirs, "exec", true).string("echo fine"));
    wait_text(&mut raw, "fine");
    // A second proposal before the first has led to keys is against the rules (RFC 4253 section 9).
    let mut raw = fixture.on_device();
    let mut flood = Vec::new();
    for _ in 0..1_000 {
        flood.extend(raw.packet(Raw::proposal().payload()));
    }
    let _ = raw.write(&flood);
    let mut answers = 0;
    while let Some(answer) = raw.next() {
        answers += usize::from(answer[0] == KEXINIT);
    }
    assert!(answers <= 2, "{answers} proposals were answered");
    fixture.is_undisturbed();
}
