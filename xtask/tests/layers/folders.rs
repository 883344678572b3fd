//! Import cycles inside the folders of a crate, at every depth.
//!
//! Each folder is looked at by itself: which of its folders and files import from which other of them. What lies deeper
//! counts for the child that it is in. A folder's own `mod.rs` is the folder: what it imports from its children, and
//! what they import from it (`super::X`), joins no two of them, and neither does a name that it passes on from a child.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};

use crate::imports::{
    Imports, cycles, follows_colon, is_braced, is_colon, is_test_module, sources,
};

/// A file's place in its crate, and the paths that it names, from the crate's root.
struct SourceFile {
    module: Vec<String>,
    paths: Vec<Vec<String>>,
}

/// Returns each cycle of a crate as its folder and its members, which are sorted.
pub(crate) fn cycles_within(source: &Path) -> Vec<(String, Vec<String>)> {
    let mut files = Vec::new();
    sources(source, &mut files);
    let read = |file: &std::path::PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        let tokens = text
            .parse()
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        read_tokens(module_of(source, file), tokens)
    };
    cycles_of(&files.iter().map(read).collect::<Vec<_>>())
}

fn cycles_of(files: &[SourceFile]) -> Vec<(String, Vec<String>)> {
    let folders: BTreeSet<&[String]> = files
        .iter()
        .flat_map(|file| (0..file.module.len()).map(|depth| &file.module[..depth]))
        .collect();
    let mut found = Vec::new();
    for folder in folders {
        let imports = imports_within(folder, files);
        for members in cycles(&imports) {
            let members = members.into_iter().map(str::to_owned).collect();
            found.push((folder.join("/"), members));
        }
    }
    found
}

/// Returns which child of a folder imports from which other.
fn imports_within(folder: &[String], files: &[SourceFile]) -> Imports {
    let child = |path: &[String]| path.strip_prefix(folder)?.first().cloned();
    let children: BTreeSet<String> = files
        .iter()
        .filter_map(|file| child(&file.module))
        .collect();
    let mut imports = Imports::new();
    for file in files {
        let Some(from) = child(&file.module) else {
            continue;
        };
        let named = file.paths.iter().filter_map(|path| child(path));
        for to in named.filter(|to| *to != from && children.contains(to)) {
            imports
                .entry((from.clone(), to))
                .or_default()
                .insert(file.module.join("/"));
        }
    }
    imports
}

fn module_of(source: &Path, file: &Path) -> Vec<String> {
    let path = file.strip_prefix(source).unwrap().with_extension("");
    let mut module: Vec<String> = path
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    if matches!(
        module.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        module.pop();
    }
    module
}

fn read_tokens(module: Vec<String>, tokens: TokenStream) -> SourceFile {
    let mut paths = Vec::new();
    collect(tokens, &mut paths);
    let paths = paths
        .into_iter()
        .map(|path| resolve(path, &module))
        .collect();
    SourceFile { module, paths }
}

/// Adds the paths that begin with `crate`, `self` or `super`, those of a group one by one.
fn collect(tokens: TokenStream, paths: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if is_test_module(&tokens[at..]) {
            at += tokens[at..]
                .iter()
                .position(is_braced)
                .map_or(1, |body| body + 1);
            continue;
        }
        match token {
            TokenTree::Group(group) => collect(group.stream(), paths),
            TokenTree::Ident(ident)
                if ["crate", "self", "super"].iter().any(|head| ident == head)
                    && is_colon(tokens.get(at + 1))
                    && !follows_colon(&tokens, at) =>
            {
                expand(&tokens[at..], Vec::new(), paths);
            }
            _ => {}
        }
        at += 1;
    }
}

/// Adds the path that begins here, behind `before`; of a group, each of its paths.
fn expand(tokens: &[TokenTree], mut before: Vec<String>, paths: &mut Vec<Vec<String>>) {
    match tokens.first() {
        Some(TokenTree::Ident(name)) => {
            before.push(name.to_string());
            match is_colon(tokens.get(1)) && is_colon(tokens.get(2)) {
                true => expand(&tokens[3..], before, paths),
                false => paths.push(before),
            }
        }
        Some(token @ TokenTree::Group(group)) if is_braced(token) => {
            let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
            let comma =
                |token: &TokenTree| matches!(token, TokenTree::Punct(it) if it.as_char() == ',');
            for part in tokens.split(comma).filter(|part| !part.is_empty()) {
                expand(part, before.clone(), paths);
            }
        }
        _ => paths.push(before),
    }
}

/// Returns the path from the crate's root.
fn resolve(path: Vec<String>, module: &[String]) -> Vec<String> {
    let mut base = module.to_vec();
    let mut rest = path.into_iter().peekable();
    match rest.peek().map(String::as_str) {
        Some("crate") => {
            base.clear();
            rest.next();
        }
        Some("self") => {
            rest.next();
        }
        _ => {}
    }
    while rest.next_if(|part| part == "super").is_some() {
        base.pop();
    }
    base.extend(rest);
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(module: &str, text: &str) -> SourceFile {
        let module = module.split('/').map(str::to_owned).collect();
        read_tokens(module, text.parse().unwrap())
    }

    #[test]
    fn paths_are_resolved_from_every_form() {
        let text = "use crate::{a::X, b::{self, c::Y}}; use super::d::Z; use super::super::e;
            fn f() { self::g::h() } #[cfg(test)] mod tests { use crate::no::X; }";
        let found = file("m/n", text).paths;
        let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
        let expected = ["a::X", "b::self", "b::c::Y", "m::d::Z", "e", "m::n::g::h"];
        assert_eq!(found, expected);
    }

    #[test]
    fn cycles_are_found_below_the_top() {
        let files = [
            file("top/a", "use super::b::X;"),
            file("top/b/deep", "use crate::top::c::Y; use super::Own;"),
            file("top/c", "fn f() { crate::top::a::g() }"),
            file("other/a", "use crate::top::a::X; use super::b::Y;"),
            file("other/b", "use crate::top::c::Z;"),
        ];
        let members = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(cycles_of(&files), [("top".to_owned(), members)]);
    }
}
