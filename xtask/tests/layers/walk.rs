//! The files that the tests of structure read.

use std::fs;
use std::path::{Path, PathBuf};

/// Adds the sources of a folder and of those within it, without the folders and files that have one of the names `but`.
pub(crate) fn sources(folder: &Path, but: &[&str], files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.file_stem().unwrap().to_str().unwrap();
        if but.contains(&name) {
            continue;
        }
        if path.is_dir() {
            sources(&path, but, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}
