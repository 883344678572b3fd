//! Recordings, from the keystroke to the verdict: real agents, the real `ssh`.

mod bucket;
mod commands;
mod content;
mod evidence;
mod figures;
mod full;
mod hostile;
mod inventory;
mod keeping;
mod room;
mod search;
mod shares;
mod transfers;
mod unrecorded;

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::harness::{Device, Relay, SOON, Site, Terminal, User, Way, run, wait_for, wait_until};

/// A site whose device uploads at once.
fn site() -> Site {
    Site::with(Device::new("kitchen-cam").flags(&["--upload", "always"]))
}

/// A site whose device keeps what it records until it is started anew.
fn hoarding_site() -> Site {
    Site::with(Device::new("kitchen-cam").flags(&["--upload", "manual"]))
}

#[track_caller]
fn rows(relay: &Relay) -> Vec<Value> {
    let Value::Array(rows) = relay.json(&["recordings", "--json"]) else {
        panic!("`recordings --json` is no list")
    };
    rows
}

/// The row of the one recording, when it has come to that state.
#[track_caller]
fn wait_state(relay: &Relay, state: &str) -> Value {
    wait_for(SOON, &format!("a recording that is {state}"), || {
        let found = relay.json(&["recordings", "--state", state, "--json"]);
        found.as_array().unwrap().first().cloned()
    })
}

