//! Recorded output that the operator was not shown is marked as such.

use std::fs;

use serde_json::Value;

use super::{exported, hoarding_site, segments, site, wait_state};
use crate::harness::{SOON, Way, run, wait_for, wait_until};

#[test]
fn output_behind_a_kill_is_marked_wherever_it_is_shown() {
    let site = site();
    let running = site.start(Way::Direct, "yes a-line");
    running.wait_out("a-line");
    // The client takes no more, so what the device still sends is recorded and waits at the relay.
    running.signal(rustix::process::Signal::STOP);
    let session = || {
        let sessions = site.relay.json(&["sessions", "--json"]);
        sessions.as_array().unwrap().first().cloned().unwrap()
    };
    // On a loaded machine two looks may fall into one pause of the client, of the relay or of the device.
    let (mut before, mut same) = (None, 0);
    wait_until(SOON, "nothing moves any more", || {
        let moved = session()["bytes_out"].as_u64();
        let is_same = std::mem::replace(&mut before, moved) == moved && moved > Some(0);
        same = if is_same { same + 1 } else { 0 };
        same == 8
    });
    let id = session()["id"].as_str().unwrap().to_owned();
    site.relay.admin(&["sessions", "kill", &id]).ok();
    running.signal(rustix::process::Signal::KILL);
    let row = wait_for(SOON, "its verdict", || {
        let rows = site.relay.json(&["recordings", "--json"]);
        let row = rows.as_array().unwrap().first().cloned()?;
        row["verified"].is_boolean().then_some(row)
    });
    assert_eq!(
        (row["state"].as_str(), &row["verified"]),
        (Some("complete"), &false.into()),
        "{row}"
    );
    let said = site.relay.admin(&["recordings", "verify", &id]).exits(3);
    let mark = "not shown to the operator";
    assert!(said.out().contains(mark), "{said}");
    let card = site.relay.admin(&["recordings", "show", &id]).ok().out();
    assert!(card.contains(mark), "{card}");

    let records = exported(&site.relay, &id);
    let data: Vec<_> = records
        .iter()
        .filter(|record| record["event"] == "data" && record["stream"] == "stdout")
        .collect();
    let shown = data.iter().take_while(|record| record["mark"].is_null());
    let shown = shown.count();
    assert!(shown > 0 && shown < data.len(), "{shown} of {}", data.len());
    assert!(data[shown..].iter().all(|record| record["mark"] == mark));
    let text = site.relay.export(&id, "txt");
    let marked = format!("[{mark}] a-line");
    assert!(text.starts_with("a-line\n") && text.contains(&marked));
    let cast = site.relay.export(&id, "asciicast");
    assert!(cast.contains(&format!("\"m\", \"{mark}\"")) && cast.contains(&marked));
    let found = ["recordings", "grep", mark];
    let found = site.relay.admin(&found).ok().out();
    assert!(found.contains(&marked), "{found:.300}");
    let raw = ["export", &id, "--format", "raw"];
    let raw = site.relay.admin(&raw).exits(1);
    assert!(raw.err().contains(mark), "{:.300}", raw.err());
}

#[test]
fn recording_that_still_comes_in_is_shown_as_not_proved() {
    let site = site();
    // More than a segment, of which the first is whole while the session runs.
    let line =
        "echo begun; head -c 1500000 /dev/urandom | base64 -w 60; echo -end-; exec sleep 600";
    let running = site.start(Way::Direct, line);
    running.wait_out("-end-");
    let rows = site.relay.json(&["recordings", "--json"]);
    let id = rows[0]["id"].as_str().unwrap().to_owned();
    let export = |format: &str| {
        let said = ["export", &id, "--format", format];
        let said = site.relay.admin(&said).exits(1);
        assert!(said.err().contains("and more of it may follow"));
        said.out()
    };
    wait_until(SOON, "the first segment", || {
        let said = ["export", &id, "--format", "raw"];
        site.relay.admin(&said).out().starts_with("begun\n")
    });
    let first = "this recording is still coming in: before its verdict nothing of it is proved";
    let text = export("txt");
    let said = format!("[{first}]\nbegun\n");
    assert!(text.starts_with(&said), "{text:.300}");
    let json = export("json");
    let line: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(line["event"], "unproved", "{json:.300}");
    let cast = export("asciicast");
    let mark = cast.lines().nth(1).unwrap();
    assert!(
        mark.contains("\"m\"") && mark.contains(first),
        "{cast:.300}"
    );
    let played = site.relay.admin(&["play", &id, "--idle-limit", "1ms"]);
    assert!(played.out().contains(first));
    let found = site.relay.admin(&["recordings", "grep", "begun"]).ok();
    assert!(found.out().contains(first), "{found}");
    let found = ["recordings", "grep", "begun", "--json"];
    let found = site.relay.admin(&found).ok().out();
    let hit: Value = serde_json::from_str(found.lines().next().unwrap()).unwrap();
    assert!(hit["unproved"].is_string() && hit["tampered"].is_null());
    site.relay.admin(&["sessions", "kill", &id]).ok();
    let row = wait_state(&site.relay, "complete");
    assert_eq!(row["verified"], true, "{row}");
    assert!(site.relay.export(&id, "txt").starts_with("begun\n"));
}

