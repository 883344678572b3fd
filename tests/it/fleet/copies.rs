//! One file for many devices.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;

use super::{Fleet, table};
use crate::harness::{
    Device, Output, Running, SOON, User, command, is_root, own_login, run_with_input, wait_until,
};

/// The home of the account on a device: each has one of its own.
fn home(device: &Device) -> PathBuf {
    device.folder().join("home")
}

#[track_caller]
fn cp(user: &User, args: &[&str], file: &[u8]) -> Output {
    let mut console = user.console();
    let login = own_login();
    console.args(["cp", "-", "--login", &login]).args(args);
    run_with_input(&mut console, file)
}

/// Every byte, in an order that shows what is missing.
fn binary(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_file_comes_whole_to_every_device_that_is_meant() {
    if !is_root("homes of their own for the devices") {
        return;
    }
    let fleet = Fleet::new();
    let old = home(&fleet.cam).join("tool");
    fs::write(&old, "old").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o740)).unwrap();
    let before = fs::metadata(&old).unwrap().ino();
    let file = binary(3_000_001);
    let output = cp(
        &fleet.alice,
        &["--on", "role=camera,state!=off:tool"],
        &file,
    )
    .ok();
    assert_eq!(table(&output).len(), 2);
    for (device, mode) in [(&fleet.cam, 0o740), (&fleet.lab, 0o644)] {
        let tool = home(device).join("tool");
        assert!(fs::read(&tool).unwrap() == file, "{}", device.name());
        let found = fs::metadata(&tool).unwrap();
        assert_eq!(found.mode() & 0o7777, mode, "{}", device.name());
        assert_eq!(files(device), ["tool"]);
    }
    assert_ne!(
        fs::metadata(&old).unwrap().ino(),
        before,
        "it was written over"
    );
    // The log tells of each what was done there.
    let rows = fleet.relay.admin(&["audit", "--event", "sftp", "--json"]);
    let rows = rows.ok().out();
    let renames = rows
        .lines()
        .map(|row| serde_json::from_str::<Value>(row).unwrap());
    let renames = renames.filter(|row| row["operation"] == "rename" && row["to"] == "tool");
    assert_eq!(renames.count(), 2);

    // A mode that is asked for, and nothing at all as a file.
    cp(
        &fleet.alice,
        &["--mode", "600", "--on", "site=lab:tool"],
        b"",
    )
    .ok();
    let found = fs::metadata(home(&fleet.lab).join("tool")).unwrap();
    assert_eq!((found.len(), found.mode() & 0o777), (0, 0o600));
    // What cannot be is said, device by device, and leaves nothing behind.
    fs::create_dir(home(&fleet.lab).join("dir")).unwrap();
    let output = cp(&fleet.alice, &["--on", "role=camera:dir"], b"x").exits(1);
    let rows = table(&output);
    assert_eq!(rows[0], ("cam".into(), "0".into(), String::new()));
    assert_eq!(rows[1].2, "it is a folder: name the file in it");
    assert_eq!(rows[2].1, "-");
    let output = cp(&fleet.alice, &["--on", "site=lab:no/such"], b"x").exits(1);
    assert_eq!(
        table(&output)[0].2,
        "cannot write a temporary file beside it: there is no such folder"
    );
    // Not even when all of it is there but the name: it was not looked at before, because its mode was not asked for.
    let output = cp(
        &fleet.alice,
        &["--mode", "644", "--on", "site=lab:dir"],
        b"x",
    )
    .exits(1);
    assert!(
        table(&output)[0]
            .2
            .starts_with("cannot rename it into its place: "),
        "{output}"
    );
    assert_eq!(files(&fleet.lab), ["dir", "tool"]);
    // Nothing of it lies on the relay.
    let state = fs::read_dir(fleet.relay.state()).unwrap();
    let names = state.map(|entry| entry.unwrap().file_name());
    assert!(
        names
            .into_iter()
            .all(|name| !name.to_string_lossy().starts_with("copy-"))
    );
}

#[test]
fn a_device_that_is_too_slow_keeps_what_it_had() {
    if !is_root("homes of their own for the devices") {
        return;
    }
    let fleet = Fleet::new();
    fs::write(home(&fleet.lab).join("tool"), "old").unwrap();
    // Far more than anything on the way holds, for an agent that reads none of it.
    fleet.lab.signal(Signal::STOP);
    let file = binary(4_000_000);
    let args = ["--timeout", "2s", "--on", "role=camera,state!=off:tool"];
    let output = cp(&fleet.alice, &args, &file).exits(1);
    let rows = table(&output);
    assert_eq!(rows[0].1, "0", "{output}");
    assert_eq!(rows[1].2, "not done after 2s: hung up");
    fleet.lab.signal(Signal::CONT);
    assert!(fs::read(home(&fleet.cam).join("tool")).unwrap() == file);
    wait_until(SOON, "no session", || {
        fleet.relay.json(&["sessions", "--json"]) == serde_json::json!([])
    });
    wait_until(SOON, "nothing beside the file", || {
        files(&fleet.lab) == ["tool"]
    });
    assert_eq!(fs::read(home(&fleet.lab).join("tool")).unwrap(), b"old");
}

/// No client is left that could ask for it: the device itself takes the half of a file away.
#[test]
fn a_device_that_loses_its_tunnel_keeps_no_half_of_a_file() {
    if !is_root("homes of their own for the devices") {
        return;
    }
    let mut fleet = Fleet::new();
    fs::write(home(&fleet.cam).join("tool"), "old").unwrap();
    // More than goes there before it was seen that it is under way.
    let path = fleet.alice.folder().join("file");
    let zeros = fs::File::create(&path).unwrap();
    zeros.set_len(64 << 20).unwrap();
    let begin = |fleet: &Fleet| {
        let mut console = fleet.alice.console();
        let on = "site!=lab,state!=off,role=camera:tool";
        console.args(["cp", "-", "--login", &own_login(), "--on", on]);
        let mut fed = command("sh");
        fed.arg("-c")
            .arg(format!("exec \"$0\" \"$@\" <{}", path.display()));
        let copy = Running::start(fed.arg(console.get_program()).args(console.get_args()));
        wait_until(SOON, "the file beside", || files(&fleet.cam).len() == 2);
        copy
    };
    let is_as_before = |fleet: &Fleet| {
        wait_until(SOON, "nothing beside the file", || {
            files(&fleet.cam) == ["tool"]
        });
        assert_eq!(fs::read(home(&fleet.cam).join("tool")).unwrap(), b"old");
    };
    // Its agent dies, and says nothing to anybody.
    let copy = begin(&fleet);
    fleet.cam.kill();
    is_as_before(&fleet);
    fleet.cam.run_online(&fleet.relay);
    copy.wait(SOON).exits(1);
    // The relay does.
    let copy = begin(&fleet);
    fleet.relay.kill();
    copy.wait(SOON);
    fleet.relay.start_again();
    is_as_before(&fleet);
}

#[track_caller]
fn files(device: &Device) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(home(device))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