/// Returns what `export --format json` tells.
#[track_caller]
fn exported(relay: &Relay, id: &str) -> Vec<Value> {
    let out = relay.export(id, "json");
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The bytes of a stream in that.
fn stream(records: &[Value], name: &str) -> Vec<u8> {
    let data = records
        .iter()
        .filter(|record| record["event"] == "data" && record["stream"] == name);
    data.flat_map(|record| {
        BASE64_STANDARD
            .decode(record["data"].as_str().unwrap())
            .unwrap()
    })
    .collect()
}

#[track_caller]
fn events(relay: &Relay, event: &str) -> Vec<Value> {
    let out = relay.admin(&["audit", "--json", "--limit", "0", "--event", event]);
    let out = out.ok().out();
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The segments that wait on the device.
fn segments(device: &Device) -> Vec<PathBuf> {
    let Ok(files) = fs::read_dir(device.state().join("spool")) else {
        return vec![];
    };
    let files = files.map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> = files
        .filter(|file| file.extension().is_some_and(|end| end == "seg"))
        .collect();
    files.sort();
    files
}

#[test]
fn a_command_is_recorded_uploaded_checked_and_shown() {
    let site = site();
    let line = "printf 'out \\001\\377'; printf err >&2; read x; echo \"$x\"; exit 7";
    let said = crate::harness::run_with_input(site.ssh(Way::Direct).arg(line), b"typed\n");
    assert_eq!(said.code(), 7, "{said}");

    let row = wait_state(&site.relay, "complete");
    assert_eq!(row["verified"], true, "{row}");
    assert_eq!(
        (&row["user"], &row["device"], &row["kind"], &row["command"]),
        (
            &"alice".into(),
            &"kitchen-cam".into(),
            &"exec".into(),
            &line.into()
        )
    );
    assert!(
        row["bytes"].as_u64().unwrap() > 100 && row["reason"].is_null(),
        "{row}"
    );
    let id = row["id"].as_str().unwrap();
    assert_eq!(row["session"], id);

    let records = exported(&site.relay, id);
    assert_eq!(records[0]["event"], "start");
    assert_eq!(records[0]["command"], line);
    assert_eq!(records.last().unwrap()["event"], "end");
    assert_eq!(stream(&records, "stdout"), said.stdout);
    assert_eq!(stream(&records, "stderr"), b"err");
    assert_eq!(stream(&records, "stdin"), b"typed\n");
    let exit = records.iter().find(|record| record["event"] == "exit");
    assert_eq!(exit.unwrap()["status"], 7);
    let times: Vec<f64> = records
        .iter()
        .map(|record| record["time"].as_f64().unwrap())
        .collect();
    assert!(times.is_sorted(), "{times:?}");

    let raw = |args: &[&str]| {
        let args = [&["export", id, "--format", "raw"], args].concat();
        site.relay.admin(&args).ok().stdout
    };
    assert_eq!(raw(&[]), said.stdout);
    assert_eq!(raw(&["--stream", "stderr"]), b"err");
    let text = site.relay.export(id, "txt");
    assert!(
        text.contains("out \\u{1}") && text.contains("typed"),
        "{text:?}"
    );
    let said = site
        .relay
        .admin(&["recordings", "verify", &id[..8]])
        .ok()
        .out();
    assert!(said.contains("complete and verified"), "{said}");
    let card = site.relay.admin(&["recordings", "show", id]).ok().out();
    assert!(
        card.contains("verified, signed by the cluster key"),
        "{card}"
    );
    let found = site
        .relay
        .admin(&["recordings", "grep", "typed"])
        .ok()
        .out();
    assert!(
        found.starts_with(&id[..10]) && found.trim_end().ends_with("typed"),
        "{found}"
    );

    // What the relay has is not on the device any more.
    wait_until(SOON, "the spool is empty", || {
        segments(&site.device).is_empty()
    });
    let rows = events(&site.relay, "recording.complete");
    assert_eq!((rows.len(), &rows[0]["session"]), (1, &id.into()));
    let looks = events(&site.relay, "recording.played");
    let hows: Vec<&str> = looks.iter().filter_map(|row| row["how"].as_str()).collect();
    for how in ["export", "verify", "show", "grep"] {
        assert!(hows.contains(&how), "{hows:?}");
    }
    let start = &events(&site.relay, "session.start")[0];
    assert_eq!(start["recording"], "best-effort", "{start}");
}

#[test]
fn a_shell_is_recorded_and_played_and_its_passwords_are_not() {
    let site = site();
    let mut shell = site.shell(Way::Jump);
    shell.send("PS1='$ '; printf '\\033]0;evil\\007'; echo sh''own\r");
    shell.expect("shown");
    shell.send("stty -echo; echo rea''dy\r");
    shell.expect("ready");
    shell.send("read -p 'pass''word: ' secret\r");
    shell.expect("password: ");
    shell.send("hunter2\r");
    shell.expect("$ ");
    shell.send("stty echo; echo do''ne; exit\r");
    shell.expect("done");
    shell.wait(SOON);

    let row = wait_state(&site.relay, "complete");
    assert_eq!(
        (&row["verified"], &row["kind"]),
        (&true.into(), &"shell".into()),
        "{row}"
    );
    let id = row["id"].as_str().unwrap();
    let records = exported(&site.relay, id);
    let typed = String::from_utf8(stream(&records, "stdin")).unwrap();
    assert!(!typed.contains("hunter2"), "{typed:?}");
    let redacted = records
        .iter()
        .filter(|record| record["event"] == "redacted");
    assert!(redacted.count() > 0);
    let shown = String::from_utf8_lossy(&stream(&records, "stdout")).into_owned();
    assert!(
        shown.contains("shown") && shown.contains("\u{1b}]0;evil"),
        "{shown:?}"
    );

    let cast = site.relay.export(id, "asciicast");
    let mut lines = cast
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let header = lines.next().unwrap();
    assert_eq!(
        (
            &header["version"],
            &header["term"]["cols"],
            &header["term"]["rows"]
        ),
        (&3.into(), &80.into(), &24.into())
    );
    let rows: Vec<Value> = lines.collect();
    assert!(
        rows.iter()
            .all(|event| event[0].as_f64().is_some_and(|wait| wait >= 0.0))
    );
    assert_eq!(rows.last().unwrap()[1], "x");

    // Over the console, on a terminal: characters arrive, and no sequence of the recording.
    let mut on_terminal = site.alice.tool("ssh");
    on_terminal.args([
        "-t",
        "relay",
        &format!("play {id} --speed 100 --idle-limit 1ms"),
    ]);
    let mut viewer = Terminal::start(&on_terminal, 80, 24);
    viewer.expect("done");
    assert!(viewer.wait(SOON).success());
    let seen = viewer.shown();
    assert!(
        seen.contains("shown") && !seen.contains("\u{1b}]"),
        "{seen:?}"
    );
    assert!(seen.contains("\u{1b}[?1049l"), "{seen:?}");
    let looks = events(&site.relay, "recording.played");
    assert!(
        looks
            .iter()
            .any(|row| row["how"] == "play" && row["user"] == "alice")
    );
}

#[test]
fn who_may_not_review_sees_their_own_alone() {
    let site = site();
    let bob = site.relay.user("bob", &["operator"]);
    bob.exec(Way::Direct, "kitchen-cam", "echo bobs").ok();
    site.exec(Way::Direct, "echo alices").ok();
    wait_until(SOON, "two recordings", || {
        rows(&site.relay)
            .iter()
            .filter(|row| row["state"] == "complete")
            .count()
            == 2
    });
    let all = rows(&site.relay);
    let of = |name: &str| {
        let row = all.iter().find(|row| row["user"] == name).unwrap();
        row["id"].as_str().unwrap().to_owned()
    };
    let listed = run(bob.console().arg("recordings")).ok().out();
    assert!(
        listed.contains(&of("bob")[..10]) && !listed.contains(&of("alice")[..10]),
        "{listed}"
    );
    run(bob
        .console()
        .arg(format!("export {} --format raw", of("bob"))))
    .ok();
    let refused = run(bob
        .console()
        .arg(format!("export {} --format raw", of("alice"))));
    assert!(
        refused.code() == 1 && refused.err().contains("no recording"),
        "{refused}"
    );
    let refused = run(bob.console().arg(format!("recordings rm {}", of("bob"))));
    assert!(
        refused.err().contains("needs the ability admin"),
        "{refused}"
    );
    run(site
        .alice
        .console()
        .arg(format!("recordings rm {}", of("bob"))))
    .ok();
    assert_eq!(rows(&site.relay).len(), 1);
    assert_eq!(
        events(&site.relay, "recording.removed")
            .iter()
            .filter(|row| row["outcome"] == "success")
            .count(),
        1
    );
    assert!(
        !site
            .relay
            .state()
            .join("recordings")
            .join(of("bob"))
            .exists()
    );
}

/// A recording belongs to a person, not to a name that the next one is given.
#[test]
fn name_that_is_given_again_owns_nothing() {
    let site = site();
    let carol = site.relay.user("carol", &["operator"]);
    carol.exec(Way::Direct, "kitchen-cam", "echo carols").ok();
    let row = wait_state(&site.relay, "complete");
    let id = row["id"].as_str().unwrap();
    let own = |user: &User| run(user.console().arg("recordings --json")).ok().out();
    assert!(own(&carol).contains(id));
    site.relay.admin(&["user", "rm", "carol"]).ok();
    // Their own files are in a folder by that name.
    fs::rename(carol.folder(), carol.folder().with_extension("before")).unwrap();
    let next = site.relay.user("carol", &["operator"]);
    assert!(!own(&next).contains(id), "{}", own(&next));
    for command in ["recordings show", "export --format raw"] {
        let refused = run(next.console().arg(format!("{command} {id}")));
        assert_eq!(refused.code(), 1, "{refused}");
        refused.says("no recording");
    }
    next.exec(Way::Direct, "kitchen-cam", "echo others").ok();
    let theirs = wait_for(SOON, "the next one's own", || {
        let listed: Value = serde_json::from_str(&own(&next)).unwrap();
        listed.as_array().unwrap().first().cloned()
    });
    assert_eq!(theirs["command"], "echo others");
    // Who may see all of them sees both, by the name that each had.
    let all = site
        .relay
        .json(&["recordings", "--user", "carol", "--json"]);
    assert_eq!(all.as_array().unwrap().len(), 2);
}

#[test]
fn what_root_changes_on_the_device_is_named() {
    let mut site = hoarding_site();
    site.exec(Way::Direct, "seq 1 20000").ok();
    wait_until(SOON, "a segment on the device", || {
        !segments(&site.device).is_empty()
    });
    site.device.stop();
    let files = segments(&site.device);
    let [file] = files.as_slice() else {
        panic!("{files:?}")
    };
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
    site.device.run_online(&site.relay);
    run(&mut site.device.command(&["upload"])).ok();
    let row = wait_state(&site.relay, "tampered");
    let reason = row["reason"].as_str().unwrap();
    assert!(reason.contains("segment 0"), "{reason}");
    let id = row["id"].as_str().unwrap();
    let said = site.relay.admin(&["recordings", "verify", id]).exits(5);
    assert!(said.out().contains("is tampered: segment 0"), "{said}");
    assert_eq!(events(&site.relay, "recording.tampered").len(), 1);
}

/// The agent finds at its start what is missing: nothing has to be uploaded for the verdict.
#[test]
fn a_segment_removed_on_the_device_is_named_at_its_start() {
    let removed = |segment: usize| {
        let mut site = hoarding_site();
        site.exec(Way::Direct, "head -c 3500000 /dev/urandom").ok();
        wait_until(SOON, "several segments on the device", || {
            segments(&site.device).len() > 2
        });
        site.device.stop();
        let files = segments(&site.device);
        fs::remove_file(&files[segment]).unwrap();
        site.device.run_online(&site.relay);
        let row = wait_state(&site.relay, "tampered");
        let reason = row["reason"].as_str().unwrap();
        let named = format!("segment {segment} is missing");
        assert!(reason.starts_with(&named), "{reason}");
        (site, row)
    };
    removed(0);
    let (site, row) = removed(1);
    let id = row["id"].as_str().unwrap();
    let said = site.relay.admin(&["recordings", "verify", id]).exits(5);
    let named = "is tampered: segment 1 is missing";
    assert!(said.out().contains(named), "{said}");
    // What is whole before it is evidence, and is taken.
    run(&mut site.device.command(&["upload"])).ok();
    wait_until(SOON, "the segment before it at the relay", || {
        rows(&site.relay)[0]["bytes"].as_u64() > Some(500_000)
    });
    assert_eq!(events(&site.relay, "recording.tampered").len(), 1);
}

#[test]
fn a_relay_that_is_killed_in_the_upload_goes_on_with_it() {
    let mut site = Site::with(Device::new("kitchen-cam").flags(&[
        "--upload",
        "always",
        "--upload-rate",
        "200KiB",
    ]));
    let line = "head -c 1500000 /dev/urandom";
    let said = site.exec(Way::Direct, line).ok();
    let recordings = site.relay.state().join("recordings");
    let received = || {
        let folders = fs::read_dir(&recordings).unwrap();
        let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
        files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum::<u64>()
    };
    wait_until(SOON, "a part of it", || received() > 200_000);
    site.relay.kill();
    assert!(received() < 1_500_000);
    site.relay.start_again();
    site.device.wait_online(&site.relay);
    let row = wait_state(&site.relay, "complete");
    assert_eq!(row["verified"], true, "{row}");
    let id = row["id"].as_str().unwrap();
    let raw = site.relay.admin(&["export", id, "--format", "raw"]).ok();
    assert_eq!(raw.stdout, said.stdout);
}

#[test]
fn a_device_whose_agent_is_killed_leaves_what_it_had_saved() {
    let mut site = site();
    let line = "while :; do echo begun; sleep 0.2; done";
    let running = site.start(Way::Direct, line);
    running.wait_out("begun");
    wait_until(SOON, "something of it at the relay", || {
        rows(&site.relay)
            .iter()
            .any(|row| row["state"] == "recording")
            && segments(&site.device)
                .iter()
                .any(|file| file.metadata().unwrap().len() > 0)
    });
    // The beginning is written at once, and data in batches after two seconds at the latest.
    let written = || segments(&site.device)[0].metadata().unwrap().len();
    let first = written();
    wait_until(SOON, "a further block", || written() > first);
    site.device.kill();
    site.device.run();
    let row = wait_state(&site.relay, "truncated");
    assert!(
        row["reason"]
            .as_str()
            .unwrap()
            .starts_with("it stops without an end: its agent was killed"),
        "the device was not started anew: {row}"
    );
    let id = row["id"].as_str().unwrap();
    let said = site.relay.admin(&["recordings", "verify", id]).exits(4);
    assert!(said.out().contains("truncated"), "{said}");
    let records = exported(&site.relay, row["id"].as_str().unwrap());
    let kept = stream(&records, "stdout");
    assert!(!kept.is_empty() && kept.chunks(6).all(|line| line == b"begun\n"));
    running.signal(rustix::process::Signal::KILL);
    assert_eq!(events(&site.relay, "recording.truncated").len(), 1);
}
