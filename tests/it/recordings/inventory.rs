//! Recordings of which nothing is on the device any more: its agent knows that at its start, and so does the relay.

use std::fs;
use std::path::{Path, PathBuf};

use super::{events, hoarding_site, rows, segments, wait_state};
use crate::harness::{Device, SOON, Site, Way, run, wait_until};

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
    let gone = "the device no longer has it: its list of recordings lacks it";
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

/// The states of the recordings of this command.
#[track_caller]
fn states(site: &Site, command: &str) -> Vec<String> {
    let rows = rows(&site.relay).into_iter();
    let rows = rows.filter(|row| row["command"] == command);
    rows.map(|row| row["state"].as_str().unwrap().to_owned())
        .collect()
}

fn has_segment(spool: &Path) -> bool {
    let files = fs::read_dir(spool).into_iter().flatten().flatten();
    let mut names = files.map(|file| file.path());
    names.any(|name| name.extension().is_some_and(|end| end == "seg"))
}

/// A site whose device keeps its recordings in a folder outside its state folder.
#[track_caller]
fn site_with_disk() -> (Site, PathBuf) {
    let device = Device::new("kitchen-cam");
    let disk = device.folder().join("disk");
    let flags = ["--upload", "manual", "--spool", disk.to_str().unwrap()];
    (Site::with(device.flags(&flags)), disk)
}

/// The device joined with an agent that noted no folder, and its disk is not mounted when the next one starts.
#[test]
fn disk_that_is_not_mounted_says_nothing_of_what_waits_on_it() {
    let (mut site, disk) = site_with_disk();
    site.exec(Way::Direct, "echo waits").ok();
    wait_until(SOON, "a segment on the disk", || has_segment(&disk));
    site.device.stop();
    fs::remove_file(site.device.state().join("spool-adopted")).unwrap();
    let away = disk.with_extension("away");
    fs::rename(&disk, &away).unwrap();
    for start in 1..=2 {
        site.device.run_online(&site.relay);
        site.exec(Way::Direct, "echo later").ok();
        run(&mut site.device.command(&["upload"])).ok();
        // A list would have been taken before them.
        wait_until(SOON, "what was recorded later", || {
            states(&site, "echo later") == vec!["complete"; start]
        });
        assert_eq!(states(&site, "echo waits"), ["uploading"], "start {start}");
        site.device.stop();
    }
    fs::remove_dir_all(&disk).unwrap();
    fs::rename(&away, &disk).unwrap();
    site.device.run_online(&site.relay);
    run(&mut site.device.command(&["upload"])).ok();
    wait_until(SOON, "what has waited", || {
        states(&site, "echo waits") == ["complete"]
    });
}

/// A device that has just joined has had no other folder, and what is gone from its only one is lost.
#[test]
fn recording_that_is_removed_from_another_disk_is_lost_at_once() {
    let (mut site, disk) = site_with_disk();
    site.exec(Way::Direct, "echo removed").ok();
    wait_until(SOON, "a segment on the disk", || has_segment(&disk));
    wait_until(SOON, "its report", || {
        states(&site, "echo removed") == ["uploading"]
    });
    site.device.kill();
    for file in fs::read_dir(&disk).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|end| end == "seg") {
            fs::remove_file(path).unwrap();
        }
    }
    site.device.run_online(&site.relay);
    wait_state(&site.relay, "lost");
}
