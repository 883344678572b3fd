//! `cargo xtask soak`: what is too slow for every change, in the sizes that the product promises.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::process;
use crate::test::suites;
use crate::tools;
use crate::workspace::Workspace;

/// Run the slow tests: a gigabyte each way, ten minutes of a client that does not read, many seeds
#[derive(clap::Args)]
#[command(
    after_help = "Takes most of an hour. Nothing else should run on the machine: how late keystrokes are is judged.

Examples:
  cargo xtask soak             all of it
  cargo xtask soak --quick     a tenth of everything
  cargo xtask soak --only kills --kills 1000"
)]
pub(crate) struct Args {
    /// A tenth of each
    #[arg(long)]
    quick: bool,
    /// The number of times that a recording agent is killed
    #[arg(long, value_name = "N", default_value_t = 200)]
    kills: u64,
    /// This part only
    #[arg(long, value_name = "PART", value_parser = PARTS.map(|part| part.name))]
    only: Option<String>,
}

/// A test, or a binary full of them, and how much of it.
#[derive(Clone, Copy)]
struct SoakPart {
    /// Its name on the command line.
    name: &'static str,
    /// The measure, and its unit.
    what: &'static str,
    /// The whole; a tenth of it is the quick one.
    amount: u64,
    /// The variable that the test reads.
    variable: &'static str,
    binary: &'static str,
    /// The one test; `None`: all of the binary.
    test: Option<&'static str>,
}

const PARTS: [SoakPart; 11] = [
    SoakPart {
        name: "bytes",
        what: "MiB each way, on both ways in, byte for byte",
        amount: 1024,
        variable: "HOLDFAST_SOAK_MIB",
        binary: suites::INTEGRATION,
        test: Some("sessions::streams::every_byte_arrives_both_ways"),
    },
    SoakPart {
        name: "reader",
        what: "seconds of `yes` into clients that do not read",
        amount: 600,
        variable: SECONDS,
        binary: suites::INTEGRATION,
        test: Some("pressure::a_client_that_stops_reading_stops_its_process_alone"),
    },
    SoakPart {
        name: "upload",
        what: "seconds of an upload into a process that does not read",
        amount: 600,
        variable: SECONDS,
        binary: suites::INTEGRATION,
        test: Some("pressure::a_process_that_reads_nothing_costs_its_own_channel_only"),
    },
    SoakPart {
        name: "uploads",
        what: "seconds, half of them with an upload that stalls beside one that flows",
        amount: 180,
        variable: SECONDS,
        binary: suites::INTEGRATION,
        test: Some("pressure::an_upload_that_stalls_does_not_stop_one_that_flows"),
    },
    SoakPart {
        name: "forwards",
        what: "forwarded connections at once through one session",
        amount: 500,
        variable: "HOLDFAST_SOAK_FORWARDS",
        binary: suites::INTEGRATION,
        test: Some("forward::a_hundred_connections_at_once_cost_little"),
    },
    SoakPart {
        name: "environment",
        what: "requests of 64 KiB for a session's environment",
        amount: 10_000,
        variable: "HOLDFAST_LARGE_ENV",
        binary: suites::INTEGRATION,
        test: Some("abuse::sessions::an_environment_has_bounds"),
    },
    SoakPart {
        name: "handles",
        what: "thousand handles that are asked for in one sftp session",
        amount: 100,
        variable: "HOLDFAST_HANDLES",
        binary: suites::INTEGRATION,
        test: Some("abuse::sftp::thousands_of_handles_are_asked_for_and_some_are_had"),
    },
    SoakPart {
        name: KILLS,
        what: "agents that are killed while they record",
        amount: 200,
        variable: "HOLDFAST_SOAK_KILLS",
        binary: "session",
        test: Some("recording::crash::records_before_a_kill_are_kept_and_the_tail_is_cut"),
    },
    SoakPart {
        name: "systemd",
        what: "seconds at most for a machine of its own, whose systemd runs the agent",
        amount: 3000,
        variable: "HOLDFAST_SOAK_SYSTEMD",
        binary: suites::INTEGRATION,
        test: Some("systemd::sessions_under_systemd_have_bounds_and_outlive_the_agent"),
    },
    SoakPart {
        name: "seeds",
        what: "times the usual number of seeds in every simulation",
        amount: 20,
        variable: "HOLDFAST_SEEDS_TIMES",
        binary: "sim",
        test: None,
    },
    SoakPart {
        name: "cluster",
        what: "times the thousand seeds of the simulation of a cluster",
        amount: 100,
        variable: "HOLDFAST_SEEDS_TIMES",
        binary: UNIT,
        test: Some("session::registry::simulation"),
    },
];
/// The unit tests of all crates: a test that is named is then the beginning of several names.
const UNIT: &str = "unit";
const KILLS: &str = "kills";
const SECONDS: &str = "HOLDFAST_SOAK_SECONDS";

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    tools::ensure(&[tools::SSH, tools::PS])?;
    tools::ensure(&tools::SYSTEMD_GUEST)?;
    let programs = suites::build_programs(&workspace)?;
    let mut failed = vec![];
    let wanted = |part: &&SoakPart| args.only.as_deref().is_none_or(|only| only == part.name);
    let parts: Vec<&SoakPart> = PARTS.iter().filter(wanted).collect();
    for part in &parts {
        let name = part.test.unwrap_or(part.binary);
        let amount = if part.name == KILLS {
            args.kills
        } else {
            part.amount
        };
        let amount = if args.quick { amount / 10 } else { amount };
        println!("\n== {name}: {amount} {}", part.what);
        let start = Instant::now();
        let ended = part.run(&workspace, amount, &programs);
        let seconds = start.elapsed().as_secs_f64();
        match ended {
            Ok(()) => println!("== passed in {seconds:.0} s"),
            Err(error) => {
                println!("== failed after {seconds:.0} s: {error:#}");
                failed.push(name);
            }
        }
    }
    if failed.is_empty() {
        println!("\nall {} parts passed", parts.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nfailed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

impl SoakPart {
    /// By `cargo test`: nextest would end what takes long, and keep back what it measures.
    fn run(&self, workspace: &Workspace, amount: u64, programs: &[(&str, OsString)]) -> Result<()> {
        let mut cargo = workspace.cargo();
        cargo.args(["test", "--workspace", "--locked"]);
        match self.binary {
            UNIT => cargo.args(["--lib", "--", "--nocapture"]).args(self.test),
            binary => {
                cargo.args(["--test", binary, "--", "--nocapture"]);
                let exact = self.test.map(|test| ["--exact", test]);
                cargo.args(exact.into_iter().flatten())
            }
        };
        cargo.envs(programs.iter().map(|(name, value)| (name, value)));
        process::run(cargo.env(self.variable, amount.to_string()))
    }
}
