//! A type name means one thing in the whole workspace, so that a search for it leads to one place.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::walk::sources;

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

/// The sources in which session structs are looked for.
const SESSIONS: [&str; 5] = [
    "protocol/src",
    "edge-agent/src",
    "relay/src",
    "tests",
    "fuzz/fuzz_targets",
];

/// Most fields of a struct in a module named `session` or below it.
const MAX_SESSION_FIELDS: usize = 14;

/// Names that are defined in each command: its arguments, its rows, its program's command line.
const BY_CONVENTION: [&str; 3] = ["Args", "Cli", "Row"];

/// Names that are defined more than once, with the reason. One that no longer is has to be taken out.
const EXCEPTIONS: [(&str, &str); 10] = [
    ("Command", "the commands of each of the three programs"),
    (
        "Device",
        "the relay's row of a device, and a device that a test runs",
    ),
    ("Event", "an event of the audit log, and one of a recording"),
    ("Mutex", "the lock of the relay, and the lock of the agent"),
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
        sources(&root.join(source), &["tests"], &mut files);
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

/// Returns the structs of a file with named fields, those in its modules too, with the number of their fields.
fn fields(tokens: TokenStream) -> Vec<(String, usize)> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Ident(word) = token else {
            continue;
        };
        // Generics and bounds are before the braces; a tuple struct ends with a semicolon.
        let body = tokens[at..].iter().find_map(|token| match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                Some(Some(group.stream()))
            }
            TokenTree::Punct(mark) if mark.as_char() == ';' => Some(None),
            _ => None,
        });
        match (word.to_string().as_str(), body) {
            ("struct", Some(Some(body))) => {
                found.push((tokens[at + 1].to_string(), count_fields(body)));
            }
            ("mod", Some(Some(body))) => found.extend(fields(body)),
            _ => {}
        }
    }
    found
}

/// Returns how many single colons there are in the braces of a struct, which is one for each field. Paths have two.
fn count_fields(body: TokenStream) -> usize {
    let tokens: Vec<TokenTree> = body.into_iter().collect();
    let is_colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(mark)) if mark.as_char() == ':');
    let mut depth = 0_usize;
    let mut count = 0;
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Punct(mark) = token else {
            continue;
        };
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        match mark.as_char() {
            '<' => depth += 1,
            // The arrow of a function's type closes nothing.
            '>' if !matches!(before, Some(TokenTree::Punct(mark)) if mark.as_char() == '-') => {
                depth = depth.saturating_sub(1);
            }
            ':' if depth == 0 && !is_colon(before) && !is_colon(tokens.get(at + 1)) => count += 1,
            _ => {}
        }
    }
    count
}

#[test]
fn session_structs_have_few_fields() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for source in SESSIONS {
        sources(&root.join(source), &["tests"], &mut files);
    }
    let mut found = BTreeMap::new();
    for file in files {
        let short = file.strip_prefix(&root).unwrap().with_extension("");
        if !short.iter().any(|part| part == "session") {
            continue;
        }
        let tokens: TokenStream = fs::read_to_string(&file).unwrap().parse().unwrap();
        for (name, count) in fields(tokens) {
            found.insert(format!("{}: {name}", short.display()), count);
        }
    }
    assert!(found.len() > 60, "only {} structs were found", found.len());
    found.retain(|_, count| *count > MAX_SESSION_FIELDS);
    assert!(
        found.is_empty(),
        "structs with more than {MAX_SESSION_FIELDS} fields, group them by meaning: {found:#?}"
    );
}

#[test]
fn fields_are_counted_in_every_form_of_a_struct() {
    let text = "struct A<'a, T: Clone> { a: B<'a, c::D>, pub(crate) e: fn(x: u8) -> F, #[g(h: i)] j: [u8; 2] }
        struct K(u8); struct L; mod tests { struct M { n: u8 } }";
    let expected = [("A", 3), ("M", 1)].map(|(name, count)| (name.to_owned(), count));
    assert_eq!(fields(text.parse().unwrap()), expected);
}
