//! Import cycles inside the folders of a crate, at every depth.
//!
//! Each folder is looked at by itself: which of its folders and files import from which other of them. What lies deeper
//! counts for the child that it is in. A folder's own `mod.rs` is the folder: what it imports from its children, and
//! what it defines and they import (`super::X`), joins no two of them. A name that it passes on from a child is that
//! child's.

use std::collections::BTreeSet;
use std::path::Path;

use crate::imports::{SourceFile, cycles, imports_within, read};

/// Returns each cycle of a crate as its folder and its members, which are sorted.
pub(crate) fn cycles_within(source: &Path) -> Vec<(String, Vec<String>)> {
    cycles_of(&read(source))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imports::tests::files;

    #[test]
    fn cycles_are_found_below_the_top() {
        let files = files(&[
            ("top/a", "use super::b::X;"),
            ("top/b/deep", "use crate::top::c::Y; use super::Own;"),
            ("top/c", "fn f() { crate::top::a::g() }"),
            ("other/a", "use crate::top::a::X; use super::b::Y;"),
            ("other/b", "use crate::top::c::Z;"),
        ]);
        let members = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(cycles_of(&files), [("top".to_owned(), members)]);
    }

    #[test]
    fn a_name_that_is_passed_on_hides_no_cycle() {
        let files = files(&[
            ("top", "mod a; mod b; pub use a::X; use b::Y; struct Own;"),
            ("top/a", "use super::{Own, Y};"),
            ("top/b", "use super::X;"),
        ]);
        let members = ["a", "b"].map(str::to_owned).to_vec();
        assert_eq!(cycles_of(&files), [("top".to_owned(), members)]);
    }
}
