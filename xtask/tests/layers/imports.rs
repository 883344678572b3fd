//! Finds the modules of a crate that import from each other.
//!
//! A name that a module passes on (`pub use`, or a `use` that its children see) counts for the module that passes it on
//! and for the one that defines it, however many there are in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::paths::{NamedPath, paths_of};
use crate::walk::sources;

/// From one module to another, with the files that import.
pub(crate) type Imports = BTreeMap<(String, String), BTreeSet<String>>;

/// The names of a module or an item, from the crate's root.
type FullPath = Vec<String>;

/// Modules that are left out: they measure, and may import what they like.
const FREE: [&str; 1] = ["figures"];

/// Most imports in a row by which a name is passed on.
const MAX_HOPS: usize = 8;

/// A file's place in its crate, and all that it names there.
pub(crate) struct SourceFile {
    pub(crate) module: FullPath,
    pub(crate) paths: BTreeSet<FullPath>,
}

/// The names that modules pass on, with what they name.
#[derive(Default)]
struct PassedOn {
    modules: BTreeSet<FullPath>,
    names: BTreeMap<FullPath, BTreeSet<FullPath>>,
    /// Of a module all of whose names are passed on.
    globs: BTreeMap<FullPath, BTreeSet<FullPath>>,
}

/// Reads all of a crate's sources but its tests.
pub(crate) fn read(source: &Path) -> Vec<SourceFile> {
    let mut files = Vec::new();
    sources(source, &["tests", "golden"], &mut files);
    let read = |file: &std::path::PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        let tokens = text
            .parse()
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        (module_of(source, file), paths_of(tokens))
    };
    resolve_all(&files.iter().map(read).collect::<Vec<_>>())
}

/// Returns which top-level module of a crate imports from which other.
pub(crate) fn imports_of(source: &Path) -> Imports {
    let mut imports = imports_within(&[], &read(source));
    imports.retain(|(from, _), _| !FREE.contains(&from.as_str()));
    imports
}

