//! Names and sentences are the field's: words that are riddles are not used, and a name is short enough to be read.

use std::fs;
use std::path::Path;

use crate::walk::sources;

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

/// Returns each line that `is_wrong`, with its file and number.
fn lines(is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for source in SOURCES {
        sources(&root.join(source), &[], &mut files);
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

/// Most characters of a line of the documents, tables too.
const MAX_DOCUMENT_LINE: usize = 120;

#[test]
fn lines_of_the_documents_fit_a_window() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = fs::read_dir(root.join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let pages = docs.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let first = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root.join(name));
    let mut found = Vec::new();
    for page in pages.chain(first) {
        let text = fs::read_to_string(&page).unwrap();
        let long = |(_, line): &(usize, &str)| line.chars().count() > MAX_DOCUMENT_LINE;
        found.extend(
            text.lines()
                .enumerate()
                .filter(long)
                .map(|(index, _)| format!("{}:{}", page.display(), index + 1)),
        );
    }
    assert!(found.is_empty(), "lines are too long: {found:#?}");
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

/// The words that a question begins with.
const QUESTIONS: [&str; 15] = [
    "Who",
    "Whose",
    "Whom",
    "Which",
    "What",
    "Where",
    "When",
    "How",
    "Why",
    "Whether",
    "Whatever",
    "Whichever",
    "Wherever",
    "Whenever",
    "However",
];

/// Words that end as a verb of the third person does and are none.
const NO_VERBS: [&str; 7] = ["Always", "As", "Bytes", "Its", "Less", "This", "Thus"];

/// The sources whose functions are documented as a library's are.
const CRATES: [&str; 3] = ["protocol/src", "edge-agent/src", "relay/src"];

/// The first line of a doc comment, and the first line of the item that it is about.
struct Comment {
    place: String,
    text: String,
    item: String,
}

impl Comment {
    fn first_word(&self) -> &str {
        let end = self.text.find(|c: char| !c.is_alphabetic());
        self.text.split_at(end.unwrap_or(self.text.len())).0
    }

    fn is_of_function(&self) -> bool {
        let mut words = self.item.split_whitespace();
        words.any(|word| word == "fn") && !self.item.contains(['=', '"'])
    }

    fn begins_with_verb(&self) -> bool {
        let word = self.first_word();
        word.ends_with('s') && word.starts_with(char::is_uppercase) && !NO_VERBS.contains(&word)
    }
}

/// Returns all doc comments of a text.
fn comments(place: &str, text: &str) -> Vec<Comment> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let Some(text) = line.trim().strip_prefix("/// ") else {
            continue;
        };
        let mut item = "";
        // Brackets of an attribute that goes on in the next line.
        let mut open = 0;
        for (_, line) in lines.by_ref() {
            let line = line.trim();
            let is_attribute = open > 0 || line.starts_with("#[");
            if is_attribute {
                open += line.matches('[').count();
                open -= line.matches(']').count().min(open);
            } else if !line.starts_with("//") {
                item = line;
                break;
            }
        }
        found.push(Comment {
            place: format!("{place}:{}", index + 1),
            text: text.to_owned(),
            item: item.to_owned(),
        });
    }
    found
}

/// Returns each doc comment in these folders that `is_wrong`.
fn wrong_comments(folders: &[&str], is_wrong: impl Fn(&Comment) -> bool) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in folders {
        sources(&root.join(folder), &[], &mut files);
    }
    let comments = files.iter().flat_map(|file| {
        let place = file.strip_prefix(&root).unwrap().display().to_string();
        comments(&place, &fs::read_to_string(file).unwrap())
    });
    let wrong = comments.filter(is_wrong);
    wrong
        .map(|comment| format!("{}: {}", comment.place, comment.text))
        .collect()
}

#[test]
fn no_doc_comment_begins_with_a_question() {
    let folders: Vec<_> = SOURCES.into_iter().chain(["xtask/tests"]).collect();
    let found = wrong_comments(&folders, |comment| {
        QUESTIONS.contains(&comment.first_word())
    });
    assert!(
        found.is_empty(),
        "begin with a noun (\"The time that …\") or in the third person (\"Returns the …\"): {found:#?}"
    );
}

#[test]
fn no_module_head_begins_with_a_question() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in SOURCES.into_iter().chain(["xtask/tests"]) {
        sources(&root.join(folder), &[], &mut files);
    }
    let heads = files.iter().filter_map(|file| {
        let text = fs::read_to_string(file).unwrap();
        let head = text.strip_prefix("//! ")?.lines().next()?.to_owned();
        Some((file.strip_prefix(&root).unwrap().to_owned(), head))
    });
    let heads: Vec<_> = heads.collect();
    assert!(heads.len() > 300, "only {} heads were found", heads.len());
    let is_question = |head: &str| {
        let word = head.split(|c: char| !c.is_alphabetic()).next();
        word.is_some_and(|word| QUESTIONS.contains(&word))
    };
    let found: Vec<_> = heads.iter().filter(|(_, head)| is_question(head)).collect();
    assert!(
        found.is_empty(),
        "say what the module holds (\"The time that …\") or does (\"Reads …\"): {found:#?}"
    );
}

#[test]
fn doc_comments_of_functions_begin_with_a_verb() {
    let found = wrong_comments(&CRATES, |comment| {
        comment.is_of_function() && !comment.begins_with_verb()
    });
    assert!(
        found.is_empty(),
        "begin in the third person (\"Returns the …\"): {found:#?}"
    );
}

#[test]
fn comments_are_read_with_their_items() {
    let text = "/// Which one.\n#[expect(\n    dead_code,\n    reason = \"it is\"\n)]\npub(crate) fn one() {}\n\
        /// Returns it,\n/// in two lines.\nasync fn two() {}\n/// The bound.\nconst THREE: fn() = two;\n\
        /// Bytes of it.\nfn four() {}\n";
    let found = comments("a.rs", text);
    let wrong = |comment: &&Comment| comment.is_of_function() && !comment.begins_with_verb();
    let wrong: Vec<_> = found
        .iter()
        .filter(wrong)
        .map(|comment| &*comment.place)
        .collect();
    assert_eq!((found.len(), wrong), (4, vec!["a.rs:1", "a.rs:12"]));
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
