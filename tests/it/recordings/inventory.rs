//! Recordings of which nothing is on the device any more: its agent knows that at its start, and so does the relay.

use std::fs;

use super::{events, hoarding_site, rows, segments, wait_state};
use crate::harness::{SOON, Way, run, wait_until};

#[test]
fn recording_that_is_removed_whole_is_lost_at_once() {
    let mut site = hoarding_site();
    site.exec(Way::Direct, "echo removed").ok();
    wait_until(SOON, "a segment on the device", || {
        segments(&site.device).len() == 1
    });
    let removed = segments(&site.device).remove(0);
    site.exec(Way::Direct, "echo kept").ok();
    wait_until(SOON, "both on the device, and reported", || {
        let reported = |row: &serde_json::Value| row["state"] == "uploading";
        segments(&site.device).len() == 2 && rows(&site.relay).iter().all(reported)
    });
    site.device.kill();
    fs::remove_file(&removed).unwrap();
    site.device.run_online(&site.relay);
    let row = wait_state(&site.relay, "lost");
    let id = row["id"].as_str().unwrap();
    let name = removed.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(id), "{name}: {row}");
    let reason = row["reason"].as_str().unwrap();
    let gone = "the device no longer has it: nothing of it was there at its agent's start";
    assert!(reason.starts_with(gone), "{reason}");
    wait_until(SOON, "its verdict", || {
        let said = site.relay.admin(&["recordings", "verify", id]);
        said.code() == 6 && said.out().contains("lost: the device no longer has it")
    });
    assert_eq!(events(&site.relay, "recording.lost").len(), 1);
    // The other one is listed, and comes whole.
    run(&mut site.device.command(&["upload"])).ok();
    let row = wait_state(&site.relay, "complete");
    assert_eq!(row["verified"], true, "{row}");
    assert_ne!(row["id"].as_str(), Some(id));
}

/// The agent is gone in the middle of a session, and its whole spool before it is back.
#[test]
fn spool_that_is_removed_under_a_session_is_lost_at_once() {
    let mut site = hoarding_site();
    let running = site.start(Way::Direct, "echo begun; exec sleep 600");
    running.wait_out("begun");
    wait_until(SOON, "a segment on the device", || {
        segments(&site.device).len() == 1
    });
    site.device.kill();
    fs::remove_dir_all(site.device.state().join("spool")).unwrap();
    site.device.run_online(&site.relay);
    wait_until(SOON, "its verdict, with what is not proved", || {
        let row = wait_state(&site.relay, "lost");
        let reason = row["reason"].as_str().unwrap();
        reason.starts_with("the device no longer has it")
            && reason.contains("6 bytes that the relay passed on are not proved")
    });
}

/// The agent is killed as soon as the first output is shown: what is left is the beginning, and nothing was removed.
#[test]
fn session_whose_agent_is_killed_at_once_is_cut_short() {
    let mut site = hoarding_site();
    let running = site.start(Way::Direct, "echo begun; exec sleep 600");
    running.wait_out("begun");
    site.device.kill();
    site.device.run_online(&site.relay);
    // The agent takes orders a moment after it is online.
    wait_until(SOON, "the order to upload is taken", || {
        run(&mut site.device.command(&["upload"])).code() == 0
    });
    let row = wait_state(&site.relay, "truncated");
    assert_ne!(row["verified"], true, "{row}");
}
