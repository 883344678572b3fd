//! `cargo xtask bench`: ours beside its peers, in one run, in the network of `tests/bench`.

mod footprint;
mod size;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::process;
use crate::tools::{self, Tool};
use crate::workspace::Workspace;

/// Compare with OpenSSH's chain, rathole and dropbear, in network namespaces; or measure one part alone
#[derive(clap::Args)]
#[command(
    after_help = "Needs root. Prints a table and leaves JSON and Markdown in target/bench. A peer that is not installed is
left out; tests/bench/README.md tells how to install them. Quote medians and ratios of one run: machines
are noisy, and the table marks what was measured beside other load.

Examples:
  cargo xtask bench -- --quick               a few minutes
  cargo xtask bench                          everything, more than an hour
  cargo xtask bench -- --phases echo,echonet --drivers holdfast,openssh
  cargo xtask bench --before HEAD~1 -- --quick --drivers holdfast,holdfast-jump,before,before-jump,openssh
                                             the same beside the programs of an earlier commit
  cargo xtask bench audit                    the audit log with a million events; needs no root
  cargo xtask bench control                  decisions and quotas; needs no root
  cargo xtask bench cluster                  slots and the audit log on a PostgreSQL server; needs no root
  cargo xtask bench recording                what a recording costs, end to end; needs no root
  cargo xtask bench sftp                     our sftp server beside OpenSSH's; needs no root
  cargo xtask bench footprint                the agent's size by crate; its processes beside OpenSSH's and dropbear's
  cargo xtask bench footprint -- --idle 600  the same, and ten minutes of doing nothing for each"
)]
pub(crate) struct Args {
    /// Measure this part alone
    #[arg(value_enum)]
    part: Option<BenchPart>,
    /// Measure the programs of this commit too, as the drivers `before` and `before-jump`
    #[arg(long, value_name = "COMMIT", conflicts_with = "part")]
    before: Option<String>,
    /// Options of tests/bench/run.py
    #[arg(last = true)]
    options: Vec<OsString>,
}

/// A part with figures of its own: most are tests that are ignored, because they take minutes.
#[derive(Clone, Copy, clap::ValueEnum)]
enum BenchPart {
    /// Pages of a million events, and how fast events are recorded
    Audit,
    /// Decisions a second, and how long a slot of a quota takes beside 10,000 in use
    Control,
    /// The same on a PostgreSQL server, and how fast three writers record events there
    Cluster,
    /// Recorded sessions beside unrecorded ones, echo beside an upload, flash and memory
    Recording,
    /// One large file and 2,000 small ones, from and to our sftp server and OpenSSH's
    Sftp,
    /// The agent's size by section and crate; memory, wake-ups and traffic beside OpenSSH's and dropbear's processes
    Footprint,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    if let Some(part) = args.part {
        let (package, tests, filter) = match part {
            BenchPart::Audit => ("relay", ["--lib"].as_slice(), "figures::audit::"),
            BenchPart::Control => ("relay", ["--lib"].as_slice(), "figures::control::"),
            BenchPart::Cluster => ("relay", ["--lib"].as_slice(), "figures::cluster::"),
            BenchPart::Recording => (
                "holdfast-tests",
                ["--test", "it"].as_slice(),
                "recordings::figures::",
            ),
            BenchPart::Sftp => ("edge-agent", ["--test", "sftp_figures"].as_slice(), ""),
            BenchPart::Footprint => return footprint::run(&workspace, &args.options),
        };
        match part {
            BenchPart::Recording => {
                tools::ensure(&[tools::SSH])?;
                build_programs(&workspace)?;
            }
            BenchPart::Cluster => tools::ensure(&[tools::POSTGRES])?,
            _ => {}
        }
        let mut figures = workspace.cargo();
        figures.args(["test", "--release", "-p", package]);
        figures.args(tests).arg(filter);
        programs(&workspace, &mut figures);
        process::run(figures.args(["--", "--ignored", "--nocapture"]))?;
        return Ok(ExitCode::SUCCESS);
    }
    tools::ensure(&TOOLS)?;
    build_programs(&workspace)?;
    let folder = workspace.target.join("bench");
    std::fs::create_dir_all(&folder)?;
    let mut bench = Command::new(workspace.root.join("tests/bench/run.py"));
    if let Some(commit) = &args.before {
        let programs = build_before(&workspace, commit)?;
        bench
            .env("BEFORE_RELAY", programs.join("relay"))
            .env("BEFORE_AGENT", programs.join("edge-agent"));
    }
    programs(&workspace, &mut bench)
        .arg("--out")
        .arg(folder.join("figures.json"))
        .args(&args.options);
    process::run(&mut bench)?;
    print!("{}", std::fs::read_to_string(folder.join("figures.md"))?);
    Ok(ExitCode::SUCCESS)
}

/// The tools that `tests/bench` uses.
const TOOLS: [Tool; 7] = [
    tools::SSH,
    tools::SSHD,
    tools::IP,
    tools::NFT,
    tools::CONNTRACK,
    tools::DBCLIENT,
    tools::PYTHON,
];

/// Release builds of the programs.
fn build_programs(workspace: &Workspace) -> Result<()> {
    // One invocation each: together they would share features, and link both crypto providers.
    for package in ["relay", "edge-agent"] {
        build_program(workspace, package)?;
    }
    Ok(())
}

fn build_program(workspace: &Workspace, package: &str) -> Result<()> {
    let mut build = workspace.cargo();
    process::run_aside(build.args(["build", "--release", "-p", package]))
}

/// Builds the release programs of an earlier commit, and returns their folder. They are built in a checkout of their
/// own and kept by the commit's id, so that a second run finds them.
fn build_before(workspace: &Workspace, commit: &str) -> Result<PathBuf> {
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(&workspace.root).args(args);
        git
    };
    let commit = format!("{commit}^{{commit}}");
    let id = process::capture(&mut git(&["rev-parse", "--verify", "--quiet", &commit]))
        .with_context(|| format!("{commit} is no commit of this repository"))?;
    let id = id.trim();
    let programs = workspace.target.join("bench/before").join(id);
    if programs.join("edge-agent").exists() {
        return Ok(programs);
    }
    let checkout = workspace.target.join("bench/before/checkout");
    // One that an interrupted run left; there need not be one.
    let _ = std::fs::remove_dir_all(&checkout);
    process::run(&mut git(&["worktree", "prune"]))?;
    let mut add = git(&["worktree", "add", "--quiet", "--detach"]);
    process::run(add.arg(&checkout).arg(id))?;
    let built = workspace.target.join("bench/before/target");
    for package in ["relay", "edge-agent"] {
        let mut build = workspace.cargo();
        build
            .current_dir(&checkout)
            .env("CARGO_TARGET_DIR", &built)
            .args(["build", "--release", "--locked", "-p", package]);
        process::run_aside(&mut build)?;
    }
    std::fs::create_dir_all(&programs)?;
    // The agent comes last: it is what says that both are here.
    for program in ["relay", "edge-agent"] {
        std::fs::copy(built.join("release").join(program), programs.join(program))
            .with_context(|| format!("cannot keep {program} of {id}"))?;
    }
    let mut remove = git(&["worktree", "remove", "--force"]);
    process::run(remove.arg(&checkout))?;
    Ok(programs)
}

/// Tells `command` where they are.
fn programs<'c>(workspace: &Workspace, command: &'c mut Command) -> &'c mut Command {
    let release = workspace.target.join("release");
    command
        .env("HOLDFAST_RELAY", release.join("relay"))
        .env("HOLDFAST_AGENT", release.join("edge-agent"))
}
