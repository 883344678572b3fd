//! The clients that people have, each at work against a running pair.

mod ansible;
mod libraries;
mod mosh;
mod openssh;
mod others;

use std::fs;
use std::process::Command;

use crate::harness::{Output, Site, User, Way, command, own_login, run};

const MIB: usize = 1024 * 1024;

/// The relay's host key as `known_hosts` has it, without the name before it.
#[track_caller]
fn host_key(user: &User) -> String {
    let known = fs::read_to_string(user.folder().join("known_hosts")).unwrap();
    let line = known.lines().find(|line| !line.starts_with('@')).unwrap();
    line.split_once(' ').unwrap().1.to_owned()
}

/// The user name that leads to the device on the direct way.
fn direct(site: &Site) -> String {
    format!("{}+{}", own_login(), site.device.name())
}

/// A program with a home of its own, where it may write what it likes.
fn at_home(user: &User, program: &str) -> Command {
    let mut tool = command(program);
    tool.env("HOME", user.folder()).current_dir(user.folder());
    tool
}

/// Bytes in an order that shows what is missing.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// Runs a script of ours with what it needs to know of the site.
#[track_caller]
fn script(site: &Site, interpreter: &str, name: &str, text: &str) -> Output {
    let path = site.alice.folder().join(name);
    fs::write(&path, text).unwrap();
    let mut script = at_home(&site.alice, interpreter);
    script
        .arg(&path)
        .env("HOST", site.relay.ssh().ip().to_string())
        .env("PORT", site.relay.ssh().port().to_string())
        .env("NAME", direct(site))
        .env("KEY", site.alice.key())
        .env("HOST_KEY", host_key(&site.alice))
        .env("FOLDER", site.device.folder());
    run(&mut script)
}

/// Returns whether Python has a module. Where it is missing, the reason to skip is printed; on CI, the test fails.
#[track_caller]
fn needs_module(module: &str) -> bool {
    let found = run(command("python3").args(["-c", &format!("import {module}")]));
    let found = found.code() == 0;
    assert!(
        found || std::env::var_os("CI").is_none(),
        "this test needs Python's {module} (`cargo xtask test` brings it), and CI skips nothing"
    );
    if !found {
        eprintln!("skipped: it needs Python's {module} (`cargo xtask test` brings it)");
    }
    found
}

/// A file of these bytes in the user's folder.
#[track_caller]
fn file(user: &User, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = user.folder().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// Returns how many logins there were.
#[track_caller]
fn logins(site: &Site) -> usize {
    let rows = site
        .relay
        .admin(&["audit", "--event", "user.login", "--all"]);
    rows.ok().out().matches("user.login").count()
}

/// Nothing is left of a client that is done.
#[track_caller]
fn is_quiet(site: &Site) {
    crate::harness::wait_until(crate::harness::SOON, "no session", || {
        site.relay.json(&["sessions", "--json"]) == serde_json::json!([])
    });
    site.exec(Way::Direct, "true").ok();
}
