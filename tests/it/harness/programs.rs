//! Finds the programs under test. `HOLDFAST_RELAY` and `HOLDFAST_AGENT` name ready ones; else they are built, once per
//! run.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, flock};

pub(crate) fn relay_program() -> PathBuf {
    program("relay", "HOLDFAST_RELAY")
}

pub(crate) fn agent_program() -> PathBuf {
    program("edge-agent", "HOLDFAST_AGENT")
}

fn program(name: &str, variable: &str) -> PathBuf {
    if let Some(ready) = std::env::var_os(variable) {
        return PathBuf::from(ready);
    }
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build).join(name)
}

/// Builds the programs and gives their folder.
fn build() -> PathBuf {
    // Cargo gives integration tests a folder of their own below its target folder.
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = scratch.parent().expect("a folder above").join("debug");
    // A runner that gives each test a process of its own names the run: one of them builds.
    let run = std::env::var("NEXTEST_RUN_ID").ok();
    let stamp = scratch.join("it-built");
    fs::create_dir_all(scratch).unwrap();
    let lock = File::create(scratch.join("it-lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    if run.is_some() && fs::read_to_string(&stamp).ok() == run {
        return folder;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    // The same selection as `cargo xtask test`, hence the same features: nothing is compiled twice.
    let status = Command::new(cargo)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["build", "--workspace", "--bins", "--tests", "--quiet"])
        .status()
        .unwrap();
    assert!(status.success(), "the programs under test can't be built");
    if let Some(run) = run {
        fs::write(stamp, run).unwrap();
    }
    folder
}
