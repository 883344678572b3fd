//! Devices whose clock on the wall shows any date: the first seconds that 32 bits cannot hold among them.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::Value;

use crate::harness::{
    Device, Emulated, Relay, SOON, User, Way, command, needs_program, run, wait_for,
};

/// A device's name, the time of its clock when a program starts, and that in seconds since 1970.
const DATES: [(&str, &str, i64); 4] = [
    ("before-1970", "@1969-12-31 23:00:00", -3_600),
    ("of-1970", "@1970-01-01 00:01:00", 60),
    ("of-2038", "@2038-01-19 03:14:08", 1 << 31),
    ("of-2106", "@2106-02-07 06:28:16", 1 << 32),
];

/// Time passes as it does; only where it began is wrong.
pub(crate) const REAL_MONOTONIC: (&str, &str) = ("FAKETIME_DONT_FAKE_MONOTONIC", "1");

#[test]
fn a_device_lives_at_any_date() {
    let Some(library) = faketime() else {
        return;
    };
    let relay = Relay::start();
    let alice = relay.admin_user();
    for (name, date, shown) in DATES {
        let device = Device::new(name)
            .env("LD_PRELOAD", &library)
            .env("FAKETIME", date)
            .env("TZ", "UTC")
            .env(REAL_MONOTONIC.0, REAL_MONOTONIC.1);
        lives(&relay, &alice, device, shown);
    }
}

/// The same of an emulated device, whose emulator is lied to.
pub(crate) fn emulated_device_lives_at_any_date(triple: &str) {
    let library = faketime().expect("the library of faketime");
    let relay = Relay::start();
    let alice = relay.admin_user();
    for (name, date, shown) in DATES {
        let env = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME", date),
            ("TZ", "UTC"),
            REAL_MONOTONIC,
        ];
        let emulated = Emulated::with_clock(triple, &env);
        lives(&relay, &alice, emulated.device(name), shown);
    }
}

/// Enrolment, tunnel, sessions and recordings; and the relay's own times for all of it, with the skew noted, which
/// is also what proves that the agent sees this date.
#[track_caller]
fn lives(relay: &Relay, alice: &User, device: Device, shown: i64) {
    let began = utc();
    let mut device = device.flags(&["--upload", "always"]);
    let name = device.name().to_owned();
    device.join(&relay.token(&[]), &[]).ok();
    device.run_online(relay);
    for way in Way::BOTH {
        let output = alice.exec(way, &name, "echo here").ok();
        assert_eq!(output.out(), "here\n", "{name} {way:?}");
    }
    let complete = || {
        let list = [
            "recordings",
            "--json",
            "--device",
            &name,
            "--state",
            "complete",
        ];
        let rows = relay.json(&list);
        Some(rows).filter(|rows| rows.as_array().unwrap().len() == 2)
    };
    let recordings = wait_for(SOON, "two recordings that came whole", complete);
    for row in recordings.as_array().unwrap() {
        assert_eq!(row["verified"], true, "{row}");
    }
    device.restart(relay);

    let log = relay.admin(&["audit", "--json", "--device", &name, "--limit", "0"]);
    let (log, ended) = (log.ok().out(), utc());
    let mut skews = vec![];
    for line in log.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let time = row["time"].as_str().unwrap();
        assert!(
            *began <= *time && time[..19] <= *ended,
            "not our time: {row}"
        );
        skews.extend(
            row["clock_skew"]
                .as_i64()
                .map(|skew| (row["event"].clone(), skew)),
        );
    }
    let starts = skews.iter().filter(|(event, _)| event == "session.start");
    assert_eq!(starts.count(), 2, "{skews:?}");
    let online = skews.iter().filter(|(event, _)| event == "device.online");
    assert!(online.count() >= 1, "{skews:?}");
    let now = i64::try_from(since_1970()).unwrap();
    for (event, skew) in skews {
        // What has passed for the device since its program started has passed for us, too.
        let off = (skew - (shown - now)).abs();
        assert!(off < 120, "{name}: {event} is {off} s off");
    }
}

/// The time as the audit log has it.
fn utc() -> String {
    let date = run(command("date").args(["-u", "+%Y-%m-%dT%H:%M:%S"])).ok();
    date.out().trim().to_owned()
}

fn since_1970() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs()
}

/// The library that lies about the clock. The program of that name would not do: it stays between a test
/// and its agent, and passes no signal on.
pub(crate) fn faketime() -> Option<PathBuf> {
    if !needs_program("faketime", "Debian's package faketime") {
        return None;
    }
    let folders = fs::read_dir("/usr/lib")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let mut places = folders.map(|folder| folder.join("faketime/libfaketime.so.1"));
    places.find(|place| place.exists())
}
