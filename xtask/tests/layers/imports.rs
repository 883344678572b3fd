//! Which top-level module of a crate imports from which other, read from the tokens of its sources: comments and texts
//! do not count, macros do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// From one top-level module to another, with the files that import.
pub(crate) type Imports = BTreeMap<(String, String), BTreeSet<String>>;

/// Reads all of a crate's sources but its tests.
pub(crate) fn imports_of(source: &Path) -> Imports {
    let mut imports = Imports::new();
    let modules = top_level(source);
    for module in &modules {
        let mut files = Vec::new();
        sources(&source.join(module), &mut files);
        let own = source.join(format!("{module}.rs"));
        files.extend(own.is_file().then_some(own));
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let tokens: TokenStream = text
                .parse()
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let depth = depth(source, &file);
            let mut names = BTreeSet::new();
            collect(tokens, depth, &mut names);
            for name in names
                .into_iter()
                .filter(|name| name != module && modules.contains(name))
            {
                let short = file.strip_prefix(source).unwrap().display().to_string();
                imports
                    .entry((module.clone(), name))
                    .or_default()
                    .insert(short);
            }
        }
    }
    imports
}

fn top_level(source: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(source)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.is_dir() || path.extension().is_some_and(|end| end == "rs"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !["lib", "figures"].contains(&name.as_str()))
        .collect()
}

/// Adds the sources of a folder and of those within it; tests may import what they like.
pub(crate) fn sources(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.file_stem().unwrap().to_str().unwrap();
        if ["tests", "golden"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

/// Returns how many `super::` lead from the module of this file to the crate's root.
fn depth(source: &Path, file: &Path) -> usize {
    let parts = file.strip_prefix(source).unwrap().components().count();
    if file.file_name().is_some_and(|name| name == "mod.rs") {
        parts - 1
    } else {
        parts
    }
}

/// Adds the names that follow `crate::`, and as many `super::` as lead to the root. `depth` is the module's own.
fn collect(tokens: TokenStream, depth: usize, names: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if is_test_module(&tokens[at..]) {
            // The attribute, up to and with the module's body.
            at += tokens[at..]
                .iter()
                .position(is_braced)
                .map_or(1, |body| body + 1);
            continue;
        }
        match token {
            TokenTree::Group(group) => collect(group.stream(), depth, names),
            TokenTree::Ident(ident) if ident == "crate" && !follows_colon(&tokens, at) => {
                after_root(&tokens[at + 1..], names)
            }
            TokenTree::Ident(ident) if ident == "super" && !follows_colon(&tokens, at) => {
                let run = supers(&tokens[at..]);
                if run >= depth {
                    // Each is three tokens: the word and two colons.
                    after_root(&tokens[at + 3 * (run - 1) + 1..], names);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

pub(crate) fn is_braced(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

/// Returns whether this is `#[cfg(test)] mod NAME {`.
pub(crate) fn is_test_module(tokens: &[TokenTree]) -> bool {
    let [
        TokenTree::Punct(hash),
        TokenTree::Group(attribute),
        TokenTree::Ident(word),
        TokenTree::Ident(_),
        body,
        ..,
    ] = tokens
    else {
        return false;
    };
    let attribute = attribute.stream().to_string().replace(' ', "");
    hash.as_char() == '#' && attribute == "cfg(test)" && word == "mod" && is_braced(body)
}

pub(crate) fn is_colon(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':')
}

/// Returns whether the word is part of a longer path, as in `pub(in super::super)` read from its second word.
pub(crate) fn follows_colon(tokens: &[TokenTree], at: usize) -> bool {
    at >= 2 && is_colon(tokens.get(at - 1)) && is_colon(tokens.get(at - 2))
}

/// Returns how many `super` in a row a path begins with.
fn supers(tokens: &[TokenTree]) -> usize {
    tokens
        .chunks(3)
        .take_while(|part| {
            matches!(part.first(), Some(TokenTree::Ident(word)) if word == "super")
                && is_colon(part.get(1))
        })
        .count()
}

/// Adds the module that `::NAME` names, or all of `::{NAME, NAME::…}`.
fn after_root(tokens: &[TokenTree], names: &mut BTreeSet<String>) {
    if !(is_colon(tokens.first()) && is_colon(tokens.get(1))) {
        return;
    }
    match tokens.get(2) {
        Some(TokenTree::Ident(name)) => {
            names.insert(name.to_string());
        }
        Some(TokenTree::Group(group)) => {
            let mut is_first = true;
            for token in group.stream() {
                match token {
                    TokenTree::Ident(name) if is_first => {
                        names.insert(name.to_string());
                        is_first = false;
                    }
                    TokenTree::Punct(punct) if punct.as_char() == ',' => is_first = true,
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// Returns the groups of modules that import each other in a circle, sorted.
pub(crate) fn cycles(imports: &Imports) -> Vec<Vec<&str>> {
    let modules: BTreeSet<&str> = imports
        .keys()
        .flat_map(|(from, to)| [from.as_str(), to.as_str()])
        .collect();
    let reaches: BTreeMap<&str, BTreeSet<&str>> = modules
        .iter()
        .map(|module| (*module, reach(module, imports)))
        .collect();
    let mut found = BTreeSet::new();
    for (module, reached) in &reaches {
        let circle: Vec<&str> = reached
            .iter()
            .copied()
            .filter(|other| reaches[other].contains(module))
            .collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

/// Returns all modules that imports lead to from this one, itself only if it is in a circle.
fn reach<'a>(module: &str, imports: &'a Imports) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![module];
    while let Some(next) = open.pop() {
        for ((_, to), _) in imports.iter().filter(|((from, _), _)| from == next) {
            if reached.insert(to.as_str()) {
                open.push(to);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(depth: usize, text: &str) -> Vec<String> {
        let mut names = BTreeSet::new();
        collect(text.parse().unwrap(), depth, &mut names);
        names.into_iter().collect()
    }

    #[test]
    fn every_form_of_an_import_is_found() {
        assert_eq!(
            names(1, "use crate::{a::X, b::{Y, Z}, c};"),
            ["a", "b", "c"]
        );
        assert_eq!(
            names(1, "fn f() { crate::d::g(); println!(\"{}\", crate::e::H) }"),
            ["d", "e"]
        );
        assert_eq!(
            names(2, "use super::super::f::X; use super::sibling::Y;"),
            ["f"]
        );
        assert_eq!(
            names(1, "// use crate::no::X;\nconst T: &str = \"crate::no\";"),
            [""; 0]
        );
        assert_eq!(
            names(
                1,
                "#[cfg(test)] mod tests { use crate::no::X; } use crate::yes::X;"
            ),
            ["yes"]
        );
    }

    #[test]
    fn circles_are_found() {
        let edge = |from: &str, to: &str| ((from.to_owned(), to.to_owned()), BTreeSet::new());
        let imports = Imports::from([
            edge("a", "b"),
            edge("b", "c"),
            edge("c", "a"),
            edge("c", "d"),
        ]);
        assert_eq!(cycles(&imports), [["a", "b", "c"]]);
    }
}
