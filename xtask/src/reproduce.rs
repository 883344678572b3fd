//! `cargo xtask reproduce`: the agent comes out the same wherever it is built.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::build::{self, BuildFolder};
use crate::process;
use crate::target::Target;
use crate::workspace::Workspace;

/// Build the agent twice, in two folders, and compare
#[derive(clap::Args)]
#[command(after_help = "Exits 1 and names both files if they differ.

Examples:
  cargo xtask reproduce
  cargo xtask reproduce --target armv7-unknown-linux-musleabihf")]
pub(crate) struct Args {
    /// The target triple: one of the folders in targets/
    #[arg(
        long,
        value_name = "TRIPLE",
        default_value = "x86_64-unknown-linux-musl"
    )]
    target: String,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let target = Target::load(&workspace, &args.target)?;
    let here = build::agent(
        &workspace,
        &BuildFolder::of(&workspace),
        &target,
        build::DEVICE,
    )?;
    println!("{}", check(&workspace, &target, &here)?);
    Ok(ExitCode::SUCCESS)
}

/// Builds the agent once more, from a copy of the sources and into another folder, and compares it with the one
/// that was built `here`; what was compared, in a sentence.
pub(crate) fn check(workspace: &Workspace, target: &Target, here: &Path) -> Result<String> {
    let elsewhere = BuildFolder {
        root: workspace
            .tool_dir("reproduce")
            .join("a copy of the sources"),
        cross: workspace.tool_dir("reproduce").join("cross"),
    };
    copy_sources(&workspace.root, &elsewhere.root)?;
    let there = build::agent(workspace, &elsewhere, target, build::DEVICE)?;
    let [first, second] = [here, &there]
        .map(|file| fs::read(file).with_context(|| format!("cannot read {}", file.display())));
    let first = first?;
    if first != second? {
        bail!("{} and {} differ", here.display(), there.display());
    }
    Ok(format!(
        "{}: {} bytes, the same from two folders",
        target.triple,
        first.len()
    ))
}

/// Copies what a build reads: everything but what git and cargo keep for themselves.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let entries = fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?;
    let mut copy = Command::new("cp");
    copy.args(["--archive", "--"]);
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", from.display()))?;
        if entry.file_name() != "target" && entry.file_name() != ".git" {
            copy.arg(entry.path());
        }
    }
    process::run_aside(copy.arg(to))
}
