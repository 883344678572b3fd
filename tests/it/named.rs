//! A device is named by its identifier wherever its name is taken: in `ssh`, and in filters.

use crate::harness::{SOON, Site, Way, run_with_input, wait_until};

#[test]
fn a_device_is_reached_and_filtered_by_its_id() {
    let site = Site::new();
    let device = site.relay.device("kitchen-cam").unwrap();
    let id = device["id"].as_str().unwrap();
    for way in Way::BOTH {
        let said = site.alice.exec(way, id, "echo inside").ok();
        assert_eq!(said.out(), "inside\n", "{way:?}");
    }
    let mut session = site.start(Way::Direct, "echo started; cat");
    session.wait_out("started");
    for named in ["kitchen-cam", id] {
        let listed = || {
            let listed = ["sessions", "--device", named, "--json"];
            site.relay.json(&listed).as_array().unwrap().len()
        };
        wait_until(SOON, named, || listed() == 1);
        let audited = ["audit", "--device", named, "--event", "exec", "--json"];
        let audited = site.relay.admin(&audited).ok().out();
        assert_eq!(audited.lines().count(), 3, "{audited}");
    }
    site.relay.admin(&["wait", id, "--timeout", "5s"]).ok();
    session.end_input();
    session.wait(SOON).ok();
    // Where it may not be known of by its name, it is not by its id either.
    let role =
        "[roles.tech.allow]\nlabels = { site = 'berlin' }\nlogins = ['*']\nabilities = ['exec']\n";
    run_with_input(
        &mut site.relay.command(&["apply", "-f", "-"]),
        role.as_bytes(),
    )
    .ok();
    let bob = site.relay.user("bob", &["tech"]);
    for named in ["kitchen-cam", id, "absent"] {
        let refused = bob.exec(Way::Direct, named, "true").exits(255);
        refused.says(&format!("no device \"{named}\" that you may reach"));
    }
}
