//! Channels: too many, unknown, closed, without a window, with too much in it.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::{Fixture, open, request};
use crate::harness::memory;
use hostile::operator::raw::{
    CHANNEL_CLOSE, CHANNEL_DATA, CHANNEL_EOF, CHANNEL_EXTENDED_DATA, CHANNEL_FAILURE,
    CHANNEL_OPEN_CONFIRMATION, CHANNEL_OPEN_FAILURE, CHANNEL_SUCCESS, CHANNEL_WINDOW_ADJUST,
    DISCONNECT, GLOBAL_REQUEST, PacketFields, REQUEST_SUCCESS, Raw, SshMessage, UNIMPLEMENTED,
};

/// Opens a channel as number 0, and gives the relay's number of it.
#[track_caller]
fn opened(raw: &mut Raw, window: u32, packet: u32) -> u32 {
    raw.say(open(0, window, packet));
    let opened = raw.wait(CHANNEL_OPEN_CONFIRMATION);
    let mut fields = PacketFields::of(&opened);
    fields.number();
    fields.number()
}

#[test]
fn five_thousand_channels_are_asked_for_and_some_are_had() {
    let fixture = Fixture::new();
    for mut raw in [fixture.at_console(), fixture.on_device()] {
        let mut all = Vec::new();
        for number in 0..5_000 {
            let open = open(number, 1 << 20, 1 << 15);
            all.extend(raw.packet(open.payload()));
        }
        let mut had = 0;
        std::thread::scope(|scope| {
            let mut writer = raw.writer();
            scope.spawn(move || writer.write_all(&all));
            for _ in 0..5_000 {
                let answer = raw.next().expect("an answer to each");
                match answer[0] {
                    CHANNEL_OPEN_CONFIRMATION => had += 1,
                    other => assert_eq!(other, CHANNEL_OPEN_FAILURE),
                }
            }
        });
        assert_eq!(had, 64);
        fixture.is_undisturbed();
    }
}

#[test]
fn a_client_that_wants_no_more_sessions_gets_none() {
    let fixture = Fixture::new();
    for mut raw in [fixture.at_console(), fixture.on_device()] {
        opened(&mut raw, 1 << 20, 1 << 15);
        let no_more = SshMessage::new(GLOBAL_REQUEST).string("no-more-sessions@openssh.com");
        raw.say(no_more.byte(1));
        raw.wait(REQUEST_SUCCESS);
        raw.say(open(1, 1 << 20, 1 << 15));
        raw.wait(CHANNEL_OPEN_FAILURE);
    }
    fixture.is_undisturbed();
}

/// russh knows which channels there are and drops what is said on others: no call of ours can be reached by them.
#[test]
fn what_is_said_on_no_channel_harms_none() {
    let fixture = Fixture::new();
    let mut raw = fixture.on_device();
    let theirs = opened(&mut raw, 1 << 20, 1 << 15);
    let closed = {
        raw.say(open(1, 1 << 20, 1 << 15));
        let opened = raw.wait(CHANNEL_OPEN_CONFIRMATION);
        let mut fields = PacketFields::of(&opened);
        fields.number();
        let closed = fields.number();
        raw.say(SshMessage::new(CHANNEL_CLOSE).number(closed));
        raw.wait(CHANNEL_CLOSE);
        closed
    };
    let about = |kind: u8, channel: u32| SshMessage::new(kind).number(channel);
    let said = |channel: u32| {
        [
            about(CHANNEL_DATA, channel).string("x"),
            about(CHANNEL_EXTENDED_DATA, channel).number(1).string("x"),
            about(CHANNEL_WINDOW_ADJUST, channel).number(u32::MAX),
            about(CHANNEL_EOF, channel),
            about(CHANNEL_CLOSE, channel),
            about(CHANNEL_SUCCESS, channel),
            about(CHANNEL_FAILURE, channel),
            request(channel, "exec", true).string("touch /never"),
            request(channel, "shell", false),
            request(channel, "no-such-request@example.com", true),
        ]
    };
    for channel in [closed, 77, u32::MAX] {
        for message in said(channel) {
            // Each on a connection of its own: it may be ended for this, and nothing else may happen.
            let mut other = fixture.on_device();
            let _ = other.try_say(&message);
            let _ = other.try_say(&open(0, 1 << 20, 1 << 15));
            while let Some(answer) = other.next() {
                if answer[0] == CHANNEL_OPEN_CONFIRMATION {
                    break;
                }
                let bland = [CHANNEL_FAILURE, CHANNEL_CLOSE, UNIMPLEMENTED, DISCONNECT];
                assert!(bland.contains(&answer[0]), "{message:?}: {answer:?}");
            }
        }
    }
    // What is unknown altogether opens nothing.
    let mut other = fixture.on_device();
    other.say(SshMessage::new(191).string("x"));
    let _ = other.try_say(&open(0, 1 << 20, 1 << 15));
    let fair = [UNIMPLEMENTED, DISCONNECT, CHANNEL_OPEN_CONFIRMATION];
    assert!(other.next().is_none_or(|answer| fair.contains(&answer[0])));
    // The one beside it works as before.
    raw.say(request(theirs, "exec", true).string("echo fine"));
    raw.wait(CHANNEL_SUCCESS);
    let data = raw.wait(CHANNEL_DATA);
    assert!(data.ends_with(b"fine\n"));
    fixture.is_undisturbed();
}

