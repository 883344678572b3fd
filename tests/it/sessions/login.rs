//! What makes a session a login session of the device.

use std::fs;

use crate::harness::{Accounts, Site, Way, run};

/// What the device gives all its sessions.
const ENVIRONMENT: &str = "# the site's proxy\nhttp_proxy=http://proxy.example:3128\nFIELD_QUOTED=\"two words\"\n\
     export SITE='berlin' # by van\nUSER=forged\nSSH_CONNECTION=forged\n";

fn accounts() -> Accounts {
    Accounts::new().add("hf-pi", 4001, "/bin/sh", "*")
}

#[track_caller]
fn exec(site: &Site, way: Way, line: &str) -> String {
    let mut ssh = site.alice.ssh(way, "hf-pi", site.device.name());
    run(ssh.arg(line)).ok().out().to_owned()
}

#[test]
fn the_devices_variables_are_in_every_session() {
    if !Accounts::are_possible() || !fs::exists("/etc/environment").unwrap() {
        eprintln!("skipped: it needs a place to mount /etc/environment over");
        return;
    }
    let site = Site::with(accounts().environment(ENVIRONMENT).device("kitchen-cam"));
    for way in Way::BOTH {
        let shown = exec(&site, way, "echo \"$http_proxy,$FIELD_QUOTED,$SITE,$USER\"");
        let wanted = "http://proxy.example:3128,two words,berlin,hf-pi\n";
        assert_eq!(shown, wanted, "{way:?}");
        assert!(!exec(&site, way, "echo $SSH_CONNECTION").contains("forged"));
    }
}

#[test]
fn audit_knows_who_logged_in() {
    let unset = u32::MAX.to_string();
    let own = fs::read_to_string("/proc/self/loginuid").unwrap_or_default();
    if !Accounts::are_possible() || own.trim_end() != unset {
        eprintln!("skipped: it needs a kernel with audit, and a login session is one already");
        return;
    }
    let site = Site::with(accounts().device("kitchen-cam"));
    for way in Way::BOTH {
        let shown = exec(&site, way, "cat /proc/self/loginuid");
        assert_eq!(shown, "4001", "{way:?}");
    }
}
