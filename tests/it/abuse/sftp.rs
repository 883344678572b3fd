//! Files: paths that are none, and handles without end.

use hostile::operator::raw::{
    CHANNEL_DATA, CHANNEL_OPEN_CONFIRMATION, CHANNEL_SUCCESS, PacketFields, Raw, SshMessage,
};
use rustix::process::Signal;
use serde_json::Value;

use super::{Fixture, open, request};
use crate::harness::{Device, SOON, Site, memory, wait_for};

const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const FSTAT: u8 = 8;
const OPENDIR: u8 = 11;
const REMOVE: u8 = 13;
const STAT: u8 = 17;
const EXTENDED: u8 = 200;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const ATTRS: u8 = 105;

/// An sftp session, driven packet by packet.
struct Sftp {
    raw: Raw,
    channel: u32,
    heard: Vec<u8>,
}

impl Sftp {
    #[track_caller]
    fn begin(fixture: &Fixture) -> Self {
        let mut raw = fixture.on_device();
        raw.say(open(0, u32::MAX, 1 << 15));
        let opened = raw.wait(CHANNEL_OPEN_CONFIRMATION);
        let mut fields = PacketFields::of(&opened);
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
            self.raw.say(
                SshMessage::new(CHANNEL_DATA)
                    .number(self.channel)
                    .string(part),
            );
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
    whole(&SshMessage::new(kind).number(id).string(path))
}

fn whole(message: &SshMessage) -> Vec<u8> {
    let body = message.payload();
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

#[test]
fn a_path_that_is_none_leads_nowhere() {
    let fixture = Fixture::new();
    let mut sftp = Sftp::begin(&fixture);
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
            let code = PacketFields::of(&answer[4..]).number();
            assert_ne!(code, 0, "{path:?}");
        }
    }
    sftp.send(&packet(STAT, 9, b"/"));
    assert_eq!(sftp.answer()[0], 105);
    fixture.is_undisturbed();
}

/// No abuse, but driven packet by packet: the relay asks for what a client reads before it does, and closes what it has
/// read.
#[test]
fn a_small_file_is_read_ahead_and_closed_without_its_device() {
    let fixture = Fixture::new();
    let mut sftp = Sftp::begin(&fixture);
    let folder = fixture.site.device.folder();
    let opened = |sftp: &mut Sftp, id: u32, name: &str| {
        let path = folder.join(name);
        std::fs::write(&path, "text").unwrap();
        let path = path.into_os_string().into_encoded_bytes();
        let open = SshMessage::new(OPEN).number(id).string(path);
        sftp.send(&whole(&open.number(1).number(0)));
        let answer = sftp.answer();
        assert_eq!(answer[0], HANDLE);
        PacketFields::of(&answer[4..]).string().to_vec()
    };
    // How much this client reads at a time.
    let one = opened(&mut sftp, 1, "one");
    let read = SshMessage::new(READ).number(2).string(&one);
    sftp.send(&whole(&read.number(0).number(0).number(1_000)));
    assert_eq!(sftp.answer()[0], DATA);
    fixture.site.device.signal(Signal::STOP);
    sftp.send(&packet(CLOSE, 3, &one));
    let closed = sftp.answer();
    fixture.site.device.signal(Signal::CONT);
    assert_eq!(closed[..9], [STATUS, 0, 0, 0, 3, 0, 0, 0, 0]);
    // The next one is read before anybody asks: the log has what came from the device.
    let two = opened(&mut sftp, 4, "two");
    sftp.send(&packet(CLOSE, 5, &two));
    assert_eq!(sftp.answer()[..5], [STATUS, 0, 0, 0, 5]);
    let row = wait_for(SOON, "the second file in the log", || {
        let rows = ["audit", "--event", "sftp", "--json"];
        let rows = fixture.site.relay.admin(&rows).ok().out();
        let mut rows = rows.lines().map(|row| serde_json::from_str(row).unwrap());
        rows.find(|row: &Value| {
            row["path"]
                .as_str()
                .is_some_and(|path| path.ends_with("two"))
        })
    });
    assert_eq!(
        (&row["operation"], &row["bytes_read"]),
        (&"read".into(), &4.into())
    );
}

