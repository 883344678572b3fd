//! The settings that the relays of a cluster have to have alike.

use std::fs;

use crate::harness::{Cluster, SOON};

#[test]
fn settings_that_differ_are_a_finding_of_doctor() {
    let Some(mut cluster) = Cluster::start(2) else {
        return;
    };
    let words = "the relays of the cluster have different settings";
    let doctor = |cluster: &Cluster| cluster.relays[0].admin(&["doctor"]).out();
    let said = doctor(&cluster);
    assert!(!said.contains(words), "{said}");
    let configuration = fs::read_to_string(cluster.bucket.configuration()).unwrap();
    let file = cluster.relays[1].folder().join("other.toml");
    fs::write(&file, format!("{configuration}keep = \"1d\"\n")).unwrap();
    let other = &mut cluster.relays[1];
    other.terminate(SOON);
    other.clear_flags();
    other.add_flags(&["--config", file.to_str().unwrap()]);
    other.start_again();
    let log = cluster.relays[1].log();
    assert!(log.contains(words), "{log}");
    let said = doctor(&cluster);
    let (first, second) = (cluster.name(0), cluster.name(1));
    let found = format!("{words}: `[recordings] keep` is forever on {first} and 1day on {second}");
    assert!(said.contains(&found), "{said}");
    cluster.relays[0].admin(&["doctor"]).exits(1);
    // One that has left has no say.
    cluster.relays[0].admin(&["cluster", "leave", &second]).ok();
    let said = doctor(&cluster);
    assert!(!said.contains(words), "{said}");
}
