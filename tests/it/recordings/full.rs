//! A device with no room for more recordings.

use super::segments;
use crate::harness::{Device, SOON, Site, Way, run_with_input, wait_until};

const STRICT: &str = "[roles.strict]\nrecording = 'strict'\n[roles.strict.allow]\nlabels = { '*' = '*' }\nlogins = ['*']\nabilities = ['exec']\n";

#[test]
fn under_strict_a_full_spool_ends_sessions_and_refuses_new_ones() {
    let device = Device::new("kitchen-cam").flags(&["--upload", "manual", "--spool-max", "2MiB"]);
    let site = Site::with(device);
    run_with_input(
        &mut site.relay.command(&["apply", "-f", "-"]),
        STRICT.as_bytes(),
    )
    .ok();
    let bob = site.relay.user("bob", &["strict"]);
    bob.exec(Way::Direct, "kitchen-cam", "echo room").ok();

    // More than there is room for, and nothing of it can be made smaller.
    let live = bob.exec(Way::Direct, "kitchen-cam", "cat /dev/urandom");
    assert_ne!(live.code(), 0, "{live}");
    let text = "recording unavailable on kitchen-cam: spool full (";
    let said = live.err();
    let (_, rest) = said.split_once(text).unwrap_or_else(|| panic!("{said}"));
    assert!(
        rest.contains(" of 2.0 MiB, oldest waiting since 2"),
        "{said}"
    );
    let waiting: u64 = segments(&site.device)
        .iter()
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert!(waiting <= 2 << 20, "{waiting}");
    // What was shown is what is recorded: never a byte more.
    assert!(live.stdout.len() as u64 <= waiting, "{}", live.stdout.len());

    // What is left of it are the ends that live sessions have a claim on: short ones use that up.
    let refused = (0..100).find_map(|_| {
        let said = bob.exec(Way::Direct, "kitchen-cam", "head -c 30000 /dev/urandom");
        (said.code() != 0 && said.stdout.is_empty()).then_some(said)
    });
    let refused = refused.expect("a session that does not begin");
    let said = refused.err();
    assert!(
        said.contains(text) && said.contains(" of 2.0 MiB, oldest waiting since 2"),
        "{refused}"
    );

    // Others are not recorded strictly; and room made is room for all.
    site.exec(Way::Direct, "echo best effort").ok();
    crate::harness::run(&mut site.device.command(&["upload"])).ok();
    wait_until(SOON, "room", || {
        bob.exec(Way::Direct, "kitchen-cam", "echo room").code() == 0
    });
}