/// The window and the size of packets are russh's to keep. Ours is to wait for it, and to read no more from the device
/// meanwhile.
#[test]
fn without_a_window_nothing_comes_and_nothing_grows() {
    let fixture = Fixture::new();
    let mut raw = fixture.on_device();
    let theirs = opened(&mut raw, 0, 1 << 15);
    let before = memory(fixture.site.relay.id());
    raw.say(request(theirs, "exec", true).string("exec cat /dev/zero"));
    raw.wait(CHANNEL_SUCCESS);
    // Time enough for far more than what may wait on the way.
    assert!(!raw.ends(Duration::from_millis(1_500)));
    let grown = memory(fixture.site.relay.id()).saturating_sub(before);
    eprintln!("{} KiB wait in the relay", grown / 1024);
    assert!(grown < 6 << 20, "{} MiB wait in the relay", grown >> 20);
    for give in [1, 10, 1_000] {
        raw.say(
            SshMessage::new(CHANNEL_WINDOW_ADJUST)
                .number(theirs)
                .number(give),
        );
        let mut came = 0;
        while came < give {
            let data = raw.wait(CHANNEL_DATA);
            let mut fields = PacketFields::of(&data);
            fields.number();
            came += u32::try_from(fields.string().len()).unwrap();
        }
        assert_eq!(came, give, "more than the window");
    }
    // A window beyond all numbers is one.
    let mut other = fixture.on_device();
    let theirs = opened(&mut other, u32::MAX, 1);
    let more = SshMessage::new(CHANNEL_WINDOW_ADJUST)
        .number(theirs)
        .number(u32::MAX);
    other.say(more);
    other.say(request(theirs, "exec", false).string("echo ab"));
    let came: Vec<_> = (0..3)
        .map(|_| other.wait(CHANNEL_DATA)[9..].to_vec())
        .collect();
    assert_eq!(came, [b"a", b"b", b"\n"], "packets of one byte");
    // Packets of no bytes carry none: the connection ends, or nothing comes.
    for mut other in [fixture.on_device(), fixture.at_console()] {
        let _ = other.try_say(&open(0, 1 << 20, 0));
        while let Some(answer) = other.next() {
            assert_ne!(answer[0], CHANNEL_DATA);
            if answer[0] == CHANNEL_OPEN_CONFIRMATION {
                let theirs = PacketFields::of(&answer[4..]).number();
                let _ = other.try_say(&request(theirs, "exec", false).string("whoami"));
            }
            if answer[0] == CHANNEL_CLOSE {
                break;
            }
        }
    }
    fixture.is_undisturbed();
}

#[test]
fn more_than_the_window_goes_nowhere() {
    let fixture = Fixture::new();
    let mut raw = fixture.on_device();
    let theirs = opened(&mut raw, 1 << 20, 1 << 15);
    raw.say(request(theirs, "exec", true).string("exec sleep 600"));
    raw.wait(CHANNEL_SUCCESS);
    let data = SshMessage::new(CHANNEL_DATA)
        .number(theirs)
        .string([0; 32_000]);
    raw.set_timeout(Duration::from_secs(1));
    let (began, mut sent) = (Instant::now(), 0);
    while sent < 128 << 20 && raw.try_say(&data).is_ok() {
        sent += 32_000;
    }
    eprintln!("{} KiB went in, in {:?}", sent >> 10, began.elapsed());
    assert!(sent < 64 << 20, "{sent} bytes went in");
    fixture.is_undisturbed();
}

/// russh gives window to one channel that was granted for another, so one that is full keeps its neighbours on a
/// trickle; for a minute. Within its window no client comes so far by itself: this one overruns it a little.
#[test]
fn a_channel_that_starves_its_neighbours_is_closed() {
    let fixture = Fixture::new();
    let mut raw = fixture.on_device();
    let full = opened(&mut raw, 1 << 20, 1 << 15);
    raw.say(request(full, "exec", true).string("exec sleep 600"));
    raw.wait(CHANNEL_SUCCESS);
    let data = |bytes: usize, channel| {
        SshMessage::new(CHANNEL_DATA)
            .number(channel)
            .string(vec![0; bytes])
    };
    // What the device's end takes, and what makes the queue full and does not use it up.
    for _ in 0..(3_700 + 830) / 30 {
        raw.say(data(30 * 1024, full));
    }
    raw.say(open(1, 1 << 20, 1 << 15));
    raw.wait(CHANNEL_OPEN_CONFIRMATION);
    let neighbour = full + 1;
    raw.say(request(neighbour, "exec", true).string("exec cat >/dev/null"));
    raw.wait(CHANNEL_SUCCESS);
    for _ in 0..(2 << 20) / (32 << 10) {
        raw.say(data(32 << 10, neighbour));
    }

    raw.set_timeout(Duration::from_secs(5));
    let (began, mut trickle) = (Instant::now(), 0);
    let mut said = String::new();
    loop {
        let message = raw.next().expect("the trickle goes on");
        let mut fields = PacketFields::of(&message);
        match (message[0], fields.number()) {
            (CHANNEL_WINDOW_ADJUST, 1) if fields.number() <= 2 => {
                trickle += 1;
                raw.say(data(2, neighbour));
            }
            (CHANNEL_EXTENDED_DATA, 0) => {
                fields.number();
                said.push_str(str::from_utf8(fields.string()).unwrap());
            }
            (CHANNEL_CLOSE, 0) => break,
            _ => {}
        }
    }
    assert!(
        began.elapsed() > Duration::from_secs(50),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        said,
        "[holdfast] closed: the device accepted no data for 60 s\r\n"
    );
    assert!((100..10_000).contains(&trickle), "{trickle} packets");
    // Each two bytes ask for more, and now there is more.
    loop {
        let adjust = raw.wait(CHANNEL_WINDOW_ADJUST);
        let mut fields = PacketFields::of(&adjust);
        assert_eq!(fields.number(), 1);
        if fields.number() > 1 << 20 {
            break;
        }
        raw.say(data(2, neighbour));
    }
    fixture.is_undisturbed();
}
