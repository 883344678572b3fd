//! `cargo xtask fuzz`: the targets in `fuzz/`, without cargo-fuzz and without a nightly compiler.
//!
//! libFuzzer needs only LLVM's coverage counters, which a stable rustc can insert. cargo-fuzz's
//! address sanitizer does need nightly; `unsafe` is forbidden here, so it would find little.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process;
use crate::tools;
use crate::workspace::Workspace;

/// Fuzz what reads from the network
#[derive(clap::Args)]
#[command(
    after_help = "A finding is kept in fuzz/artifacts/TARGET; what was learnt in fuzz/corpus/TARGET.

Examples:
  cargo xtask fuzz                           every target, 60 s each
  cargo xtask fuzz frame --seconds 3600      one target, an hour
  cargo xtask fuzz frame --input fuzz/artifacts/frame/crash-1f2e
                                             once more with one input"
)]
pub(crate) struct Args {
    /// Targets in fuzz/fuzz_targets (default: all)
    targets: Vec<String>,
    /// Seconds for each target
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Run the one target with this input only
    #[arg(long, value_name = "FILE", conflicts_with = "seconds")]
    input: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    tools::ensure(&[tools::CXX])?;
    let built = build(&workspace)?;
    let chosen: Vec<&Fuzzer> = if args.targets.is_empty() {
        built.iter().collect()
    } else {
        args.targets
            .iter()
            .map(|name| find(&built, name))
            .collect::<Result<_>>()?
    };
    match (&args.input, chosen.as_slice()) {
        (None, _) => {
            for fuzzer in chosen {
                fuzzer.explore(args.seconds)?;
            }
        }
        (Some(input), [fuzzer]) => process::run(Command::new(&fuzzer.program).arg(input))?,
        (Some(_), _) => bail!("--input needs one target"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Every target for `seconds`, as a stage of `cargo xtask test`.
pub(crate) fn smoke(workspace: &Workspace, seconds: u32, notes: &mut Vec<String>) -> Result<()> {
    let built = build(workspace)?;
    for fuzzer in &built {
        fuzzer.explore(seconds)?;
    }
    notes.push(format!(
        "{} targets, {seconds} s each, no finding",
        built.len()
    ));
    Ok(())
}

/// The end of libFuzzer's tale of a crash: the panic, the statistics, the input.
const LOG_LINES: usize = 40;

struct Fuzzer {
    name: String,
    program: PathBuf,
    /// The folder `fuzz/` of the checkout.
    folder: PathBuf,
}

impl Fuzzer {
    /// New inputs until the time is up; a crash is an error.
    fn explore(&self, seconds: u32) -> Result<()> {
        let corpus = self.folder("corpus")?;
        let artifacts = self.folder("artifacts")?;
        // libFuzzer tells of every step; only the end is worth showing.
        let log = artifacts.join("log.txt");
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(&self.program);
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args([
                "-max_len=65536",
                "-timeout=10",
                "-rss_limit_mb=1024",
                "-print_final_stats=1",
            ])
            .arg(&corpus)
            .stderr(file);
        let ended = process::run(&mut command);
        let output = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let output = String::from_utf8_lossy(&output);
        if let Err(error) = ended {
            let lines: Vec<&str> = output.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES);
            println!("{}", lines.get(from..).unwrap_or_default().join("\n"));
            let place = artifacts.display();
            return Err(error.context(format!("{} has a finding: see {place}", self.name)));
        }
        let runs = output
            .lines()
            .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
        println!(
            "{}: {} runs in {seconds} s, no finding",
            self.name,
            runs.unwrap_or("?").trim()
        );
        Ok(())
    }

    fn folder(&self, kind: &str) -> Result<PathBuf> {
        let folder = self.folder.join(kind).join(&self.name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }
}

/// The flags that `cargo-fuzz` gives rustc, without the sanitizer.
const RUSTFLAGS: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    --cfg=fuzzing -Ccodegen-units=1";

fn build(workspace: &Workspace) -> Result<Vec<Fuzzer>> {
    let folder = workspace.root.join("fuzz");
    let mut cargo = workspace.cargo();
    cargo
        .args([
            "build",
            "--release",
            "--bins",
            "--locked",
            "--message-format=json-render-diagnostics",
        ])
        // With a target named, build scripts and macros are spared the counters.
        .args(["--target", &workspace.host()?])
        .env("CARGO_TARGET_DIR", workspace.tool_dir("fuzz"))
        .env("RUSTFLAGS", RUSTFLAGS)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(&folder)
        .stderr(std::process::Stdio::inherit());
    let messages = process::capture(&mut cargo).context("the fuzz targets do not build")?;
    let mut built: Vec<Fuzzer> = serde_json::Deserializer::from_str(&messages)
        .into_iter::<CargoMessage>()
        .filter_map(|message| {
            let message = message.ok()?;
            Some(Fuzzer {
                name: message.target?.name,
                program: message.executable?,
                folder: folder.clone(),
            })
        })
        .collect();
    built.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(built)
}

fn find<'a>(built: &'a [Fuzzer], name: &str) -> Result<&'a Fuzzer> {
    built
        .iter()
        .find(|fuzzer| fuzzer.name == name)
        .with_context(|| {
            let names: Vec<&str> = built.iter().map(|fuzzer| fuzzer.name.as_str()).collect();
            format!("no fuzz target \"{name}\": there is {}", names.join(", "))
        })
}

/// A message of `cargo build --message-format=json`, as far as it names a program.
#[derive(Deserialize)]
struct CargoMessage {
    target: Option<BuiltTarget>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct BuiltTarget {
    name: String,
}
