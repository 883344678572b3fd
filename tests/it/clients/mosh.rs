//! mosh needs direct UDP to its server, which no NAT lets through.

use super::{at_home, direct, is_quiet};
use crate::harness::{Site, Way, needs_program, run};

const WHY: &str = "mosh needs direct UDP to kitchen-cam, which is behind NAT: use `ssh`, whose sessions outlive a device's change of network";

#[test]
fn mosh_is_refused_with_a_reason() {
    let site = Site::new();
    for way in Way::BOTH {
        for line in [
            "mosh-server 'new' '-c' '256' '-s' '-l' 'LANG=C.UTF-8'",
            "/usr/bin/mosh-server new",
        ] {
            let refused = site.exec(way, line).exits(255);
            assert_eq!(refused.err().trim_end(), format!("[holdfast] {WHY}"));
        }
        // What only sounds like it is the device's own business.
        site.exec(way, "mosh-server --version >/dev/null 2>&1; true")
            .ok();
        site.exec(way, "echo mosh-server new").ok();
    }
    if !needs_program("mosh", "mosh") {
        return;
    }
    let mut mosh = at_home(&site.alice, "mosh");
    let (config, relay) = (site.alice.config(), site.relay.ssh());
    let ssh = format!("ssh -F {} -p {}", config.display(), relay.port());
    mosh.args(["--experimental-remote-ip=local", "--ssh", &ssh]);
    mosh.env("TERM", "xterm");
    mosh.arg(format!("{}@{}", direct(&site), relay.ip()));
    let refused = run(&mut mosh);
    assert_ne!(refused.code(), 0);
    let said = refused.out() + &refused.err();
    assert!(said.contains(WHY), "{said}");
    is_quiet(&site);
}
