//! The paths that a source file names, read from its tokens: comments and texts do not count, macros do.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path as it is written, one name an element.
#[derive(Debug)]
pub(crate) struct NamedPath {
    pub(crate) names: Vec<String>,
    /// The name that a `use` gives to it; `None` for a path elsewhere.
    pub(crate) import: Option<Import>,
}

/// A name that a `use` brings into its module.
#[derive(Clone, Debug)]
pub(crate) struct Import {
    /// `*` for all names of the path.
    pub(crate) name: String,
    /// True if it is an item of the file's module, which other modules may import from there.
    pub(crate) is_item: bool,
}

/// Returns all paths of a file, those of a group one by one. The tests within it are left out.
pub(crate) fn paths_of(tokens: TokenStream) -> Vec<NamedPath> {
    let mut paths = Vec::new();
    collect(tokens, true, &mut paths);
    paths
}

fn collect(tokens: TokenStream, is_top: bool, paths: &mut Vec<NamedPath>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let rest = &tokens[at..];
        if is_test_module(rest) {
            // The attribute, up to and with the module's body.
            at += rest.iter().position(is_braced).map_or(1, |body| body + 1);
            continue;
        }
        match token {
            TokenTree::Group(group) => collect(group.stream(), false, paths),
            TokenTree::Ident(word) if word == "use" => {
                let end = rest.iter().position(|token| is_mark(token, ';'));
                expand(&rest[1..end.unwrap_or(1)], &[], Some(is_top), paths);
                at += end.unwrap_or(0);
            }
            TokenTree::Ident(_) if leads_on(&rest[1..]) && !follows_colon(&tokens, at) => {
                expand(rest, &[], None, paths);
            }
            _ => {}
        }
        at += 1;
    }
}

/// Adds the path that begins here, behind `before`; of a group, each of its paths. `import` says whether it is one,
/// and whether it is an item of the file's module.
fn expand(
    tokens: &[TokenTree],
    before: &[String],
    import: Option<bool>,
    paths: &mut Vec<NamedPath>,
) {
    let mut add = |names: &[String], name: &str| {
        let names = names.to_vec();
        let name = name.to_owned();
        let import = import.map(|is_item| Import { name, is_item });
        paths.push(NamedPath { names, import });
    };
    match tokens {
        [TokenTree::Ident(name), rest @ ..] => {
            let names = [before, &[name.to_string()]].concat();
            match rest {
                _ if leads_on(rest) => expand(&rest[2..], &names, import, paths),
                [TokenTree::Ident(word), TokenTree::Ident(alias), ..] if word == "as" => {
                    add(without_self(&names), &alias.to_string());
                }
                _ => {
                    let names = without_self(&names);
                    add(names, names.last().unwrap());
                }
            }
        }
        [TokenTree::Group(group), ..] if is_braced(&tokens[0]) => {
            let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
            let parts = tokens.split(|token| is_mark(token, ','));
            for part in parts.filter(|part| !part.is_empty()) {
                expand(part, before, import, paths);
            }
        }
        [star, ..] if is_mark(star, '*') && import.is_some() => add(before, "*"),
        // A leading `::` is another crate's.
        _ if before.is_empty() => {}
        _ => add(before, before.last().unwrap()),
    }
}

/// Returns the path of `a::{self}`, which is `a`.
fn without_self(names: &[String]) -> &[String] {
    match names {
        [path @ .., last] if last == "self" && !path.is_empty() => path,
        _ => names,
    }
}

fn is_mark(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

fn is_braced(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

/// Returns whether this is `#[cfg(test)] mod NAME {`.
fn is_test_module(tokens: &[TokenTree]) -> bool {
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

/// Returns whether a path goes on here: `::`.
fn leads_on(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [one, two, ..] if is_mark(one, ':') && is_mark(two, ':'))
}

/// Returns whether the word is part of a longer path, as in `pub(in super::super)` read from its second word.
fn follows_colon(tokens: &[TokenTree], at: usize) -> bool {
    at >= 2 && leads_on(&tokens[at - 2..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Vec<String> {
        let paths = paths_of(text.parse().unwrap());
        let shown = paths.into_iter().map(|path| {
            let names = path.names.join("::");
            match path.import {
                None => names,
                Some(import) if import.is_item => format!("use {names} as {}", import.name),
                Some(import) => format!("local {names} as {}", import.name),
            }
        });
        shown.collect()
    }

    #[test]
    fn every_form_of_a_path_is_read() {
        let expected = ["use crate::a::X as X", "use b as b", "use b::c::Y as Z"];
        assert_eq!(
            written("use crate::{a::X, b}; pub(crate) use b::c::Y as Z;"),
            ["use crate::a::X as X", "use crate::b as b", expected[2],]
        );
        assert_eq!(
            written("use b::{self, c::*};"),
            [expected[1], "use b::c as *"]
        );
        let text = "fn f() { use a::B; println!(\"{}\", super::e::H); x::<Y>::z::<W>() }";
        assert_eq!(written(text), ["local a::B as B", "super::e::H", "x"]);
    }

    #[test]
    fn comments_texts_and_tests_are_not_read() {
        let text = "// use crate::no::X;\nconst T: &str = \"crate::no\";
            #[cfg(test)] mod tests { use crate::no::X; } use ::other::X; use crate::yes::X;";
        assert_eq!(written(text), ["use crate::yes::X as X"]);
    }
}
