//! Sftp restricted to what a role says, with the real `sftp`, on both ways in.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::Value;

use crate::harness::{
    Device, Output, Relay, Running, SOON, Site, User, Way, own_login, run_with_input, wait_until,
};

/// Puts a role into force that may copy files everywhere, restricted to `options`.
#[track_caller]
fn role(relay: &Relay, name: &str, options: &str) {
    let text = format!(
        "[roles.{name}]\nsftp = {{ {options} }}\n\
         [roles.{name}.allow]\nlabels = {{ '*' = '*' }}\nlogins = ['*']\nabilities = ['sftp']\n"
    );
    run_with_input(&mut relay.command(&["apply", "-f", "-"]), text.as_bytes()).ok();
}

fn batch(user: &User, way: Way, lines: &str) -> Output {
    let mut sftp = user.tool("sftp");
    sftp.args(["-b", "-"])
        .arg(way.destination(&own_login(), "kitchen-cam"));
    run_with_input(&mut sftp, lines.as_bytes())
}

#[test]
fn sftp_stays_in_the_root_of_a_role_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let (data, other) = (folder.join("data"), folder.join("other-server"));
    fs::create_dir(&data).unwrap();
    fs::write(data.join("one"), "first").unwrap();
    fs::write(folder.join("secret"), "out of reach").unwrap();
    symlink(folder.join("secret"), data.join("way-out")).unwrap();
    // A server of the device's own knows nothing of roles.
    let script = format!("#!/bin/sh\ntouch {}/was-run\n", folder.display());
    fs::write(&other, script).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    let device = Device::new("kitchen-cam").flags(&["--sftp-server", other.to_str().unwrap()]);
    let site = Site::with(device);
    let back = folder.join("back");
    let options = format!("read_only = true, root = '{}'", data.display());
    role(&site.relay, "tech", &options);
    let bob = site.relay.user("bob", &["tech"]);
    for way in Way::BOTH {
        let lines = format!(
            "pwd\nget /one {0}\nget ../../one {0}\nls -1\n",
            back.display()
        );
        let said = batch(&bob, way, &lines).ok();
        assert!(
            said.out().contains("Remote working directory: /\n"),
            "{said}"
        );
        assert_eq!(fs::read_to_string(&back).unwrap(), "first", "{way:?}");
        fs::remove_file(&back).unwrap();
        for line in [
            format!("put {} /two", data.join("one").display()),
            "rm /one".to_owned(),
            "mkdir /three".to_owned(),
        ] {
            batch(&bob, way, &line).exits(1).says("ermission denied");
        }
        for path in ["/way-out", "../secret", "/etc/passwd"] {
            let line = format!("get {path} {}", back.display());
            batch(&bob, way, &line).exits(1);
            assert!(!back.exists(), "{way:?}: {path}");
        }
    }
    assert!(!folder.join("was-run").exists());
    let rows = site
        .relay
        .admin(&["audit", "--event", "session.start", "--json"]);
    let first = rows.ok().out().lines().next().unwrap().to_owned();
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["read_only"], true);
    assert_eq!(first["root"], data.to_str().unwrap());
    // A user without restrictions gets the device's own.
    batch(&site.alice, Way::Direct, "pwd\n").exits(255);
    assert!(folder.join("was-run").exists());
}

#[test]
fn roots_that_do_not_fit_are_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let (data, link) = (folder.join("data"), folder.join("link"));
    fs::create_dir(&data).unwrap();
    symlink(&data, &link).unwrap();
    let site = Site::new();
    let root = |name: &str, path: &std::path::Path| {
        role(&site.relay, name, &format!("root = '{}'", path.display()));
    };
    root("tech", &data);
    let bob = site.relay.user("bob", &["tech"]);
    batch(&bob, Way::Direct, "mkdir sub\n").ok();
    assert!(data.join("sub").is_dir());
    // The innermost of two counts.
    root("more", &data.join("sub"));
    site.relay
        .admin(&["user", "role", "add", "bob", "more"])
        .ok();
    batch(&bob, Way::Jump, "mkdir inner\n").ok();
    assert!(data.join("sub/inner").is_dir());
    root("more", &folder.join("data2"));
    for way in Way::BOTH {
        let refused = batch(&bob, way, "pwd\n").exits(255);
        refused.says(&format!(
            "sftp is refused: your roles restrict it to {0}2 and to {0}, and neither contains the other: tell an admin",
            data.display()
        ));
    }
    root("more", &data);
    root("tech", &link);
    site.relay
        .admin(&["user", "role", "rm", "bob", "more"])
        .ok();
    let refused = batch(&bob, Way::Direct, "pwd\n").exits(255);
    refused.says("is not served: a name in it is a symbolic link");
}

#[test]
fn a_stricter_role_ends_what_lives_under_the_old_one() {
    let site = Site::new();
    role(&site.relay, "tech", "");
    let bob = site.relay.user("bob", &["tech"]);
    let mut sftp = bob.tool("sftp");
    sftp.arg(Way::Direct.destination(&own_login(), "kitchen-cam"));
    let mut sftp = Running::start(&mut sftp);
    sftp.write("pwd\n");
    sftp.wait_out("Remote working directory");
    role(&site.relay, "tech", "read_only = true");
    let sessions = || site.relay.json(&["sessions", "--json"]);
    wait_until(SOON, "the end of it", || {
        sessions().as_array().unwrap().is_empty()
    });
    sftp.wait_err("closed: your access to this relay was changed");
}