/// Nor is this: of files that are put one after the other, each is open at once, but what the log says of it comes from
/// the device.
#[test]
fn a_small_file_is_opened_ahead_and_its_failure_is_reported() {
    let fixture = Fixture::new();
    let mut sftp = Sftp::begin(&fixture);
    let folder = fixture.site.device.folder();
    std::fs::create_dir(folder.join("taken")).unwrap();
    sftp.send(&packet(EXTENDED, 1, b"limits@openssh.com"));
    assert_eq!(sftp.answer()[0], 201);
    let open = |sftp: &mut Sftp, id: u32, name: &str| {
        let path = folder.join(name).into_os_string().into_encoded_bytes();
        let open = SshMessage::new(OPEN).number(id).string(path);
        sftp.send(&whole(&open.number(0x1a).number(0)));
        let answer = sftp.answer();
        assert_eq!(answer[..5], [&[HANDLE][..], &id.to_be_bytes()].concat());
        PacketFields::of(&answer[4..]).string().to_vec()
    };
    let write = |id: u32, handle: &[u8]| {
        let write = SshMessage::new(WRITE).number(id).string(handle);
        whole(&write.number(0).number(0).string("text"))
    };
    let status = |sftp: &mut Sftp, id: u32| {
        let answer = sftp.answer();
        assert_eq!(answer[..5], [&[STATUS][..], &id.to_be_bytes()].concat());
        PacketFields::of(&answer[4..]).number()
    };
    let one = open(&mut sftp, 2, "one");
    sftp.send(&[write(3, &one), packet(CLOSE, 4, &one)].concat());
    assert_eq!((status(&mut sftp, 3), status(&mut sftp, 4)), (0, 0));
    // Where the device is silent, the handles come, and nothing is logged of what was done with them.
    fixture.site.device.signal(Signal::STOP);
    let two = open(&mut sftp, 5, "two");
    sftp.send(&[write(6, &two), packet(CLOSE, 7, &two)].concat());
    let taken = open(&mut sftp, 8, "taken");
    sftp.send(&[write(9, &taken), packet(CLOSE, 10, &taken)].concat());
    assert!(!folder.join("two").exists());
    fixture.site.device.signal(Signal::CONT);
    let codes: Vec<u32> = [6, 7, 9, 10].map(|id| status(&mut sftp, id)).into();
    assert_eq!(codes, [0, 0, 4, 4]);
    assert_eq!(std::fs::read(folder.join("two")).unwrap(), b"text");
    // Behind a failure the device's answer to an open comes first.
    let path = folder.join("taken").into_os_string().into_encoded_bytes();
    let open = SshMessage::new(OPEN).number(11).string(path);
    sftp.send(&whole(&open.number(0x1a).number(0)));
    assert_eq!(status(&mut sftp, 11), 4);
    fixture.is_undisturbed();
}