#[test]
fn what_is_behind_a_damaged_block_is_shown_with_its_mark() {
    let mut site = hoarding_site();
    let said = site.exec(Way::Direct, "head -c 400000 /dev/urandom | base64 -w 60");
    let said = said.ok().out();
    let lines: Vec<&str> = said.lines().collect();
    let last = lines[lines.len() - 2];
    wait_until(SOON, "a segment on the device", || {
        !segments(&site.device).is_empty()
    });
    site.device.stop();
    let file = segments(&site.device).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
    site.device.run_online(&site.relay);
    run(&mut site.device.command(&["upload"])).ok();
    let row = wait_state(&site.relay, "tampered");
    let id = row["id"].as_str().unwrap();
    let reason = row["reason"].as_str().unwrap();
    let block = reason.strip_prefix("segment 0, block ").unwrap();
    let (block, _) = block.split_once(':').unwrap();

    let export = |format: &str| {
        let said = site.relay.admin(&["export", id, "--format", format]);
        assert_ne!(said.code(), 0, "{said:.300}");
        said
    };
    let json = export("json").out();
    let events: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let is_damage = |event: &Value| event["event"] == "damage";
    let at = events.iter().position(is_damage).unwrap();
    let (before, behind) = events.split_at(at);
    let number: u64 = block.parse().unwrap();
    assert_eq!(
        (behind[0]["segment"].as_u64(), behind[0]["block"].as_u64()),
        (Some(0), Some(number)),
        "{reason}"
    );
    let is_data = |event: &&Value| event["event"] == "data" && event["stream"] == "stdout";
    assert!(before.iter().filter(is_data).count() > 0);
    let behind: Vec<&Value> = behind.iter().filter(is_data).collect();
    assert!(!behind.is_empty() && behind.iter().all(|event| event["mark"] == "not proved"));

    let gap = format!("[gap: segment 0, block {block} is damaged; what follows is not proved]");
    let marked = format!("[not proved] {last}");
    for format in ["txt", "asciicast"] {
        let text = export(format).out();
        let (before, behind) = text.split_once(&gap).expect("a line in its place");
        assert!(before.contains(lines[1]) && !before.contains(&marked));
        assert!(behind.contains(&marked), "{format}");
    }
    let raw = export("raw");
    assert!(said.starts_with(&raw.out()) && !raw.out().is_empty());
    // It ends where the first mark would be, which may be before the damaged block.
    let ends = "`--format json` exports";
    assert!(raw.err().contains(ends), "{:.300}", raw.err());
    let played = site.relay.admin(&["play", id, "--speed", "1000"]).out();
    let (_, behind) = played.split_once(&gap).expect("a line in its place");
    assert!(behind.contains(&marked), "played");
    // A search is of the rest alone, and says so. The relay's own line is no hit.
    let grep = |pattern: &str| site.relay.admin(&["recordings", "grep", pattern]).exits(2);
    let found = grep(last);
    let lacks = format!(
        "could not be read whole, the newest of them {id}: segment 0, block {block} is damaged"
    );
    assert!(found.err().contains(&lacks), "{found:.300}");
    let found = found.out();
    assert!(
        found.contains(&marked) && found.contains(&gap),
        "{found:.300}"
    );
    for pattern in ["is damaged", "no such text"] {
        let found = grep(pattern);
        assert_eq!(found.out(), "", "{pattern}");
        assert!(found.err().contains(&lacks), "{found:.300}");
    }
}
