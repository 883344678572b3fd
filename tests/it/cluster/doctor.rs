//! The findings of `relay doctor` on a cluster and its bucket.

use rustix::process::Signal;

use crate::harness::bucket::SECRET;
use crate::harness::{Cluster, Output, Relay, SOON};

/// Returns the findings of one check.
fn found(doctor: &Output, check: &str) -> Vec<String> {
    let rows: serde_json::Value = serde_json::from_str(&doctor.out()).unwrap();
    let rows = rows.as_array().unwrap().iter();
    let of_check = rows.filter(|row| row["check"] == check);
    let text = |row: &serde_json::Value| {
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        format!("{}: {}: {}", text("level"), text("message"), text("remedy"))
    };
    of_check.map(text).collect()
}

#[track_caller]
fn doctor(relay: &Relay) -> Output {
    relay.admin(&["doctor", "--json"])
}

#[test]
fn doctor_sees_the_other_relays_and_the_bucket() {
    let Some(mut cluster) = Cluster::start(2) else {
        return;
    };
    let name = cluster.name(1);
    let well = doctor(&cluster.relays[0]).ok();
    assert_eq!(
        found(&well, "cluster"),
        ["ok: 2 relays, and each of them is reached: "]
    );
    assert_eq!(
        found(&well, "bucket"),
        ["ok: an object was written, read and removed: "]
    );
    assert_eq!(cluster.bucket.objects(), Vec::<String>::new());
    // Its heartbeats are fresh, and it does not answer.
    cluster.relays[1].signal(Signal::STOP);
    let silent = doctor(&cluster.relays[0]).exits(1);
    cluster.relays[1].signal(Signal::CONT);
    let said = found(&silent, "cluster").concat();
    let expected = format!("problem: {name} runs, and is not reached from here at ");
    assert!(said.starts_with(&expected), "{said}");
    cluster.relays[1].terminate(SOON);
    let stopped = found(&doctor(&cluster.relays[0]).ok(), "cluster").concat();
    assert!(
        stopped.starts_with(&format!("warning: {name} was stopped")),
        "{stopped}"
    );
    assert!(
        stopped.contains(&format!("relay cluster leave {name}")),
        "{stopped}"
    );
    // The bucket takes nothing from who has another secret.
    let credentials = cluster.bucket.credentials();
    let text = std::fs::read_to_string(&credentials).unwrap();
    std::fs::write(&credentials, text.replace(SECRET, "another")).unwrap();
    let without = found(&doctor(&cluster.relays[0]).exits(1), "bucket").concat();
    assert!(
        without.starts_with("problem: recordings cannot be kept, "),
        "{without}"
    );
    assert!(
        without.contains("cannot write an object to the bucket"),
        "{without}"
    );
}
