//! A vendored crate is the published one and the patch beside it, and nothing else: the patch is taken off each file,
//! and what remains has the sum of the published file.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test fails the test; clippy knows this only of functions marked as tests"
)]

mod patch;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use patch::Patch;
use sha2::{Digest as _, Sha256};

/// The mark of each changed place in a vendored file.
const MARK: &str = "HOLDFAST";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sum(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files below a folder, by their paths from there.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap();
            files.insert(name.to_owned(), fs::read(&path).unwrap());
        }
    }
    files
}

/// The lines of `sha256sum`, by file.
fn sums(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines();
    lines
        .map(|line| line.split_once("  ").unwrap())
        .map(|(sum, file)| (file, sum))
        .collect()
}

#[test]
fn russh_is_the_published_crate_and_the_patch() {
    let vendor = root().join("vendor");
    let list = read(&vendor.join("russh.sha256"));
    let text = read(&vendor.join("russh.patch"));
    let (sums, patches) = (sums(&list), patch::parse(&text));
    let mut files = files(&vendor.join("russh"));
    // `cargo` in that folder builds there.
    files.retain(|file, _| !file.starts_with("target/"));
    let (present, listed): (Vec<&str>, Vec<&str>) = (
        files.keys().map(String::as_str).collect(),
        sums.keys().copied().collect(),
    );
    assert_eq!(present, listed, "the folder has other files than the crate");
    for (file, bytes) in &files {
        let before = match patches.get(file.as_str()) {
            None => sum(bytes),
            Some(patch) => {
                let patched = std::str::from_utf8(bytes).unwrap();
                let before = patch.take_off(patched);
                sum(before
                    .unwrap_or_else(|why| panic!("{file}: {why}"))
                    .as_bytes())
            }
        };
        assert_eq!(
            before,
            sums[file.as_str()],
            "{file} is not as it was published: change russh.patch as well, or undo it"
        );
    }
    let unknown: Vec<&&str> = patches
        .keys()
        .filter(|file| !files.contains_key(**file))
        .collect();
    assert!(
        unknown.is_empty(),
        "the patch is for other files: {unknown:?}"
    );
}

#[test]
fn each_changed_place_of_russh_is_marked() {
    let text = read(&root().join("vendor/russh.patch"));
    for (file, patch) in patch::parse(&text) {
        for hunk in &patch.hunks {
            let is_marked = hunk.lines.iter().any(|line| line.contains(MARK));
            assert!(is_marked, "{file}, line {}: no word {MARK}", hunk.start);
        }
    }
}

/// The version is written down in several places.
#[test]
fn version_of_russh_is_the_same_everywhere() {
    let manifest: toml::Table =
        toml::from_str(&read(&root().join("vendor/russh/Cargo.toml"))).unwrap();
    let version = manifest["package"]["version"].as_str().unwrap();
    let workspace: toml::Table = toml::from_str(&read(&root().join("Cargo.toml"))).unwrap();
    let wanted = &workspace["workspace"]["dependencies"]["russh"]["version"];
    assert_eq!(wanted.as_str(), Some(version));
    let readme = read(&root().join("vendor/README.md"));
    assert!(readme.contains(&format!("| `russh/` | {version} |")));
    assert!(readme.contains(&format!("russh-{version}.crate")));
    let lock: toml::Table = toml::from_str(&read(&root().join("Cargo.lock"))).unwrap();
    let packages = lock["package"].as_array().unwrap();
    let locked: Vec<_> = packages
        .iter()
        .filter(|package| package["name"].as_str() == Some("russh"))
        .collect();
    assert_eq!(locked.len(), 1);
    assert_eq!(locked[0]["version"].as_str(), Some(version));
    assert!(
        locked[0].get("source").is_none(),
        "the registry's russh is built"
    );
}

#[test]
fn patch_that_does_not_fit_is_noticed() {
    let text = "--- a/one\n+++ b/one\n@@ -1,2 +1,3 @@\n a\n-b\n+c\n+d\n";
    let patches = patch::parse(text);
    let patch: &Patch<'_> = &patches["one"];
    assert_eq!(patch.take_off("a\nc\nd\ne\n").unwrap(), "a\nb\ne\n");
    for other in ["a\nb\ne\n", "a\nc\nx\ne\n", "a\n", "x\na\nc\nd\n"] {
        assert!(patch.take_off(other).is_err(), "{other:?}");
    }
}
