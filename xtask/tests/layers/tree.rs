//! Folders stay small enough to be read at a glance.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Most modules in a folder, its own `mod.rs`, `lib.rs` or `main.rs` counted.
const MAX_MODULES: usize = 14;

/// Folders that have another bound.
const BOUNDS: [(&str, usize); 1] = [("edge-agent/src", 9)];

/// Most folders directly in `relay/src`; beside them it may have files.
const MAX_RELAY_FOLDERS: usize = 16;

/// Folders that are over the bound, each with its reason. One that no longer is over it is to be taken out.
const EXCEPTIONS: [(&str, &str); 2] = [
    (
        "relay/src",
        "holds the foundation beside its folders, whose number is bounded by itself",
    ),
    (
        "tests/it/harness",
        "one file for each thing that the end-to-end tests drive",
    ),
];

/// Names of folders that are not counted, each with its reason.
const WITHOUT_MODULES: [(&str, &str); 3] = [
    (
        "tests",
        "the tests of a module, which are found by its name",
    ),
    ("golden", "data that tests compare with"),
    (
        "migrations",
        "SQL that is only appended: a store is migrated through all of it, so no file can be merged or moved",
    ),
];

/// The sources that are looked at. In `tests/it` and `tests/sim` each module is a test.
const SOURCES: [&str; 7] = [
    "protocol/src",
    "edge-agent/src",
    "relay/src",
    "xtask/src",
    "tests/src",
    "tests/hostile/src",
    "tests/it/harness",
];

/// Returns the names of a folder's modules, without those that hold tests: `x.rs` and `x/` are one.
fn modules(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.is_dir() || path.extension().is_some_and(|end| end == "rs"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !["tests", "golden"].contains(&name.as_str()))
        .collect()
}

fn count(root: &Path, folder: &str, found: &mut BTreeMap<String, usize>) {
    let path = root.join(folder);
    found.insert(folder.to_owned(), modules(&path).len());
    for entry in fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let holds_modules = !WITHOUT_MODULES.iter().any(|(folder, _)| *folder == name);
        if holds_modules && entry.path().is_dir() {
            count(root, &format!("{folder}/{name}"), found);
        }
    }
}

#[test]
fn no_folder_has_too_many_modules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = BTreeMap::new();
    for source in SOURCES {
        count(&root, source, &mut found);
    }
    assert!(found.len() > 40, "hardly any folders were found: {found:?}");
    let bounds = BTreeMap::from(BOUNDS);
    found.retain(|folder, count| *count > *bounds.get(folder.as_str()).unwrap_or(&MAX_MODULES));
    for (folder, reason) in EXCEPTIONS {
        let was = found.remove(folder);
        assert!(
            was.is_some(),
            "{folder} is within the bound, take out its exception: {reason}"
        );
    }
    assert!(
        found.is_empty(),
        "folders with more modules than {MAX_MODULES} (or their own bound), group them by meaning: {found:#?}"
    );
}

#[test]
fn relay_has_few_folders_at_its_top() {
    let relay = Path::new(env!("CARGO_MANIFEST_DIR")).join("../relay/src");
    let entries = fs::read_dir(relay).unwrap();
    let folders: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name())
        .collect();
    assert!(
        folders.len() <= MAX_RELAY_FOLDERS,
        "{} folders where {MAX_RELAY_FOLDERS} are the most: {folders:?}",
        folders.len()
    );
}