/// Returns which child of a folder imports from which other.
pub(crate) fn imports_within(folder: &[String], files: &[SourceFile]) -> Imports {
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

fn module_of(source: &Path, file: &Path) -> FullPath {
    let path = file.strip_prefix(source).unwrap().with_extension("");
    let mut module: FullPath = path
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

/// Returns all files with what they name, and what is behind the names.
pub(crate) fn resolve_all(files: &[(FullPath, Vec<NamedPath>)]) -> Vec<SourceFile> {
    let mut passed_on = PassedOn::default();
    for (module, _) in files {
        let prefixes = (0..=module.len()).map(|depth| module[..depth].to_vec());
        passed_on.modules.extend(prefixes);
    }
    let mut found = Vec::new();
    for (module, paths) in files {
        let own = passed_on.own_names(module, paths);
        for path in paths {
            let Some(import) = path.import.as_ref().filter(|import| import.is_item) else {
                continue;
            };
            let full = passed_on.full_paths(&path.names, module, &own);
            match import.name.as_str() {
                "*" => passed_on.globs.entry(module.clone()).or_default(),
                name => {
                    let name = [&module[..], &[name.to_owned()]].concat();
                    passed_on.names.entry(name).or_default()
                }
            }
            .extend(full);
        }
        found.push((module, paths, own));
    }
    let resolve = |(module, paths, own): (&FullPath, &Vec<NamedPath>, _)| SourceFile {
        module: module.clone(),
        paths: paths
            .iter()
            .flat_map(|path| passed_on.full_paths(&path.names, module, &own))
            .flat_map(|path| passed_on.follow(path))
            .collect(),
    };
    found.into_iter().map(resolve).collect()
}

impl PassedOn {
    /// Returns what the names stand for that a file's imports bring in.
    fn own_names(
        &self,
        module: &[String],
        paths: &[NamedPath],
    ) -> BTreeMap<String, BTreeSet<FullPath>> {
        let mut own: BTreeMap<String, BTreeSet<FullPath>> = BTreeMap::new();
        // An import may begin with a name that another one of the file brings in.
        for _ in 0..2 {
            for path in paths {
                let Some(import) = &path.import else {
                    continue;
                };
                // `use a::a` would be followed for ever.
                if path.names[0] != import.name || path.names.len() == 1 {
                    let full = self.full_paths(&path.names, module, &own);
                    own.entry(import.name.clone()).or_default().extend(full);
                }
            }
        }
        own
    }

    /// Returns the path from the crate's root; none if it is of another crate, several if the name has several meanings.
    fn full_paths(
        &self,
        names: &[String],
        module: &[String],
        own: &BTreeMap<String, BTreeSet<FullPath>>,
    ) -> Vec<FullPath> {
        let (head, rest) = names.split_first().unwrap();
        let of_child = [module, std::slice::from_ref(head)].concat();
        match head.as_str() {
            "crate" => vec![rest.to_vec()],
            "self" | "super" => {
                let rest = names.iter().skip_while(|name| *name == "self");
                let rest: Vec<_> = rest.cloned().collect();
                let up = rest.iter().take_while(|name| *name == "super").count();
                vec![[&module[..module.len().saturating_sub(up)], &rest[up..]].concat()]
            }
            _ if self.modules.contains(&of_child) => vec![[&of_child, rest].concat()],
            _ => {
                let bases = own.get(head).into_iter().flatten();
                bases.map(|base| [base, rest].concat()).collect()
            }
        }
    }

    /// Returns the path and those that it leads to, by one import after another.
    fn follow(&self, path: FullPath) -> BTreeSet<FullPath> {
        let mut found = BTreeSet::from([path.clone()]);
        let mut open = vec![path];
        for _ in 0..MAX_HOPS {
            let next = open.iter().flat_map(|path| self.step(path));
            open = next.filter(|path| found.insert(path.clone())).collect();
        }
        found
    }

    /// Returns what the longest part of the path that is passed on stands for, with the rest of the path.
    fn step(&self, path: &[String]) -> Vec<FullPath> {
        for depth in (1..=path.len()).rev() {
            let (name, rest) = path.split_at(depth);
            if self.modules.contains(name) {
                let globs = self.globs.get(name).into_iter().flatten();
                return globs.map(|glob| [glob, rest].concat()).collect();
            }
            if let Some(targets) = self.names.get(name) {
                return targets.iter().map(|to| [to, rest].concat()).collect();
            }
        }
        Vec::new()
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
pub(crate) mod tests {
    use super::*;

    /// Returns the files of a crate, from their modules and texts.
    pub(crate) fn files(texts: &[(&str, &str)]) -> Vec<SourceFile> {
        let file = |(module, text): &(&str, &str)| {
            let module = module.split('/').map(str::to_owned).collect();
            (module, paths_of(text.parse().unwrap()))
        };
        resolve_all(&texts.iter().map(file).collect::<Vec<_>>())
    }

    /// Returns what the first of the files names.
    fn named(texts: &[(&str, &str)]) -> Vec<String> {
        let paths = &files(texts)[0].paths;
        paths.iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn paths_are_resolved_from_every_form() {
        let text = "use crate::{a::X, b::{self, c::Y}}; use super::d::Z; use super::super::e;
            use other::W; fn f() { self::g::h(); b::i(); W::new(); k::l() }";
        let found = named(&[("m/n", text), ("m/n/k", "")]);
        let expected = [
            "a::X",
            "b",
            "b::c::Y",
            "b::i",
            "e",
            "m::d::Z",
            "m::n::g::h",
            "m::n::k::l",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn names_are_followed_to_where_they_are_defined() {
        let own = (
            "m/a",
            "use super::X; fn f() { super::g::<u8>(); crate::n::Y::z() }",
        );
        let folder = ("m", "pub(crate) use b::X; use b::h as g;");
        let through = ("n", "pub use self::o::*;");
        let found = named(&[
            own,
            folder,
            through,
            ("m/b", "pub use crate::p::X;"),
            ("n/o", ""),
        ]);
        let expected = [
            "m::X",
            "m::b::X",
            "m::b::h",
            "m::g",
            "n::Y::z",
            "n::o::Y::z",
            "p::X",
        ];
        assert_eq!(found, expected);
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
