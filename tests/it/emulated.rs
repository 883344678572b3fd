//! The agents for other processors do what the one for this machine does. `cargo xtask test --only cross`
//! builds them and runs these, of which each has its triple's name.

use std::fs;

use crate::clock::emulated_device_lives_at_any_date;
use crate::harness::{Emulated, SOON, Site, Terminal, Way, own_login, run, wait_for};

#[test]
#[ignore = "the stage `cross` builds the program"]
fn aarch64_unknown_linux_musl() {
    does_its_work("aarch64-unknown-linux-musl");
}

#[test]
#[ignore = "the stage `cross` builds the program"]
fn armv7_unknown_linux_musleabihf() {
    does_its_work("armv7-unknown-linux-musleabihf");
}

/// On an emulated ARM1176, which stops at any instruction of ARMv7.
#[test]
#[ignore = "the stage `cross` builds the program"]
fn arm_unknown_linux_musleabihf() {
    does_its_work("arm-unknown-linux-musleabihf");
}

#[test]
#[ignore = "the stage `cross` builds the program"]
fn riscv64gc_unknown_linux_musl() {
    does_its_work("riscv64gc-unknown-linux-musl");
}

/// With 32 bits, where the time of musl's older interface ends in 2038.
#[test]
#[ignore = "the stage `cross` builds the program"]
fn armv7_unknown_linux_musleabihf_at_any_date() {
    emulated_device_lives_at_any_date("armv7-unknown-linux-musleabihf");
}

#[test]
#[ignore = "the stage `cross` builds the program"]
fn arm_unknown_linux_musleabihf_at_any_date() {
    emulated_device_lives_at_any_date("arm-unknown-linux-musleabihf");
}

#[track_caller]
fn does_its_work(triple: &str) {
    let emulated = Emulated::of(triple);
    let device = emulated.device("board").flags(&["--upload", "always"]);
    let mut site = Site::with(device);
    assert_eq!(site.relay.device("board").unwrap()["target"], triple);

    let said = site.exec(Way::Direct, "uname -m; echo oops >&2; exit 7");
    let said = said.exits(7).says("oops");
    assert!(!said.out().trim().is_empty(), "{said}");

    let mut shell = Terminal::start(&site.ssh(Way::Jump), 91, 27);
    shell.send("stty size; exit 3\r");
    shell.expect("27 91");
    assert_eq!(shell.wait(SOON).code(), Some(3));

    let folder = tempfile::tempdir().unwrap();
    let [from, there, back] = ["from", "there", "back"].map(|name| folder.path().join(name));
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    fs::write(&from, &bytes).unwrap();
    let host = Way::Direct.destination(&own_login(), "board");
    let remote = format!("{host}:{}", there.display());
    run(site.alice.tool("scp").arg(&from).arg(&remote)).ok();
    run(site.alice.tool("scp").arg(&remote).arg(&back)).ok();
    assert_eq!(fs::read(&back).unwrap(), bytes);

    let complete = || {
        let rows = site
            .relay
            .json(&["recordings", "--json", "--state", "complete"]);
        Some(rows).filter(|rows| rows.as_array().unwrap().len() == 4)
    };
    let rows = wait_for(SOON, "four recordings that came whole", complete);
    for row in rows.as_array().unwrap() {
        assert_eq!(row["verified"], true, "{row}");
    }

    site.relay.restart();
    site.device.wait_online(&site.relay);
    site.exec(Way::Direct, "true").ok();
}
