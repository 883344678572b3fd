//! A type name means one thing in the whole workspace, so that a search for it leads to one place.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

/// The sources that are looked at. Tests beside them and within them may name their own.
const SOURCES: [&str; 7] = [
    "protocol/src",
    "edge-agent/src",
    "relay/src",
    "xtask/src",
    "tests/hostile/src",
    "tests/raw-key/src",
    "tests/it/harness",
];

/// Names that are defined in each command: its arguments, its rows, its program's command line.
const BY_CONVENTION: [&str; 3] = ["Args", "Cli", "Row"];

/// Names that are defined more than once, with the reason. One that no longer is has to be taken out.
const EXCEPTIONS: [(&str, &str); 10] = [
    (
        "Client",
        "the relay's side of a client, and a client that a test runs",
    ),
    ("Command", "the commands of each of the three programs"),
    (
        "Device",
        "the relay's row of a device, and a device that a test runs",
    ),
    ("Event", "an event of the audit log, and one of a recording"),
    ("OnDisconnect", "as a role has it, and as it is sent"),
    (
        "Output",
        "where a session writes, and what a command that a test ran wrote",
    ),
    ("RecordingMode", "as a role has it, and as it is sent"),
    ("Refusal", "the relay's own, and the device's as it is sent"),
    ("StdinMode", "as a role has it, and as it is sent"),
    (
        "User",
        "the relay's row of a user, and a user whom a test has",
    ),
];

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        let name = path.file_stem().unwrap().to_str().unwrap();
        if name == "tests" {
            continue;
        }
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

/// Returns the names of the types that are defined at the top of a file.
fn types(text: &str) -> Vec<String> {
    let tokens: TokenStream = text.parse().unwrap();
    let words: Vec<String> = tokens
        .into_iter()
        .map(|token| match token {
            TokenTree::Ident(word) => word.to_string(),
            _ => String::new(),
        })
        .collect();
    let defines = |word: &str| ["struct", "enum", "trait", "union", "type"].contains(&word);
    words
        .windows(2)
        .filter(|pair| defines(&pair[0]) && !pair[1].is_empty())
        .map(|pair| pair[1].clone())
        .collect()
}

#[test]
fn type_names_are_defined_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in SOURCES {
        let mut files = Vec::new();
        sources(&root.join(source), &mut files);
        for file in files {
            let short = file.strip_prefix(&root).unwrap().display().to_string();
            for name in types(&fs::read_to_string(&file).unwrap()) {
                found.entry(name).or_default().push(short.clone());
            }
        }
    }
    assert!(found.len() > 500, "only {} types were found", found.len());
    found.retain(|name, files| files.len() > 1 && !BY_CONVENTION.contains(&name.as_str()));
    for (name, reason) in EXCEPTIONS {
        let was = found.remove(name);
        assert!(
            was.is_some(),
            "{name} is defined once, take out its exception: {reason}"
        );
    }
    assert!(
        found.is_empty(),
        "type names that are defined more than once, with the files that do: {found:#?}"
    );
}
