//! A Debian package with one program and its service, by `dpkg-deb`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{fresh_folder, place, read, write};
use crate::process;
use crate::workspace::Workspace;

const MAINTAINER: &str = "Holdfast <packages@holdfast.invalid>";

/// The time when everything in a package was made, in seconds since 1970: the same bytes from the same program,
/// wherever and whenever it is packed.
const EPOCH: &str = "1795305600";

/// The data that differs between our packages.
pub(super) struct Deb {
    pub(super) name: &'static str,
    /// The name of the program in `/usr/bin`.
    pub(super) program: &'static str,
    pub(super) architecture: String,
    /// A package that no Debian has by itself, if it needs one.
    pub(super) depends: Option<&'static str>,
    pub(super) summary: &'static str,
    /// Further lines begin with a space, as in a control file.
    pub(super) description: &'static str,
    pub(super) binary: PathBuf,
    /// Its manual pages.
    pub(super) manual: PathBuf,
    pub(super) unit_name: &'static str,
    pub(super) unit: String,
    /// The folder that is removed when the package is purged.
    pub(super) state: &'static str,
}

impl Deb {
    /// Puts it together, and gives its path.
    pub(super) fn build(&self, workspace: &Workspace, out: &Path) -> Result<PathBuf> {
        let file = format!(
            "{}_{}_{}",
            self.name,
            env!("CARGO_PKG_VERSION"),
            self.architecture
        );
        let root = fresh_folder(workspace, &file)?;
        place(
            &self.binary,
            &root.join("usr/bin").join(self.program),
            0o755,
        )?;
        let unit = root.join("usr/lib/systemd/system").join(self.unit_name);
        write(&unit, &self.unit, 0o644)?;
        self.manual(&root)?;
        self.documents(workspace, &root)?;
        self.control(workspace, &root)?;

        let path = out.join(format!("{file}.deb"));
        let mut build = Command::new("dpkg-deb");
        build
            .args(["--root-owner-group", "-Zxz", "--build"])
            .arg(&root)
            .arg(&path)
            .env("SOURCE_DATE_EPOCH", EPOCH);
        process::run_aside(&mut build)?;
        Ok(path)
    }

    fn manual(&self, root: &Path) -> Result<()> {
        let folder = root.join("usr/share/man/man1");
        for page in files(&self.manual)? {
            let name = page.file_name().context("a page has a name")?;
            let page_here = folder.join(name);
            place(&page, &page_here, 0o644)?;
            process::run_aside(Command::new("gzip").arg("-9n").arg(&page_here))?;
        }
        Ok(())
    }

    fn documents(&self, workspace: &Workspace, root: &Path) -> Result<()> {
        let folder = root.join("usr/share/doc").join(self.name);
        let mut date = Command::new("date");
        let date = process::capture(date.args(["-u", "-R", "-d", &format!("@{EPOCH}")]))?;
        let changes = format!(
            "{} ({}) stable; urgency=medium\n\n  * CHANGELOG.md.gz tells what is new.\n\n -- {MAINTAINER}  {date}",
            self.name,
            env!("CARGO_PKG_VERSION"),
        );
        let news = read(&workspace.root.join("CHANGELOG.md"))?;
        for (name, text) in [("changelog", &changes), ("CHANGELOG.md", &news)] {
            let file = folder.join(name);
            write(&file, text, 0o644)?;
            process::run_aside(Command::new("gzip").arg("-9n").arg(&file))?;
        }
        write(
            &folder.join("copyright"),
            "Copyright by the authors of Holdfast. All rights reserved.\n",
            0o644,
        )
    }

    fn control(&self, workspace: &Workspace, root: &Path) -> Result<()> {
        let folder = root.join("DEBIAN");
        let size = installed_size(&root.join("usr"))?;
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nSection: net\n\
             Priority: optional\nMaintainer: {MAINTAINER}\n\
             Installed-Size: {kib}\n{depends}Description: {summary}\n {description}\n",
            name = self.name,
            version = env!("CARGO_PKG_VERSION"),
            architecture = self.architecture,
            kib = size.div_ceil(1024),
            depends = self
                .depends
                .map(|depends| format!("Depends: {depends}\n"))
                .unwrap_or_default(),
            summary = self.summary,
            description = self.description,
        );
        write(&folder.join("control"), &control, 0o644)?;
        for script in ["postinst", "prerm", "postrm"] {
            let text = read(&workspace.root.join("packaging/deb").join(script))?
                .replace("@UNIT@", self.unit_name)
                .replace("@PROGRAM@", self.program)
                .replace("@STATE@", self.state);
            write(&folder.join(script), &text, 0o755)?;
        }
        Ok(())
    }
}

/// Bytes of all files below.
fn installed_size(folder: &Path) -> Result<u64> {
    let mut size = 0;
    for path in files(folder)? {
        let meta =
            fs::metadata(&path).with_context(|| format!("cannot look at {}", path.display()))?;
        size += if meta.is_dir() {
            installed_size(&path)?
        } else {
            meta.len()
        };
    }
    Ok(size)
}

/// Returns what lies in a folder, in the order of its names.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("cannot list {}", folder.display());
    let entries = fs::read_dir(folder).with_context(context)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths
        .collect::<std::io::Result<_>>()
        .with_context(context)?;
    paths.sort_unstable();
    Ok(paths)
}
