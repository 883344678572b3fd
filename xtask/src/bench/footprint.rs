//! `cargo xtask bench footprint`: what the agent takes of a small device.
//!
//! The program is the one that is shipped for this machine's processor; its processes are measured by phase
//! `device` of `tests/bench/run.py`, beside OpenSSH's and dropbear's that do the same work in the same network.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::size::CrateSize;
use crate::build::{self, BuildFolder};
use crate::process;
use crate::target::Target;
use crate::tools;
use crate::workspace::Workspace;

/// The name of ours in `tests/bench`, and of the one it is compared with.
const OURS: &str = "holdfast";
const DRIVERS: &str = "holdfast,openssh,dropbear";

/// The limits that ours should stay below: the figure in what `run.py` writes, its largest value, and in words.
const AIMS: [(&str, f64, &str); 4] = [
    (
        "dev_idle_pss_KiB",
        3072.0,
        "PSS, idle with a tunnel up, KiB",
    ),
    (
        "dev_session_pss_KiB",
        1024.0,
        "PSS more for an open shell, without the shell itself, KiB",
    ),
    ("dev_idle_cpu_percent", 0.1, "processor, idle, % of a core"),
    ("dev_idle_MB_per_day", 1.0, "traffic, idle, MB a day"),
];

/// An agent to measure.
struct MeasuredAgent {
    /// Of what it was made, in words.
    made: String,
    program: PathBuf,
    /// The same with its symbols, where there is one.
    named: Option<PathBuf>,
}

pub(super) fn run(workspace: &Workspace, options: &[OsString]) -> Result<ExitCode> {
    tools::ensure(&super::TOOLS)?;
    let agent = agent(workspace)?;
    eprintln!("measuring {} ({})", agent.program.display(), agent.made);
    let folder = workspace.target.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;

    let size = match &agent.named {
        Some(named) => Some(CrateSize::of(&agent.program, named)?),
        None => None,
    };
    let processes = folder.join("footprint-processes.json");
    // Figures are merged into what is there, which may be of another day's agent.
    if processes.exists() {
        fs::remove_file(&processes)
            .with_context(|| format!("cannot remove {}", processes.display()))?;
    }
    let mut bench = Command::new(workspace.root.join("tests/bench/run.py"));
    bench
        .env("HOLDFAST_AGENT", &agent.program)
        .env("HOLDFAST_RELAY", relay(workspace)?)
        .args(["--phases", "device", "--drivers", DRIVERS, "--out"])
        .arg(&processes)
        .args(options);
    process::run_aside(&mut bench)?;
    let measured: Value = serde_json::from_str(&read(&processes)?)
        .with_context(|| format!("cannot use {}", processes.display()))?;

    let report = [
        "# Footprint\n".to_owned(),
        format!("The agent: {}.\n", agent.made),
        aims(&measured),
        size.as_ref().map(CrateSize::markdown).unwrap_or_default(),
        read(&processes.with_extension("md"))?.replacen("# Benchmark results", "## Processes", 1),
    ]
    .join("\n");
    let all = json!({"agent": agent.made, "size": size, "processes": measured});
    write(&folder.join("footprint.json"), &format!("{all:#}\n"))?;
    write(&folder.join("footprint.md"), &report)?;
    print!("{report}");
    for (metric, ..) in AIMS {
        if ours(&measured, metric).is_none() {
            bail!("{metric} of ours was not measured: the error is above");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The one for devices with this machine's processor; its release build where there is none for devices.
fn agent(workspace: &Workspace) -> Result<MeasuredAgent> {
    let triple = format!("{}-unknown-linux-musl", env::consts::ARCH);
    let Ok(target) = Target::load(workspace, &triple) else {
        super::build_program(workspace, "edge-agent")?;
        return Ok(MeasuredAgent {
            made: format!("the release build of this machine: there is no target {triple}"),
            program: workspace.target.join("release/edge-agent"),
            named: None,
        });
    };
    let place = BuildFolder::of(workspace);
    let build = |profile| build::agent(workspace, &place, &target, profile);
    Ok(MeasuredAgent {
        program: build(build::DEVICE)?,
        named: Some(build(build::DEVICE_SYMBOLS)?),
        made: format!("{triple}, by `cargo xtask build`"),
    })
}

/// The relay that `HOLDFAST_RELAY` names, or else a release build.
fn relay(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(given) = env::var_os("HOLDFAST_RELAY") {
        return Ok(given.into());
    }
    super::build_program(workspace, "relay")?;
    Ok(workspace.target.join("release/relay"))
}

/// Returns the limits that ours should stay below, and whether it does.
fn aims(measured: &Value) -> String {
    let mut lines = vec![
        "| figure | ours | aim | |".to_owned(),
        "| --- | --- | --- | --- |".to_owned(),
    ];
    lines.extend(AIMS.iter().map(|(metric, most, words)| {
        let (value, verdict) = match ours(measured, metric) {
            None => ("not measured".to_owned(), ""),
            Some(value) if value <= *most => (value.to_string(), "met"),
            Some(value) => (value.to_string(), "MISSED"),
        };
        format!("| {words} | {value} | ≤ {most} | {verdict} |")
    }));
    lines.join("\n") + "\n"
}

fn ours(measured: &Value, metric: &str) -> Option<f64> {
    measured["drivers"][OURS]["metrics"][metric]["median"].as_f64()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_is_met_missed_or_not_measured() {
        let of = |value: f64| json!({"drivers": {"holdfast": {"metrics": {"dev_idle_pss_KiB": {"median": value}}}}});
        let first = |measured: &Value| aims(measured).lines().nth(2).unwrap_or_default().to_owned();
        assert!(first(&of(3072.0)).ends_with("| 3072 | ≤ 3072 | met |"));
        assert!(first(&of(3073.0)).ends_with("| 3073 | ≤ 3072 | MISSED |"));
        assert!(first(&json!({})).contains("not measured"));
    }
}