/// Booked on the path of the request that came first, the removal would be nowhere.
#[test]
fn reused_request_number_ends_following_loudly() {
    let device = Device::new("kitchen-cam").flags(&["--upload", "always"]);
    let fixture = Fixture {
        site: Site::with(device),
        before: 0,
    };
    let relay = &fixture.site.relay;
    let path = |name: &str| {
        let path = fixture.site.device.folder().join(name);
        std::fs::write(&path, "text").unwrap();
        path.into_os_string().into_encoded_bytes()
    };
    let (harmless, evidence) = (path("harmless"), path("evidence"));
    let mut sftp = Sftp::begin(&fixture);
    sftp.send(&[packet(STAT, 7, &harmless), packet(REMOVE, 7, &evidence)].concat());
    assert_eq!((sftp.answer()[0], sftp.answer()[0]), (ATTRS, STATUS));
    assert!(!fixture.site.device.folder().join("evidence").exists());
    drop(sftp);

    let row = wait_for(SOON, "the recording", || {
        let rows = relay.json(&["recordings", "--state", "complete", "--json"]);
        rows.as_array().unwrap().first().cloned()
    });
    assert_eq!(
        (&row["kind"], &row["verified"]),
        (&"sftp".into(), &false.into())
    );
    let id = row["id"].as_str().unwrap();
    let why = "the client used request number 7 again before it was answered";
    let shown = relay.admin(&["recordings", "show", id]).ok().out();
    assert!(
        shown.contains(&format!("file operations may be missing: {why}")),
        "{shown}"
    );
    let lines = |text: String| -> Vec<Value> {
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    // The device has recorded the same, by itself.
    let records = lines(relay.export(id, "json"));
    let said = records
        .iter()
        .find(|record| record["event"] == "files_unfollowed");
    assert_eq!(said.unwrap()["reason"], why, "{records:?}");
    let rows = lines(
        relay
            .admin(&["audit", "--event", "sftp", "--json"])
            .ok()
            .out(),
    );
    let results: Vec<_> = rows
        .iter()
        .map(|row| (&row["operation"], &row["result"]))
        .collect();
    assert!(
        results.contains(&(&"remove".into(), &"not followed".into())),
        "{results:?}"
    );
    assert!(
        results.contains(&(&"unfollowed".into(), &why.into())),
        "{results:?}"
    );
}

/// A client that asks for much and hangs up: the end of the session is in the middle of what is being logged.
#[test]
fn what_a_client_did_before_it_hung_up_is_in_the_log() {
    let fixture = Fixture::new();
    let rows = |event: &str| {
        let rows = ["audit", "--event", event, "--json", "--limit", "0"];
        fixture.site.relay.admin(&rows).ok().out()
    };
    let mut missing = Vec::new();
    for round in 1..=3 {
        let folder = fixture.site.device.folder().join(round.to_string());
        std::fs::create_dir(&folder).unwrap();
        let paths: Vec<_> = (0..1_000)
            .map(|number| folder.join(number.to_string()))
            .collect();
        let ended = || {
            rows("session.end")
                .lines()
                .filter(|row| row.contains("went away"))
                .count()
        };
        let mut sftp = Sftp::begin(&fixture);
        let removals = (1..).zip(&paths).map(|(id, path)| {
            std::fs::write(path, "text").unwrap();
            packet(REMOVE, id, path.as_os_str().as_encoded_bytes())
        });
        sftp.send(&removals.collect::<Vec<_>>().concat());
        assert_eq!(sftp.answer()[0], STATUS);
        drop(sftp);
        wait_for(SOON, "the session's end", || {
            (ended() == round).then_some(())
        });
        let logged = rows("sftp");
        let is_logged = |path: &std::path::Path| logged.contains(&format!("{:?}", path));
        let gone = paths.into_iter().filter(|path| !path.exists());
        missing.extend(gone.filter(|path| !is_logged(path)));
    }
    assert_eq!(missing, Vec::<std::path::PathBuf>::new());
}

/// A server whose output is closed still does what it was asked for, and nothing says with which result.
#[test]
fn results_are_logged_though_the_client_reads_no_answer() {
    let fixture = Fixture::new();
    let mut sftp = Sftp::begin(&fixture);
    let path = fixture.site.device.folder().join("precious");
    std::fs::write(&path, "text").unwrap();
    let end_of_write = request(sftp.channel, "eow@openssh.com", false);
    sftp.raw.say(end_of_write);
    sftp.send(&packet(REMOVE, 1, path.as_os_str().as_encoded_bytes()));
    let answer = sftp.answer();
    assert_eq!((answer[0], &answer[5..9]), (STATUS, &[0; 4][..]));
    drop(sftp);
    let row = wait_for(SOON, "the removal in the log", || {
        let rows = ["audit", "--event", "sftp", "--json", "--limit", "0"];
        let rows = fixture.site.relay.admin(&rows).ok().out();
        let mut rows = rows
            .lines()
            .map(|row| serde_json::from_str::<Value>(row).unwrap());
        rows.find(|row| row["path"] == path.to_str().unwrap())
    });
    assert_eq!(
        (&row["operation"], &row["result"]),
        (&"remove".into(), &"ok".into())
    );
}

/// Each is recorded with the path of its file, which was sent once: an honest recording is 200 times what was sent.
#[test]
fn thousands_of_operations_on_a_long_path_stay_verified() {
    let device = Device::new("kitchen-cam").flags(&["--upload", "always"]);
    let fixture = Fixture {
        site: Site::with(device),
        before: 0,
    };
    let mut folder = fixture.site.device.folder().to_path_buf();
    while folder.as_os_str().len() < 3_800 {
        folder.push("x".repeat(200));
    }
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("file");
    std::fs::write(&path, "text").unwrap();
    let mut sftp = Sftp::begin(&fixture);
    let open = SshMessage::new(OPEN)
        .number(1)
        .string(path.into_os_string().into_encoded_bytes());
    sftp.send(&whole(&open.number(1).number(0)));
    let answer = sftp.answer();
    assert_eq!(answer[0], HANDLE);
    let handle = PacketFields::of(&answer[4..]).string().to_vec();
    for batch in 0..30 {
        let asked: Vec<u8> = (0..1_000)
            .flat_map(|number| packet(FSTAT, 2 + batch * 1_000 + number, &handle))
            .collect();
        sftp.send(&asked);
        for _ in 0..1_000 {
            assert_eq!(sftp.answer()[0], ATTRS);
        }
    }
    drop(sftp);
    let relay = &fixture.site.relay;
    let row = wait_for(SOON, "the verdict", || {
        let rows = relay.json(&["recordings", "--json"]);
        let row = rows.as_array().unwrap().first().cloned()?;
        row["verified"].is_boolean().then_some(row)
    });
    assert_eq!(
        (&row["state"], &row["verified"]),
        (&"complete".into(), &true.into()),
        "{row}"
    );
}

/// Handles that are asked for, in thousands; `HOLDFAST_HANDLES=100` is the full size.
const THOUSANDS: u32 = 20;

#[test]
fn thousands_of_handles_are_asked_for_and_some_are_had() {
    let wanted = std::env::var("HOLDFAST_HANDLES").ok();
    let thousands = wanted.map_or(THOUSANDS, |text| text.parse().unwrap());
    let fixture = Fixture::new();
    let mut sftp = Sftp::begin(&fixture);
    let agent = memory(fixture.site.device.id());
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
    let grown = memory(fixture.site.device.id()).saturating_sub(agent);
    assert!(
        grown < 8 << 20,
        "the agent has grown by {} KiB",
        grown / 1024
    );
    sftp.send(&packet(STAT, 9, b"/"));
    assert_eq!(sftp.answer()[0], 105);
    fixture.is_undisturbed();
}
