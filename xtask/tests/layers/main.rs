//! Imports run one way. The layers of the relay and of the agent are tables here, and in no crate do folders or files
//! form a cycle, at any depth.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test fails the test; clippy knows this only of functions marked as tests"
)]

mod folders;
mod imports;
mod paths;
mod tree;
mod types;
mod walk;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use folders::cycles_within;
use imports::{Imports, cycles, imports_of};

/// The relay's top-level modules, from the top down: a module imports only from rows below its own.
const RELAY: [&[&str]; 13] = [
    &["main", "entry"],
    &["serve"],
    &["watch", "web"],
    &["ssh"],
    &["commands"],
    &["bulk"],
    &["config"],
    &["session"],
    &["recording"],
    &["tunnel"],
    &["audit"],
    &["identity"],
    // None imports another: what they know in common is in the model.
    &["access", "fence", "store"],
];

/// The modules that every layer may import: nouns, bounds, time, locks, and the state folder.
const FOUNDATION: [&str; 10] = [
    "clock",
    "hex",
    "json",
    "limits",
    "log",
    "log_limit",
    "model",
    "output",
    "state",
    "sync",
];

/// The agent's top-level modules, in the same way.
const AGENT: [&[&str]; 7] = [
    &["main"],
    &["cli"],
    &["service"],
    &["tunnel"],
    &["session"],
    &["recording", "sftp"],
    &["os"],
];

/// The crates whose folders are searched for cycles.
const CRATES: [&str; 7] = [
    "protocol",
    "edge-agent",
    "relay",
    "xtask",
    "tests",
    "tests/hostile",
    "tests/raw-key",
];

fn source(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(of)
        .join("src")
}

/// Returns the row of a module of the relay: 0 is the top, and the foundation is below all rows.
fn row(module: &str) -> usize {
    if FOUNDATION.contains(&module) {
        return RELAY.len();
    }
    RELAY
        .iter()
        .position(|row| row.contains(&module))
        .unwrap_or_else(|| {
            panic!(
                "relay/src/{module} is in no layer: add it to the table in {}",
                file!()
            )
        })
}

/// Returns whether this module is below all rows. Those import from each other, without cycles.
fn is_foundation(module: &str) -> bool {
    row(module) == RELAY.len()
}

/// Returns each import of the relay that does not lead downwards.
fn upwards(imports: &Imports) -> BTreeMap<(&str, &str), &BTreeSet<String>> {
    imports
        .iter()
        .filter(|((from, to), _)| row(from) >= row(to) && !is_foundation(from))
        .map(|((from, to), files)| ((from.as_str(), to.as_str()), files))
        .collect()
}

#[test]
fn relay_imports_lead_downwards() {
    let imports = imports_of(&source("relay"));
    assert!(
        imports.len() > 20,
        "hardly any imports were found: {imports:?}"
    );
    let (mut below, mut rises) = (imports.clone(), imports.clone());
    below.retain(|(from, to), _| is_foundation(from) && is_foundation(to));
    assert_eq!(cycles(&below), [[""; 0]; 0], "cycles below the layers");
    rises.retain(|(from, to), _| is_foundation(from) && !is_foundation(to));
    assert!(
        rises.is_empty(),
        "imports from below the layers: {rises:#?}"
    );
    let found = upwards(&imports);
    assert!(
        found.is_empty(),
        "imports that lead upwards, with the files that have them: {found:#?}"
    );
}

#[test]
fn agent_imports_lead_downwards() {
    let imports = imports_of(&source("edge-agent"));
    assert!(
        imports.len() > 8,
        "hardly any imports were found: {imports:?}"
    );
    let row = |module: &String| {
        let row = AGENT.iter().position(|row| row.contains(&module.as_str()));
        row.unwrap_or_else(|| panic!("edge-agent/src/{module} is in no layer of {}", file!()))
    };
    let rises: Vec<_> = imports
        .iter()
        .filter(|((from, to), _)| row(from) >= row(to))
        .collect();
    assert!(
        rises.is_empty(),
        "imports that lead upwards, with the files that have them: {rises:#?}"
    );
}

#[test]
fn no_folder_or_file_is_in_a_cycle() {
    for of in CRATES {
        let found = cycles_within(&source(of));
        assert!(
            found.is_empty(),
            "cycles of imports in {of}/src, by folder: {found:#?}"
        );
    }
}
