//! The state folder: whose it is, and who else can look into it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::Finding;

const CHECK: &str = "state";

/// The bits that let anybody but the owner in.
const OTHERS: u32 = 0o077;

/// Files that are named one by one; a folder with more wrong ones has one cause.
const MAX_NAMED: usize = 10;

pub(crate) fn check(folder: &Path) -> Vec<Finding> {
    match look(folder) {
        Err(error) => {
            let message = format!("cannot look into {}: {error}", folder.display());
            let remedy = "run this as the account of the relay or as root";
            vec![Finding::problem(CHECK, message, remedy)]
        }
        Ok(found) if found.is_empty() => {
            let message = format!("{}: closed to others, of one owner", folder.display());
            vec![Finding::ok(CHECK, message)]
        }
        Ok(found) => found,
    }
}

fn look(folder: &Path) -> io::Result<Vec<Finding>> {
    let own = fs::metadata(folder)?;
    let mut found = Vec::new();
    mode(folder, own.mode(), &mut found);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Not of what a link points to: a link out of the folder has the mode of its goal.
        let meta = entry.metadata()?;
        // A file system's own, and root's.
        if entry.file_name() == "lost+found" || found.len() >= MAX_NAMED {
            continue;
        }
        let path = entry.path();
        if !meta.is_symlink() {
            mode(&path, meta.mode(), &mut found);
        }
        if meta.uid() != own.uid() {
            let message = format!(
                "{} belongs to uid {} and the folder to uid {}: a relay that runs as the one cannot use the other's",
                path.display(),
                meta.uid(),
                own.uid()
            );
            let remedy = format!("chown {} {}", own.uid(), path.display());
            found.push(Finding::problem(CHECK, message, remedy));
        }
    }
    Ok(found)
}

fn mode(path: &Path, mode: u32, found: &mut Vec<Finding>) {
    if mode & OTHERS != 0 {
        let message = format!(
            "{} is open to others (mode {:04o})",
            path.display(),
            mode & 0o7777
        );
        let remedy = format!("chmod go= {}", path.display());
        found.push(Finding::problem(CHECK, message, remedy));
    }
}
