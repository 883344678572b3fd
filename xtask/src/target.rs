//! The triples the agent is built for. What is special about each is in `targets/TRIPLE`.

mod hardening;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

pub(crate) use self::hardening::Hardening;
use crate::workspace::Workspace;

/// One triple with its settings.
pub(crate) struct Target {
    pub(crate) triple: String,
    pub(crate) settings: TargetSettings,
    pub(crate) hardening: Hardening,
}

/// `targets/TRIPLE/target.toml`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct TargetSettings {
    /// The runner of the binary on a build machine: program and arguments; empty where it runs as it is.
    pub(crate) runner: Vec<String>,
    /// The largest binary that may be shipped, in bytes.
    pub(crate) size_max: u64,
    /// True if each run of CI builds and tries it: it has three minutes for a target, and not for all.
    pub(crate) ci: bool,
    /// Features of the edge-agent's that are for this target alone.
    #[serde(default)]
    pub(crate) features: Vec<String>,
    /// A file beside this one that the compiler reads before each C and assembly file.
    #[serde(default)]
    pub(crate) include: Option<String>,
}

impl Target {
    /// Reads the settings of `triple`; a triple without a folder is an error that names the others.
    pub(crate) fn load(workspace: &Workspace, triple: &str) -> Result<Self> {
        let known = triples(workspace)?;
        if !known.iter().any(|known| known == triple) {
            bail!("no target \"{triple}\": there is {}", known.join(", "));
        }
        let folder = folder(workspace).join(triple);
        let settings = folder.join("target.toml");
        let hardening = folder.join("hardening.json");
        Ok(Self {
            triple: triple.to_owned(),
            settings: toml::from_str(&read(&settings)?)
                .with_context(|| format!("cannot use {}", settings.display()))?,
            hardening: serde_json::from_str(&read(&hardening)?)
                .with_context(|| format!("cannot use {}", hardening.display()))?,
        })
    }

    /// All targets that have a folder, by name.
    pub(crate) fn all(workspace: &Workspace) -> Result<Vec<Self>> {
        triples(workspace)?
            .iter()
            .map(|triple| Self::load(workspace, triple))
            .collect()
    }

    /// The file that the compiler reads first, in a checkout at `root`.
    pub(crate) fn include(&self, root: &Path) -> Option<PathBuf> {
        let file = self.settings.include.as_ref()?;
        Some(root.join("targets").join(&self.triple).join(file))
    }

    /// Returns whether it is built as others are, but for its processor.
    fn is_plain(&self) -> bool {
        self.settings.features.is_empty() && self.settings.include.is_none()
    }

    /// Returns whether one run of cargo can build both: it gives all targets of a run the features of each.
    pub(crate) fn goes_with(&self, other: &Self) -> bool {
        self.is_plain() && other.is_plain()
    }

    /// `binary` as a command of this machine, under an emulator where it needs one.
    pub(crate) fn command(&self, binary: &PathBuf) -> Command {
        match self.settings.runner.split_first() {
            None => Command::new(binary),
            Some((emulator, args)) => {
                let mut command = Command::new(emulator);
                command.args(args).arg(binary);
                command
            }
        }
    }
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root.join("targets")
}

fn triples(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = folder(workspace);
    let mut triples = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        if entry.path().join("target.toml").is_file() {
            triples.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    triples.sort();
    Ok(triples)
}
