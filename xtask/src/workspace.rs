//! This checkout: its folders, its packages' test binaries, and the cargo that runs us.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;

/// The facts about the checkout that the commands need.
pub(crate) struct Workspace {
    /// The folder of the virtual manifest.
    pub(crate) root: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
    /// The names of all integration-test binaries (`[[test]]`, or files in a `tests/` folder).
    pub(crate) test_binaries: Vec<String>,
}

impl Workspace {
    /// Asks `cargo metadata`.
    pub(crate) fn load() -> Result<Self> {
        let mut command = cargo(&manifest_dir());
        command.args(["metadata", "--no-deps", "--format-version", "1"]);
        let metadata: Metadata = serde_json::from_str(&process::capture(&mut command)?)
            .context("cannot read what `cargo metadata` printed")?;
        let targets = metadata
            .packages
            .into_iter()
            .flat_map(|package| package.targets);
        Ok(Self {
            root: metadata.workspace_root,
            target: metadata.target_directory,
            test_binaries: targets
                .filter(|target| target.kind.iter().any(|kind| kind == "test"))
                .map(|target| target.name)
                .collect(),
        })
    }

    /// A `cargo` command line in the checkout's root.
    pub(crate) fn cargo(&self) -> Command {
        cargo(&self.root)
    }

    /// Returns where the dev profile leaves the program `name`.
    pub(crate) fn dev_binary(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }

    /// The triple of this machine.
    pub(crate) fn host(&self) -> Result<String> {
        let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut rustc = Command::new(program);
        let version = process::capture(rustc.arg("-vV").current_dir(&self.root))?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        Ok(host.context("`rustc -vV` names no host")?.to_owned())
    }

    /// The folder of one of our own tool sets (a Python environment, a second target folder).
    pub(crate) fn tool_dir(&self, name: &str) -> PathBuf {
        self.target.join("xtask").join(name)
    }
}

fn cargo(folder: &Path) -> Command {
    // Cargo names itself to what it runs: the same toolchain goes on.
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(folder);
    forget_package(&mut command);
    command
}

/// Takes out what `cargo run` set for our own package. Build scripts watch such variables: with ours
/// in sight, cryptography would be compiled anew each time that `cargo build` and `cargo xtask` take
/// turns.
pub(crate) fn forget_package(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command.env_remove("LD_LIBRARY_PATH");
}

fn manifest_dir() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    targets: Vec<CargoTarget>,
}

#[derive(Deserialize)]
struct CargoTarget {
    name: String,
    kind: Vec<String>,
}
