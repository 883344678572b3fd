//! The arguments that replace the agent, and those by which its versions call each other.

use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser as _};

use super::{Cli, Command, StateArg};
use crate::service::limits::{DEFAULT_TRIAL, MAX_TRIAL, MIN_TRIAL};
use crate::service::upgrade::command::Upgrade;

/// `edge-agent upgrade`.
#[derive(Debug, Args)]
pub struct UpgradeArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub state: StateArg,
    /// The new program
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Its signature [default: FILE.minisig]
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// Accept an older version
    #[arg(long)]
    pub allow_downgrade: bool,
    /// Time in which the new version must get a tunnel, from each of its starts
    #[arg(long, value_name = "TIME", default_value = DEFAULT_TRIAL, value_parser = parse_trial)]
    pub trial: Duration,
}

/// `edge-agent self-test`.
#[derive(Debug, Args)]
pub struct SelfTest {
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub state: StateArg,
    /// Arguments of the running agent: the new one is started with the same
    #[arg(last = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}

/// `edge-agent internal-watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub state: StateArg,
    /// Do it in a process of its own, and end
    #[arg(long)]
    pub aside: bool,
}

impl SelfTest {
    /// Checks whether this version would start with them.
    ///
    /// # Errors
    /// What clap has against them, and what the agent would refuse at its start.
    pub fn check_arguments(&self) -> Result<(), clap::Error> {
        let words = std::iter::once("edge-agent".to_owned());
        let cli = Cli::try_parse_from(words.chain(self.arguments.iter().cloned()))?;
        if let Command::Run(run) = cli.command {
            let checked = run.check_account(rustix::process::geteuid().is_root());
            checked
                .map_err(|error| Cli::command().error(ErrorKind::MissingRequiredArgument, error))?;
        }
        Ok(())
    }
}

impl From<UpgradeArgs> for Upgrade {
    fn from(args: UpgradeArgs) -> Self {
        let state = args.state.state;
        Self {
            state: std::path::absolute(&state).unwrap_or(state),
            file: args.file,
            signature: args.signature,
            allow_downgrade: args.allow_downgrade,
            trial: args.trial,
        }
    }
}

fn parse_trial(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.strip_suffix('m') {
        Some(digits) => (digits, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let seconds = digits.parse::<u64>().ok();
    seconds
        .and_then(|number| number.checked_mul(unit))
        .map(Duration::from_secs)
        .filter(|time| (MIN_TRIAL..=MAX_TRIAL).contains(time))
        .ok_or_else(|| "a trial takes a second to an hour, such as 90s or 10m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_stays_in_its_bounds() {
        for (text, seconds) in [("1", 1), ("90s", 90), ("2m", 120), ("60m", 3600)] {
            assert_eq!(
                parse_trial(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for bad in ["", "0s", "61m", "1h", "-1s", "1.5m", "999999999999999999m"] {
            assert!(parse_trial(bad).is_err(), "{bad}");
        }
    }
}
