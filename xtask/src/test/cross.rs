//! The agent for each triple: it builds, it fits its size, it starts.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::build::{self, Place};
use crate::hardening::Hardening;
use crate::process;
use crate::target::Target;
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace, notes: &mut Vec<String>) -> Result<()> {
    let targets = Target::all(workspace)?;
    let members: Vec<&Target> = targets.iter().collect();
    let binaries = build::agents(workspace, &Place::of(workspace), &members, build::DEVICE)?;
    for (target, binary) in targets.iter().zip(&binaries) {
        notes.push(check(target, binary)?);
    }
    Ok(())
}

fn check(target: &Target, binary: &PathBuf) -> Result<String> {
    let size = fs::metadata(binary)
        .with_context(|| format!("cannot find {}", binary.display()))?
        .len();
    let max = target.settings.size_max;
    if size > max {
        bail!(
            "{} is {size} bytes, over its size-max of {max}",
            binary.display()
        );
    }
    let found = Hardening::of(binary)?;
    if let Some(difference) = target.hardening.difference(&found) {
        bail!(
            "{}: {difference}, as targets/{}/hardening.json has it",
            binary.display(),
            target.triple
        );
    }
    let version = process::capture(target.command(binary).arg("--version"))?;
    if !version.starts_with("edge-agent ") {
        bail!("{} --version printed {version:?}", binary.display());
    }
    let line = format!("{}: {size} bytes, {}", target.triple, version.trim());
    println!("{line}");
    Ok(line)
}
