//! `cargo xtask test --quick`: format, lints and unit tests of the packages that a change touches, for the minute
//! before a commit. What it leaves out (end-to-end tests, the other targets, fuzzing) is the business of the whole run.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use super::suites;
use crate::process;
use crate::workspace::Workspace;

/// A folder of the workspace, with the packages whose tests a change there concerns: its own first, then those that are
/// built on it.
const FOLDERS: [(&str, &[&str]); 6] = [
    (
        "protocol",
        &["holdfast-protocol", "edge-agent", "relay", "holdfast-tests"],
    ),
    ("edge-agent", &["edge-agent"]),
    ("relay", &["relay"]),
    ("tests", &["holdfast-tests"]),
    ("xtask", &["xtask"]),
    // The files are compared by a test of xtask.
    ("vendor", &["relay", "xtask"]),
];

/// Files that concern every package.
const OF_ALL: [&str; 5] = [
    "Cargo.toml",
    "Cargo.lock",
    "clippy.toml",
    ".config",
    ".cargo",
];

/// Runs the quick checks of what differs from the main branch, or of the last commit where nothing does.
pub(super) fn run(workspace: &Workspace) -> Result<()> {
    let changed = changed(workspace)?;
    let packages = packages(&changed);
    println!("== fmt");
    super::fmt(workspace)?;
    if concerns_fuzzing(&changed) {
        println!("== clippy: fuzz targets");
        super::clippy_of_fuzzing(workspace)?;
    }
    if packages.is_empty() {
        println!("nothing else that is compiled has changed");
        return Ok(());
    }
    let names: Vec<&str> = packages.into_iter().collect();
    println!("== clippy: {}", names.join(", "));
    let selection: Vec<&str> = names.iter().flat_map(|name| ["--package", name]).collect();
    let mut clippy = workspace.cargo();
    clippy
        .args(["clippy", "--all-targets", "--locked"])
        .args(&selection);
    process::run(clippy.args(["--", "-D", "warnings"]))?;
    println!("== unit: {}", names.join(", "));
    suites::unit_of(workspace, &selection)
}

/// Returns the packages that these files concern.
fn packages(changed: &[String]) -> BTreeSet<&'static str> {
    let first = |file: &str| file.split('/').next().unwrap_or_default().to_owned();
    let folders: BTreeSet<String> = changed.iter().map(|file| first(file)).collect();
    let all = OF_ALL.iter().any(|name| folders.contains(*name));
    FOLDERS
        .iter()
        .filter(|(folder, _)| all || folders.contains(*folder))
        .flat_map(|(_, packages)| packages.iter().copied())
        .collect()
}

/// Returns whether the fuzz targets, a workspace of their own, may no longer compile: they use `protocol` and include
/// files of the relay.
fn concerns_fuzzing(changed: &[String]) -> bool {
    let folders = ["fuzz/", "protocol/", "relay/src/"];
    changed
        .iter()
        .any(|file| folders.iter().any(|folder| file.starts_with(folder)))
}

/// Returns the files that differ from where this branch left the main one, untracked files included.
fn changed(workspace: &Workspace) -> Result<Vec<String>> {
    let git = |args: &[&str]| {
        let mut git = std::process::Command::new("git");
        process::capture(git.current_dir(&workspace.root).args(args))
    };
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let Ok(head) = git(&["rev-parse", "HEAD"]) else {
        bail!(
            "--quick compares with git's history, and this folder is not a git checkout: use --only fmt,clippy,unit"
        );
    };
    let base = ["origin/main", "main"]
        .iter()
        .find_map(|main| git(&["merge-base", "HEAD", main]).ok())
        .unwrap_or_else(|| head.clone());
    let untracked = || git(&["ls-files", "--others", "--exclude-standard"]).map(lines);
    let mut files = git(&["diff", "--name-only", base.trim()]).map(lines)?;
    files.extend(untracked()?);
    if files.is_empty() && base == head {
        // All is committed, on the main branch itself: the last commit is what changed. A first commit has no parent.
        files = git(&["diff", "--name-only", "HEAD^", "HEAD"])
            .map(lines)
            .unwrap_or_default();
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[&str]) -> Vec<&'static str> {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        packages(&files).into_iter().collect()
    }

    #[test]
    fn a_change_concerns_its_package_and_what_is_built_on_it() {
        assert_eq!(of(&["relay/src/lib.rs", "docs/protocol.md"]), ["relay"]);
        assert_eq!(
            of(&["protocol/src/ids.rs"]),
            ["edge-agent", "holdfast-protocol", "holdfast-tests", "relay"]
        );
        assert_eq!(of(&["README.md"]), [""; 0]);
        assert_eq!(of(&["vendor/russh/src/lib.rs"]), ["relay", "xtask"]);
        assert_eq!(of(&["Cargo.lock"]).len(), 5);
    }

    #[test]
    fn fuzz_targets_are_built_with_what_they_include() {
        let concerns = |file: &str| concerns_fuzzing(&[file.to_owned()]);
        assert!(concerns("relay/src/identity/krl/mod.rs"));
        assert!(concerns("fuzz/fuzz_targets/krl.rs"));
        assert!(!concerns("tests/it/main.rs"));
    }
}
