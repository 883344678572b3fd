//! The command line of the hostile tools.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::device::DeviceRun;
use crate::operator::OperatorTarget;
use crate::{Outcome, cases, device, operator};

/// Exit code: the relay refused, or closed the stream or connection.
const REFUSED: u8 = 1;

/// Exit code: the command line, the state folder or the relay's address is wrong.
const USAGE: u8 = 2;

#[derive(Parser)]
#[command(
    name = "hostile",
    about = "A device and an operator that misbehave, one named case at a time, against a test relay",
    arg_required_else_help = true,
    after_help = "Exit codes: 0 all of it was sent and the relay went on; 1 the relay refused or closed; 2 wrong use.

Examples:
  cargo run -p hostile -- --list
                              the cases, with one sentence each
  edge-agent join TOKEN --state /tmp/dev && \\
  cargo run -p hostile -- device --state /tmp/dev --misbehave honest
                              keeps every rule: sessions get a fixed line, and their recordings are true
  cargo run -p hostile -- device --state /tmp/dev --misbehave incoming-flood --count 30000
                              then, elsewhere: ssh -N -R 8080:localhost:80 LOGIN+DEVICE@relay
  cargo run -p hostile -- operator --relay 127.0.0.1:2222 --key ~/.ssh/id_ed25519 \\
      --user alice --misbehave offer-flood --count 100"
)]
struct Cli {
    /// Print the cases and end
    #[arg(long)]
    list: bool,
    #[command(subcommand)]
    role: Option<AttackerRole>,
}

#[derive(Subcommand)]
enum AttackerRole {
    /// A device that lies to its relay
    Device(DeviceArgs),
    /// An operator whose SSH client keeps no rule
    Operator(OperatorArgs),
}

#[derive(clap::Args)]
struct DeviceArgs {
    /// A state folder that `edge-agent join` made; stop the agent on it first
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The case (see --list)
    #[arg(long, value_name = "CASE")]
    misbehave: String,
    /// The number of times
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u32,
    /// Dial this relay instead of the first on the device's roster
    #[arg(long, value_name = "IP:PORT")]
    relay: Option<SocketAddr>,
    /// The time that the relay's reaction is waited for
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    within: u64,
}

#[derive(clap::Args)]
struct OperatorArgs {
    /// The relay's SSH address
    #[arg(long, value_name = "IP:PORT")]
    relay: SocketAddr,
    /// An Ed25519 private key file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The SSH user name: USER for the console, LOGIN+DEVICE for a device
    #[arg(long, value_name = "NAME")]
    user: String,
    /// The case (see --list)
    #[arg(long, value_name = "CASE")]
    misbehave: String,
    /// The number of times
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u32,
    /// The time that the relay's reaction is waited for
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    within: u64,
}

/// Runs the command line of this process.
pub async fn run() -> ExitCode {
    let cli = Cli::parse();
    if cli.list {
        print!("{}", cases::list());
        return ExitCode::SUCCESS;
    }
    let played = match cli.role {
        None => {
            eprintln!("error: say `device`, `operator` or `--list` (see --help)");
            return ExitCode::from(USAGE);
        }
        Some(AttackerRole::Device(args)) => play_device(args).await,
        Some(AttackerRole::Operator(args)) => play_operator(args).await,
    };
    match played {
        Ok(Outcome::Done(what)) => {
            println!("done: {what}");
            ExitCode::SUCCESS
        }
        Ok(Outcome::Refused(why)) => {
            println!("refused: {why}");
            ExitCode::from(REFUSED)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(USAGE)
        }
    }
}

async fn play_device(args: DeviceArgs) -> Result<Outcome> {
    let run = DeviceRun {
        state: args.state,
        relay: args.relay,
        count: args.count,
        within: Duration::from_secs(args.within),
    };
    device::play(cases::of_device(&args.misbehave)?, run).await
}

async fn play_operator(args: OperatorArgs) -> Result<Outcome> {
    let target = OperatorTarget {
        relay: args.relay,
        key: args.key,
        user: args.user,
        count: args.count,
        within: Duration::from_secs(args.within),
    };
    operator::play(cases::of_operator(&args.misbehave)?, target).await
}
