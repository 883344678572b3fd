//! Names and sentences are the field's: words that are riddles are not used, and a name is short enough to be read.

use std::fs;
use std::path::{Path, PathBuf};

/// Words that hide who does what, in sentences and as parts of identifiers.
const RIDDLES: [&str; 6] = [
    "told", "stands", "nobody", "somebody", "whoever", "who ever",
];

/// Most characters of a test's name.
const MAX_TEST_NAME: usize = 60;

/// The sources that are looked at: all but vendored ones and this test.
const SOURCES: [&str; 8] = [
    "protocol/src",
    "edge-agent/src",
    "edge-agent/tests",
    "relay/src",
    "relay/tests",
    "xtask/src",
    "tests",
    "fuzz/fuzz_targets",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Returns each line that `is_wrong`, with its file and number.
fn lines(is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for source in SOURCES {
        sources(&root.join(source), &mut files);
    }
    assert!(files.len() > 300, "hardly any sources: {}", files.len());
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let short = file.strip_prefix(&root).unwrap().display();
        for (index, line) in text.lines().enumerate() {
            if is_wrong(line) {
                found.push(format!("{short}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn no_riddles_are_used() {
    let found = lines(|line| {
        let line = line.to_lowercase();
        RIDDLES.iter().any(|word| line.contains(word))
    });
    assert!(
        found.is_empty(),
        "name the reader, the process or the relay that is meant: {found:#?}"
    );
}

#[test]
fn no_doc_comment_is_a_bare_question() {
    let questions = [
        "Who", "Whose", "Which", "What", "Where", "When", "How", "Why", "Whether",
    ];
    let found = lines(|line| {
        let sentence = line.trim().strip_prefix("/// ");
        let words = sentence.and_then(|sentence| sentence.strip_suffix('.'));
        words.is_some_and(|words| {
            let mut words = words.split(' ');
            words.next().is_some_and(|first| questions.contains(&first)) && words.count() < 2
        })
    });
    assert!(
        found.is_empty(),
        "begin in the third person (\"Returns the …\"): {found:#?}"
    );
}

#[test]
fn test_names_are_short() {
    let long = lines(|line| {
        let name = line.trim().strip_prefix("async ").unwrap_or(line.trim());
        let name = name
            .strip_prefix("fn ")
            .and_then(|name| name.split('(').next());
        // Only tests have names of that length, so that the attribute before need not be read.
        name.is_some_and(|name| name.len() > MAX_TEST_NAME)
    });
    assert!(
        long.is_empty(),
        "names of more than {MAX_TEST_NAME} characters: {long:#?}"
    );
}
