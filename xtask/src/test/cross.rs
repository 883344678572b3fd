//! The agent for each triple: it builds, it fits its size, it is hardened as it should be, and it does its
//! work under an emulator. One is built twice, to the same bytes.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::build::{self, BuildFolder};
use crate::process;
use crate::reproduce;
use crate::target::{Hardening, Target};
use crate::workspace::Workspace;

use super::{instructions, suites};

/// The target that is built once more, elsewhere, to the same bytes: any would do.
const REPRODUCED: &str = "arm-unknown-linux-musleabihf";

/// For CI's targets, or for `triples` if there are any.
pub(crate) fn run(
    workspace: &Workspace,
    triples: &[String],
    notes: &mut Vec<String>,
) -> Result<()> {
    let targets = if triples.is_empty() {
        let mut targets = Target::all(workspace)?;
        targets.retain(|target| target.settings.ci);
        targets
    } else {
        let load = |triple: &String| Target::load(workspace, triple);
        triples.iter().map(load).collect::<Result<_>>()?
    };
    let members: Vec<&Target> = targets.iter().collect();
    let binaries = build::agents(
        workspace,
        &BuildFolder::of(workspace),
        &members,
        build::DEVICE,
    )?;
    for (target, binary) in targets.iter().zip(&binaries) {
        notes.push(check(target, binary)?);
    }
    let at_work = at_work(workspace, &targets, &binaries, notes);
    let mut built = targets.iter().zip(&binaries);
    if let Some((target, here)) = built.find(|(target, _)| target.triple == REPRODUCED) {
        let same = reproduce::check(workspace, target, here);
        if let Ok(line) = &same {
            println!("{line}");
            notes.push(line.clone());
        }
        return at_work.and(same.map(drop));
    }
    at_work
}

/// The programs for other processors, each with a relay.
fn at_work(
    workspace: &Workspace,
    targets: &[Target],
    binaries: &[PathBuf],
    notes: &mut Vec<String>,
) -> Result<()> {
    let emulated = targets
        .iter()
        .filter(|target| !target.settings.runner.is_empty());
    let triples: Vec<&str> = emulated.map(|target| target.triple.as_str()).collect();
    if triples.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        let note = "not run under qemu: registering an emulator in a namespace takes root";
        println!("{note}");
        notes.push(note.into());
        return Ok(());
    }
    let list = workspace.tool_dir("emulated.json");
    fs::write(&list, programs(targets, binaries))
        .with_context(|| format!("cannot write {}", list.display()))?;
    let mut environment = vec![("HOLDFAST_EMULATED", list.into())];
    environment.extend(suites::build_programs(workspace)?);
    suites::emulated(workspace, &triples, &environment, notes)
}

/// Returns what the tests of emulated agents read: where each program is, and what runs it.
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
    if found.is_armv6() {
        instructions::are_of_armv6(binary)?;
    }
    let version = process::capture(target.command(binary).arg("--version"))?;
    if !version.starts_with("edge-agent ") {
        bail!("{} --version printed {version:?}", binary.display());
    }
    let line = format!("{}: {size} bytes, {}", target.triple, version.trim());
    println!("{line}");
    Ok(line)
}
