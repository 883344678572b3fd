//! Clients that are libraries, each by a script of its own, which says `done` if all was as it should be.

use super::{is_quiet, needs_module, script};
use crate::harness::{Output, Site, command, needs_program, run};

#[track_caller]
fn is_done(output: Output) {
    assert_eq!(output.out(), "done\n", "{output}");
    output.ok();
}

#[track_caller]
fn python(module: &str, text: &str) {
    if !needs_module(module) {
        return;
    }
    let site = Site::new();
    is_done(script(&site, "python3", "client.py", text));
    is_quiet(&site);
}

#[test]
fn paramiko_works() {
    python("paramiko", include_str!("paramiko.py"));
}

/// paramiko never asks without a key: inside a jump it proves one that the connection around it has proved already.
#[test]
fn paramiko_jumps_by_its_own_key_and_no_other() {
    if !needs_module("paramiko") {
        return;
    }
    let site = Site::new();
    let bob = site.relay.user("bob", &["admin"]);
    std::fs::copy(bob.key(), site.alice.folder().join("other")).unwrap();
    is_done(script(
        &site,
        "python3",
        "client.py",
        include_str!("paramiko_jump.py"),
    ));
    is_quiet(&site);
    let failed = ["audit", "--event", "user.login.failed", "--json"];
    let failed = site.relay.admin(&failed).ok().out();
    assert!(
        failed.contains("the key is of user \\\"bob\\\""),
        "{failed}"
    );
}

#[test]
fn asyncssh_works() {
    python("asyncssh", include_str!("asyncssh.py"));
}

#[test]
fn libssh2_works() {
    python("ssh2", include_str!("libssh2.py"));
}

/// Many channels of every kind at a time on one connection, and one that is open as long as it is.
#[test]
fn what_an_editor_does_all_day_works() {
    let as_editor = "import os; os.environ['WHAT'] = 'editor'\n";
    let text = [as_editor, include_str!("asyncssh.py")].concat();
    python("asyncssh", &text);
}

#[test]
fn nodes_ssh2_works() {
    let modules = std::env::var_os("HOLDFAST_NODE_MODULES");
    if modules.is_none() {
        let message = "it needs ssh2 from npm (`cargo xtask test` brings it)";
        assert!(
            std::env::var_os("CI").is_none(),
            "{message}, and CI skips nothing"
        );
        eprintln!("skipped: {message}");
        return;
    }
    if !needs_program("node", "nodejs") {
        return;
    }
    let site = Site::new();
    // The script is where it finds the module.
    let link = site.alice.folder().join("node_modules");
    std::os::unix::fs::symlink(modules.unwrap_or_default(), link).unwrap();
    assert_eq!(run(command("node").arg("--version")).code(), 0);
    is_done(script(&site, "node", "client.js", include_str!("ssh2.js")));
    is_quiet(&site);
}
