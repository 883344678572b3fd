//! Lists of recordings that are endless, or not true.

use holdfast_protocol::limits::MAX_INVENTORY_PARTS;
use hostile::Outcome;

use super::Siege;
use crate::harness::{SOON, run, wait_for};

#[test]
fn flood_of_inventories_ends_at_its_bound() {
    let siege = Siege::new("inventory-flood", 5_000);
    let outcome = siege.hostile.outcome(SOON * 2);
    // Four inventories of a tunnel are taken.
    let bound = format!("{} of 5000 parts were taken", 4 * MAX_INVENTORY_PARTS);
    assert_eq!(outcome, Outcome::Refused(bound));
}

#[test]
fn recording_that_a_device_leaves_out_stays_lost() {
    let siege = Siege::new("inventory-omits", 1);
    run(siege.ssh().arg("anything")).ok();
    let outcome = siege.hostile.outcome(SOON * 2);
    let Outcome::Refused(why) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(why.contains("Tampered"), "{why}");
    let row = wait_for(SOON, "a verdict", || {
        let rows = siege.relay.json(&["recordings", "--json"]);
        let row = rows.as_array()?.first()?.clone();
        row["verified"].is_boolean().then_some(row)
    });
    assert_eq!(
        (&row["state"], &row["verified"]),
        (&"lost".into(), &false.into()),
        "{row}"
    );
    let reason = row["reason"].as_str().unwrap();
    assert!(reason.starts_with("the device no longer has it"), "{row}");
}
