//! The steps of an installation, each of which changes only what differs.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::InstallError;
use crate::os::state;

/// One thing to do.
#[derive(Debug)]
pub(super) enum InstallStep {
    /// The file has this content and mode.
    File {
        path: PathBuf,
        content: FileContent,
        mode: u32,
    },
    /// The path is a link to this.
    Link { path: PathBuf, to: PathBuf },
    /// Nothing is there.
    Gone(PathBuf),
    /// This is run.
    Run(Vec<String>),
}

impl InstallStep {
    /// Does it where it is not so already, and returns whether there was something to do.
    pub(super) fn make_so(
        &self,
        dry_run: bool,
        out: &mut dyn io::Write,
    ) -> Result<bool, InstallError> {
        if self.is_so() {
            return Ok(false);
        }
        let would = if dry_run { "would " } else { "" };
        say(out, format_args!("{would}{}", self.sentence(dry_run)))?;
        if !dry_run {
            self.act()?;
        }
        Ok(true)
    }

    fn is_so(&self) -> bool {
        match self {
            Self::File {
                path,
                content,
                mode,
            } => {
                let as_it_is = fs::metadata(path).map(|meta| meta.permissions().mode() & 0o7777);
                as_it_is.is_ok_and(|as_it_is| as_it_is == *mode)
                    && fs::read(path).is_ok_and(|bytes| bytes == content.bytes())
            }
            Self::Link { path, to } => fs::read_link(path).is_ok_and(|target| target == *to),
            Self::Gone(path) => fs::symlink_metadata(path).is_err(),
            Self::Run(_) => false,
        }
    }

    fn sentence(&self, with_text: bool) -> String {
        match self {
            Self::File { path, content, .. } => {
                let mut sentence = format!("write {}", path.display());
                if let (FileContent::Text(text), true) = (content, with_text) {
                    sentence.push(':');
                    for line in text.lines() {
                        let _ = write!(sentence, "\n    {line}");
                    }
                }
                sentence
            }
            Self::Link { path, to } => format!("link {} to {}", path.display(), to.display()),
            Self::Gone(path) => format!("remove {}", path.display()),
            Self::Run(command) => format!("run {}", command.join(" ")),
        }
    }

    fn act(&self) -> Result<(), InstallError> {
        match self {
            Self::File {
                path,
                content,
                mode,
            } => make_parent(path)
                .and_then(|()| state::replace(path, content.bytes(), *mode))
                .map_err(|source| io_error("write", path, source)),
            Self::Link { path, to } => make_parent(path)
                .and_then(|()| match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => symlink(to, path),
                })
                .map_err(|source| io_error("link", path, source)),
            Self::Gone(path) => if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            }
            .map_err(|source| io_error("remove", path, source)),
            Self::Run(command) => run(command),
        }
    }
}

/// The content of a file to install.
#[derive(Debug)]
pub(super) enum FileContent {
    Text(String),
    /// The agent.
    Program(Vec<u8>),
}

impl FileContent {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Program(bytes) => bytes,
        }
    }
}

fn make_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => DirBuilder::new().recursive(true).mode(0o755).create(parent),
        None => Ok(()),
    }
}

fn run(command: &[String]) -> Result<(), InstallError> {
    let Some((program, args)) = command.split_first() else {
        return Ok(());
    };
    let failed = |how: String| InstallError::Command(command.join(" "), how);
    let status = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .status()
        .map_err(|error| failed(error.to_string()))?;
    if status.success() {
        Ok(())
    } else {
        Err(failed(status.to_string()))
    }
}

/// Writes a line.
pub(super) fn say(
    out: &mut dyn io::Write,
    text: std::fmt::Arguments<'_>,
) -> Result<(), InstallError> {
    writeln!(out, "{text}").map_err(|source| io_error("write to", Path::new("stdout"), source))
}

/// Returns the error of a step on a path.
pub(super) fn io_error(verb: &'static str, path: &Path, source: io::Error) -> InstallError {
    InstallError::Io {
        verb,
        path: path.to_owned(),
        source,
    }
}
