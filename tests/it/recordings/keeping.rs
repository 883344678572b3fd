//! The relay keeps recordings for as long as it is configured to.

use serde_json::Value;

use super::{events, rows, site};
use crate::harness::{SOON, Site, Way, run, wait_until};

/// The ids of all recordings that are complete.
fn complete(site: &Site) -> Vec<String> {
    let rows = rows(&site.relay);
    let rows = rows.iter().filter(|row| row["state"] == "complete");
    rows.map(|row| row["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_is_old_goes_and_what_is_held_stays() {
    let mut site = site();
    site.exec(Way::Direct, "echo first").ok();
    wait_until(SOON, "a recording", || complete(&site).len() == 1);
    let held = complete(&site).remove(0);
    let on_console = |line: &str| run(site.alice.console().arg(line));
    on_console(&format!("recordings hold {held} --reason 'case 17'")).ok();
    site.exec(Way::Direct, "echo second").ok();
    wait_until(SOON, "another", || complete(&site).len() == 2);

    let again = on_console(&format!("recordings hold {held}")).exits(1);
    assert!(again.err().contains("is held since "), "{again}");
    let refused = site.relay.admin(&["recordings", "rm", &held]).exits(1);
    let wanted =
        format!(" by alice (case 17): release it first, with `relay recordings release {held}`");
    assert!(refused.err().trim_end().ends_with(&wanted), "{refused}");
    let shown = site.relay.json(&["recordings", "show", &held, "--json"]);
    assert_eq!(shown["hold"]["by"], "alice", "{shown}");
    assert_eq!(shown["hold"]["reason"], "case 17", "{shown}");
    let table = site.relay.admin(&["recordings"]).ok().out();
    assert_eq!(table.matches("held, verified").count(), 1, "{table}");

    let config = site.relay.folder().join("keep.toml");
    std::fs::write(&config, "[recordings]\nkeep = \"1ms\"\n").unwrap();
    site.relay
        .add_flags(&["--config", config.to_str().unwrap()]);
    site.relay.restart();
    wait_until(SOON, "the old one is gone", || rows(&site.relay).len() == 1);
    assert_eq!(complete(&site), [held.as_str()]);
    let removed = events(&site.relay, "recording.removed");
    assert_eq!(removed.last().unwrap()["reason"], "it is older than `keep`");

    let admin = |args: &[&str]| site.relay.admin(&[&["recordings"], args].concat());
    admin(&["release", &held]).ok();
    let shown = site.relay.json(&["recordings", "show", &held, "--json"]);
    assert_eq!(shown["hold"], Value::Null, "{shown}");
    admin(&["release", &held]).exits(1);
    admin(&["rm", &held]).ok();
    assert!(rows(&site.relay).is_empty());
    for event in ["recording.held", "recording.released"] {
        let rows = events(&site.relay, event);
        let done = rows.iter().filter(|row| row["outcome"] == "success");
        assert_eq!(done.count(), 1, "{rows:?}");
    }
}
