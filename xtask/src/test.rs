//! `cargo xtask test`: everything CI checks, in stages.

mod cross;
mod deps;
mod instructions;
mod quick;
pub(crate) mod suites;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;

use crate::fuzz;
use crate::process;
use crate::tools::{self, Tool};
use crate::workspace::Workspace;

/// Run everything that CI checks
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask test                      all stages, as CI runs them
  cargo xtask test --quick              format, lints and unit tests of what changed: before each commit
  cargo xtask test --only fmt,clippy    two stages of all
  cargo xtask test --only it            real relay, agent and ssh
  cargo xtask test --skip cross         without the programs for ARM
  cargo xtask test --only cross --target riscv64gc-unknown-linux-musl
                                        a target that CI leaves out: size, hardening, at work under qemu")]
pub(crate) struct Args {
    /// Run these stages only
    #[arg(long, value_name = "STAGES", value_delimiter = ',')]
    only: Vec<Stage>,
    /// Leave these stages out
    #[arg(long, value_name = "STAGES", value_delimiter = ',')]
    skip: Vec<Stage>,
    /// Check the format, and run the lints and unit tests of the packages that changed since the main branch
    #[arg(long, conflicts_with_all = ["only", "skip", "target"])]
    quick: bool,
    /// Targets of the stage cross, instead of CI's targets; may be given more than once
    #[arg(long, value_name = "TRIPLE")]
    target: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// rustfmt, check only
    Fmt,
    /// who may depend on what: deny.toml and the bans per crate
    Deps,
    /// clippy over all targets, warnings are errors
    Clippy,
    /// unit tests, documentation examples, simulation
    Unit,
    /// end to end: real processes, real ssh
    It,
    /// the agent for the triples of CI: size, hardening, at work under qemu, and one built twice alike
    Cross,
    /// every fuzz target for a short while
    Fuzz,
}

/// The notes of a stage that did not fail: lines worth reading once more at the end.
type Notes = Vec<String>;

/// Long enough to run through the corpus of the small targets; `cargo xtask fuzz` goes on from there.
const FUZZ_SECONDS: u32 = 6;

struct TestReport {
    stage: Stage,
    took: Duration,
    notes: Notes,
    failure: Option<anyhow::Error>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    if args.quick {
        return quick::run(&workspace).map(|()| ExitCode::SUCCESS);
    }
    let stages: Vec<Stage> = Stage::value_variants()
        .iter()
        .copied()
        .filter(|stage| args.only.is_empty() || args.only.contains(stage))
        .filter(|stage| !args.skip.contains(stage))
        .collect();
    // All that is missing is asked for at once, and before the first minute of compiling.
    let needs: Vec<Tool> = stages
        .iter()
        .flat_map(|stage| stage.needs())
        .copied()
        .collect();
    tools::ensure(&needs)?;

    let reports: Vec<TestReport> = stages
        .into_iter()
        .map(|stage| stage.report(&workspace, &args.target))
        .collect();
    Ok(summarise(&reports))
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Deps => "deps",
            Self::Clippy => "clippy",
            Self::Unit => "unit",
            Self::It => "it",
            Self::Cross => "cross",
            Self::Fuzz => "fuzz",
        }
    }

    fn needs(self) -> &'static [Tool] {
        match self {
            Self::Fmt => &[],
            Self::Clippy | Self::Fuzz => &[tools::CXX],
            Self::Deps => &[tools::PYTHON_VENV],
            Self::Unit => &[tools::PYTHON_VENV, tools::POSTGRES, tools::OPENSSL],
            Self::It => &[
                tools::SSH,
                tools::SFTP_SERVER,
                tools::RSYNC,
                tools::NFT,
                tools::CONNTRACK,
                tools::IP,
                tools::PS,
                tools::DBCLIENT,
                tools::PUTTY,
                tools::MOSH,
                tools::GIT,
                tools::FAKETIME,
                tools::MINISIGN,
                tools::CC,
                tools::STRIP,
                tools::POSTGRES,
                tools::HAPROXY,
                tools::PYTHON_VENV,
            ],
            Self::Cross => &[
                tools::QEMU_ARM,
                tools::QEMU_ARM_DYNAMIC,
                tools::FAKETIME,
                tools::QEMU_AARCH64,
                tools::QEMU_RISCV64,
                tools::READELF,
                tools::SSH,
                tools::SFTP_SERVER,
                tools::PYTHON_VENV,
            ],
        }
    }

    fn report(self, workspace: &Workspace, triples: &[String]) -> TestReport {
        println!("\n== {}", self.name());
        let start = Instant::now();
        let mut notes = Notes::new();
        let ended = match self {
            Self::Fmt => fmt(workspace),
            Self::Deps => deps::run(workspace, &mut notes),
            Self::Clippy => clippy(workspace),
            Self::Unit => suites::unit(workspace, &mut notes),
            Self::It => suites::integration(workspace, &mut notes),
            Self::Cross => cross::run(workspace, triples, &mut notes),
            Self::Fuzz => fuzz::smoke(workspace, FUZZ_SECONDS, &mut notes),
        };
        let took = start.elapsed();
        let failure = ended.err();
        match &failure {
            None => println!("== {} passed in {:.1} s", self.name(), took.as_secs_f64()),
            Some(error) => println!("== {} failed: {error:#}", self.name()),
        }
        TestReport {
            stage: self,
            took,
            notes,
            failure,
        }
    }
}

fn fmt(workspace: &Workspace) -> Result<()> {
    process::run(workspace.cargo().args(["fmt", "--all", "--", "--check"]))?;
    let mut fuzz = workspace.cargo();
    process::run(fuzz.args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--", "--check"]))
}

fn clippy(workspace: &Workspace) -> Result<()> {
    let mut clippy = workspace.cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--locked"]);
    process::run(clippy.args(["--", "-D", "warnings"]))?;
    clippy_of_fuzzing(workspace)
}

/// Lints the fuzz targets, so that a name they use and that was changed fails here and not at the last stage.
fn clippy_of_fuzzing(workspace: &Workspace) -> Result<()> {
    let mut clippy = workspace.cargo();
    clippy.args(["clippy", "--manifest-path", "fuzz/Cargo.toml", "--bins"]);
    process::run(clippy.args(["--locked", "--", "-D", "warnings"]))
}

fn summarise(reports: &[TestReport]) -> ExitCode {
    println!("\n== summary");
    for report in reports {
        let word = if report.failure.is_none() {
            "passed"
        } else {
            "FAILED"
        };
        println!(
            "{:8}{word}{:>9.1} s",
            report.stage.name(),
            report.took.as_secs_f64()
        );
        for note in &report.notes {
            println!("        {note}");
        }
        if let Some(error) = &report.failure {
            println!("        {error:#}");
        }
    }
    let failed: Vec<&str> = reports
        .iter()
        .filter(|report| report.failure.is_some())
        .map(|report| report.stage.name())
        .collect();
    let minutes = reports
        .iter()
        .map(|report| report.took)
        .sum::<Duration>()
        .as_secs_f64()
        / 60.0;
    let code = if failed.is_empty() {
        println!(
            "all {} stages passed in {minutes:.1} minutes",
            reports.len()
        );
        ExitCode::SUCCESS
    } else {
        println!(
            "failed: {} (of {} stages, {minutes:.1} minutes)",
            failed.join(", "),
            reports.len()
        );
        ExitCode::FAILURE
    };
    let total = suites::Total::of(reports.iter().flat_map(|report| &report.notes));
    if total != suites::Total::default() {
        println!("tests: {} passed, {} failed", total.passed, total.failed);
    }
    code
}
