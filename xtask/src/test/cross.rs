//! The agent for each triple: it builds, it fits its size, it is hardened as it should be, and it does its
//! work under an emulator.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::build::{self, Place};
use crate::hardening::Hardening;
use crate::process;
use crate::target::Target;
use crate::workspace::Workspace;

use super::suites;

pub(crate) fn run(workspace: &Workspace, notes: &mut Vec<String>) -> Result<()> {
    let mut targets = Target::all(workspace)?;
    targets.retain(|target| target.settings.ci);
    let members: Vec<&Target> = targets.iter().collect();
    let binaries = build::agents(workspace, &Place::of(workspace), &members, build::DEVICE)?;
    for (target, binary) in targets.iter().zip(&binaries) {
        notes.push(check(target, binary)?);
    }
    if !rustix::process::geteuid().is_root() {
        let note = "not run under qemu: registering an emulator in a namespace takes root";
        println!("{note}");
        notes.push(note.into());
        return Ok(());
    }
    let list = workspace.tool_dir("emulated.json");
    fs::write(&list, programs(&targets, &binaries))
        .with_context(|| format!("cannot write {}", list.display()))?;
    let mut environment = vec![("HOLDFAST_EMULATED", list.into())];
    environment.extend(suites::build_programs(workspace)?);
    let emulated = targets
        .iter()
        .filter(|target| !target.settings.runner.is_empty());
    let triples: Vec<&str> = emulated.map(|target| target.triple.as_str()).collect();
    suites::emulated(workspace, &triples, &environment, notes)
}

/// What the tests of emulated agents read: where each program is, and what runs it.
fn programs(targets: &[Target], binaries: &[PathBuf]) -> String {
    let entries = targets.iter().zip(binaries).map(|(target, binary)| {
        let entry = json!({"program": binary, "runner": target.settings.runner});
        (target.triple.clone(), entry)
    });
    Value::Object(entries.collect()).to_string()
}

fn check(target: &Target, binary: &PathBuf) -> Result<String> {
    let size = fs::metadata(binary)
        .with_context(|| format!("cannot find {}", binary.display()))?
        .len();
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
