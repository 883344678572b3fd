//! Uploads that are more than their session can have been.

use std::fs;
use std::path::Path;

use hostile::Outcome;

use super::fixture::Siege;
use crate::harness::{Device, Hostile, SOON, Way, wait_for};

/// Returns the bytes of all files in a folder and below it.
pub(super) fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .filter_map(|entry| {
            // A working file may have become an object meanwhile.
            let is = entry.metadata().ok()?;
            Some(if is.is_dir() {
                bytes_in(&entry.path())
            } else {
                is.len()
            })
        })
        .sum()
}

#[test]
fn an_upload_beyond_its_session_is_cut_and_others_are_judged() {
    let mut siege = Siege::new();
    let mut attic = Device::new("attic-cam").flags(&["--upload", "always"]);
    attic.join(&siege.relay.token(&[]), &[]).ok();
    attic.run_online(&siege.relay);
    let relay = &siege.relay;
    let hostile = Hostile::online(relay, "mallory", "upload-flood", 40);
    let of = |device: &str| {
        let rows = relay.json(&["recordings", "--device", device, "--json"]);
        let row = rows.as_array()?.first()?.clone();
        row["verified"].is_boolean().then_some(row)
    };
    let alice = &siege.alice;
    alice.exec(Way::Direct, hostile.name(), "true").ok();
    alice.exec(Way::Direct, "attic-cam", "echo hello").ok();
    let honest = wait_for(
        SOON * 2,
        "a verdict on the other device's recording",
        || of("attic-cam"),
    );
    assert_eq!(honest["state"], "complete", "{honest}");

    let outcome = hostile.outcome(SOON * 4);
    let Outcome::Refused(why) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(why.contains("Tampered"), "{why}");
    let row = wait_for(SOON, "a verdict on the flood", || of("mallory"));
    assert_eq!(row["state"], "tampered", "{row}");
    let reason = row["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("it is longer than the session can have been"),
        "{row}"
    );
    // The beginning of the excess is kept as evidence, and no more.
    let kept = row["bytes"].as_u64().unwrap();
    assert!((1 << 20..8 << 20).contains(&kept), "{row}");
    let on_disk = bytes_in(&relay.state().join("recordings"));
    assert!(on_disk < 8 << 20, "{on_disk}");
    let id = row["id"].as_str().unwrap();
    let said = relay.admin(&["recordings", "verify", id]).exits(5);
    assert!(said.out().contains("is tampered"), "{said}");
    siege.is_borne("uploads and checks");
}
