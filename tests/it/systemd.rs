//! Sessions where systemd runs the agent. Its cgroups belong to a whole machine, so the test has one: a kernel that is
//! a process (user mode Linux), with the programs of this machine and a disk of its own.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use crate::harness::{
    Running, SOON, agent_program, command, is_root, needs_program, relay_program,
};

/// The seconds that it may take. Without them it is left out: it takes a minute of a processor.
const SECONDS: &str = "HOLDFAST_SOAK_SYSTEMD";

/// The size of the guest's disk, which is a file with holes.
const DISK: u64 = 600 << 20;

#[test]
fn sessions_under_systemd_have_bounds_and_outlive_the_agent() {
    let Some(seconds) = std::env::var(SECONDS)
        .ok()
        .and_then(|text| text.parse().ok())
    else {
        return eprintln!("skipped: it takes long; `cargo xtask soak --only systemd` runs it");
    };
    if !is_root("a namespace of processes")
        || !needs_program("linux.uml", "Debian's package user-mode-linux")
    {
        return;
    }
    assert!(
        Path::new("/lib/systemd/systemd").exists(),
        "it needs systemd"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("root")).unwrap();
    fs::write(path("boot.sh"), include_str!("systemd/boot.sh")).unwrap();
    fs::write(path("check.sh"), include_str!("systemd/check.sh")).unwrap();
    for (name, program) in [("relay", relay_program()), ("edge-agent", agent_program())] {
        fs::copy(program, path(name)).unwrap();
    }
    File::create(path("disk")).unwrap().set_len(DISK).unwrap();

    // Nothing of the guest outlives the test: its processes are processes of this machine.
    let mut guest = command("unshare");
    guest.args([
        "--pid",
        "--fork",
        "--kill-child",
        "timeout",
        &format!("{seconds}"),
    ]);
    guest.args([
        "linux.uml",
        "quiet",
        "mem=512M",
        "con=null",
        "con0=fd:0,fd:1",
    ]);
    guest.arg(format!("ubd0={}", path("disk").display()));
    // The root is this machine's, which the guest cannot write to.
    guest.args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"]);
    guest.args(["init=/bin/sh", "--"]);
    guest.arg(path("boot.sh")).arg(folder.path());
    guest.env("HOME", folder.path());
    let limit = Duration::from_secs(seconds) + SOON;
    let output = Running::start(&mut guest).wait(limit);
    let out = output.out();
    println!("{out}");
    assert!(
        out.lines().any(|line| line.starts_with("passed")),
        "{output}"
    );
}
