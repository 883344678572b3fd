//! What was typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use holdfast_protocol::ids::{DeviceName, LabelKey, LabelValue};
use holdfast_protocol::limits::{MAX_KEEPALIVE, MIN_KEEPALIVE};
use holdfast_protocol::token::Token;

/// Keeps a tunnel to a Holdfast relay open, so that operators reach this device with a stock ssh.
#[derive(Debug, Parser)]
#[command(
    name = "edge-agent",
    version,
    after_help = "Examples:
  edge-agent join hf1.relay.example.com:4433.7k3v… --name kitchen-cam
  edge-agent run
  edge-agent status --json"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The agent's commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make this device a member of a fleet, with a token from `relay token create`
    #[command(after_help = "Run again on a member, it changes nothing and exits 0.

Examples:
  edge-agent join hf1.relay.example.com:4433.7k3v…
  edge-agent join TOKEN --name kitchen-cam --label role=camera --label site=berlin")]
    Join(Join),
    /// Keep the tunnel up, for ever
    #[command(after_help = "Examples:
  edge-agent run
  edge-agent run --state /mnt/data/edge-agent --keepalive 45s
  edge-agent run --accept-env 'GIT_*'")]
    Run(Run),
    /// Show whether the tunnel stands
    #[command(after_help = "Exits 0 when the tunnel is up, 1 otherwise.

Examples:
  edge-agent status
  edge-agent status --json")]
    Status(StatusArgs),
}

/// Where the agent keeps its key and membership.
#[derive(Debug, Args)]
pub struct StateArg {
    /// The agent's state folder: its key and its membership
    #[arg(long, value_name = "DIR", default_value = "/var/lib/edge-agent")]
    pub state: PathBuf,
}

/// `edge-agent join`.
#[derive(Debug, Args)]
pub struct Join {
    /// What `relay token create` printed
    #[arg(value_name = "TOKEN", value_parser = parse_token)]
    pub token: Token,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub state: StateArg,
    /// The device's name in the fleet [default: the relay picks one]
    #[arg(long, value_name = "NAME")]
    pub name: Option<DeviceName>,
    /// A label; may be given more than once. The token's labels win over these
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<(LabelKey, LabelValue)>,
}

/// `edge-agent run`.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub state: StateArg,
    /// How often an idle tunnel is heard; at most what the NAT bears
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = parse_keepalive)]
    pub keepalive: Duration,
    /// An environment variable that operators may set, beside LANG and LC_*; `*` stands for anything
    #[arg(long = "accept-env", value_name = "PATTERN")]
    pub accept_env: Vec<String>,
}

/// `edge-agent status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub state: StateArg,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

fn parse_token(text: &str) -> Result<Token, holdfast_protocol::token::TokenError> {
    text.trim().parse()
}

fn parse_label(text: &str) -> Result<(LabelKey, LabelValue), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("a label is KEY=VALUE, such as role=camera")?;
    let key = LabelKey::new(key).map_err(|error| error.to_string())?;
    let value = LabelValue::new(value).map_err(|error| error.to_string())?;
    Ok((key, value))
}

fn parse_keepalive(text: &str) -> Result<Duration, String> {
    let seconds = text
        .strip_suffix('s')
        .unwrap_or(text)
        .parse()
        .map(Duration::from_secs);
    match seconds {
        Ok(time) if (MIN_KEEPALIVE..=MAX_KEEPALIVE).contains(&time) => Ok(time),
        _ => Err(format!(
            "a keepalive is {} to {} seconds, such as 25s",
            MIN_KEEPALIVE.as_secs(),
            MAX_KEEPALIVE.as_secs()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_keepalive_stays_in_its_bounds() {
        assert_eq!(parse_keepalive("25s"), Ok(Duration::from_secs(25)));
        assert_eq!(parse_keepalive("5"), Ok(Duration::from_secs(5)));
        for bad in ["", "4s", "121s", "1m", "-1"] {
            assert!(parse_keepalive(bad).is_err(), "{bad}");
        }
    }
}
