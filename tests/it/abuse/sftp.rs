//! Files: paths that are none, and handles without end.

use super::raw::{CHANNEL_DATA, CHANNEL_OPEN_CONFIRMATION, CHANNEL_SUCCESS, Fields, Message, Raw};
use super::{Bed, open, request};
use crate::harness::memory;

const OPENDIR: u8 = 11;
const STAT: u8 = 17;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;

/// An sftp session, told packet by packet.
struct Sftp {
    raw: Raw,
    channel: u32,
    heard: Vec<u8>,
}

impl Sftp {
    #[track_caller]
    fn begin(bed: &Bed) -> Self {
        let mut raw = bed.on_device();
        raw.say(open(0, u32::MAX, 1 << 15));
        let opened = raw.wait(CHANNEL_OPEN_CONFIRMATION);
        let mut fields = Fields::of(&opened);
        fields.number();
        let channel = fields.number();
        raw.say(request(channel, "subsystem", true).string("sftp"));
        raw.wait(CHANNEL_SUCCESS);
        let mut sftp = Self {
            raw,
            channel,
            heard: vec![],
        };
        sftp.send(&[0, 0, 0, 5, 1, 0, 0, 0, 3]);
        assert_eq!(sftp.answer()[0], 2);
        sftp
    }

    #[track_caller]
    fn send(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(30_000) {
            self.raw
                .say(Message::new(CHANNEL_DATA).number(self.channel).string(part));
        }
    }

    /// The next answer, from its kind on.
    #[track_caller]
    fn answer(&mut self) -> Vec<u8> {
        loop {
            if let Some((length, rest)) = self.heard.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if rest.len() >= length {
                    let answer = rest[..length].to_vec();
                    self.heard.drain(..4 + length);
                    return answer;
                }
            }
            let data = self.raw.wait(CHANNEL_DATA);
            self.heard.extend_from_slice(&data[9..]);
        }
    }
}

fn packet(kind: u8, id: u32, path: &[u8]) -> Vec<u8> {
    let body = Message::new(kind).number(id).string(path);
    let body = body.payload();
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

#[test]
fn a_path_that_is_none_leads_nowhere() {
    let bed = Bed::new();
    let mut sftp = Sftp::begin(&bed);
    let long = [b'x'; 4_096];
    let deep = b"x/".repeat(2_048);
    let paths: [&[u8]; 6] = [
        b"/etc\0/passwd",
        b"\0",
        b"/etc/passwd\0.txt",
        &long,
        &deep,
        b"\xff\xfe",
    ];
    for (id, path) in (0..).zip(paths) {
        for kind in [STAT, OPENDIR] {
            sftp.send(&packet(kind, id, path));
            let answer = sftp.answer();
            assert_eq!(answer[0], STATUS, "{path:?}: {answer:?}");
            let code = Fields::of(&answer[4..]).number();
            assert_ne!(code, 0, "{path:?}");
        }
    }
    sftp.send(&packet(STAT, 9, b"/"));
    assert_eq!(sftp.answer()[0], 105);
    bed.is_undisturbed();
}

/// Handles that are asked for, in thousands; `HOLDFAST_HANDLES=100` is the whole of what the issue asks for.
const THOUSANDS: u32 = 20;

#[test]
fn thousands_of_handles_are_asked_for_and_some_are_had() {
    let wanted = std::env::var("HOLDFAST_HANDLES").ok();
    let thousands = wanted.map_or(THOUSANDS, |text| text.parse().unwrap());
    let bed = Bed::new();
    let mut sftp = Sftp::begin(&bed);
    let agent = memory(bed.site.device.id());
    let (mut handles, mut refused) = (0, 0);
    for batch in 0..thousands {
        let asked: Vec<u8> = (0..1_000)
            .flat_map(|number| packet(OPENDIR, batch * 1_000 + number, b"/"))
            .collect();
        sftp.send(&asked);
        for _ in 0..1_000 {
            match sftp.answer()[0] {
                HANDLE => handles += 1,
                STATUS => refused += 1,
                other => panic!("answer {other}"),
            }
        }
    }
    eprintln!("{handles} handles, {refused} refused");
    assert!((1..=1_024).contains(&handles) && handles + refused == thousands * 1_000);
    let grown = memory(bed.site.device.id()).saturating_sub(agent);
    assert!(
        grown < 8 << 20,
        "the agent has grown by {} KiB",
        grown / 1024
    );
    sftp.send(&packet(STAT, 9, b"/"));
    assert_eq!(sftp.answer()[0], 105);
    bed.is_undisturbed();
}
