//! Imports run one way. The layers of the relay are a table here, and the folders of each crate form no cycle.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test fails the test; clippy knows this only of functions marked as tests"
)]

mod imports;
mod tree;
mod types;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use imports::{Imports, cycles, imports_of};

/// The relay's top-level modules, from the top down: a module imports only from rows below its own.
const RELAY: [&[&str]; 14] = [
    &["main", "cli"],
    &["serve"],
    &["watch"],
    &["ssh"],
    &["commands"],
    &["bulk"],
    &["config"],
    &["session"],
    &["recording"],
    &["tunnel"],
    &["audit"],
    &["identity"],
    &["access"],
    &["store"],
];

/// The modules that every layer may import: nouns, bounds, time, and the state folder.
const FOUNDATION: [&str; 9] = [
    "clock",
    "hex",
    "json",
    "limits",
    "log",
    "log_limit",
    "model",
    "output",
    "state",
];

/// Cycles of folders that are left in the other crates, each with its members in alphabetical order.
const PROTOCOL_CYCLES: [&[&str]; 0] = [];
const AGENT_CYCLES: [&[&str]; 0] = [];

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
fn other_crates_have_no_new_cycles() {
    for (of, known) in [
        ("protocol", &PROTOCOL_CYCLES[..]),
        ("edge-agent", &AGENT_CYCLES[..]),
        ("xtask", &[]),
    ] {
        let imports = imports_of(&source(of));
        let found = cycles(&imports);
        assert_eq!(found, known, "cycles of imports in {of}/src");
    }
}
