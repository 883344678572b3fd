//! `exec`: one command on many devices. What it does is in [`crate::bulk`]; here is how it is asked for.

use std::time::Duration;

use holdfast_protocol::ids::{Login, UserName};

use crate::access::selector::Selector;
use crate::audit::Event;
use crate::bulk::Pace;
use crate::bulk::limits::MAX_BULK_PARALLEL;
use crate::commands::args::ttl;
use crate::commands::call::{Call, Command, Right};
use crate::commands::limits::BULK_PARALLEL;
use crate::commands::{Done, Failure};
use crate::model::invalid::Invalid;

/// Run a command on many devices
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  ssh -p 2222 relay.example.com exec --on role=camera -- uptime
  ssh -p 2222 relay.example.com exec --on 'role=camera,site!=lab' --login root --timeout 30s -- 'df -h / | tail -1'
  ssh -t -p 2222 relay.example.com exec --on '*' --wait 1h -- sudo reboot       shows how far it is

It runs as you, with your roles. The command gets no input and no terminal. Each line follows its device's
name; in the end there is a table.
Exit status 0: all commands exited with 0. 1: some did not, or were refused. 2: usage.")]
pub(crate) struct Args {
    /// By their labels, as in a role: role=camera,site!=lab; * is every device
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) on: Selector,
    /// The rest
    #[command(flatten)]
    pub(crate) order: BulkOptions,
    /// Print a line of JSON for each device, with what it wrote
    #[arg(long)]
    pub(crate) json: bool,
    /// The command: everything behind `--`, for the account's shell, as with `ssh DEVICE COMMAND`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The options of all work on a fleet.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BulkOptions {
    /// The account on the devices [default: your name]
    #[arg(long, value_name = "LOGIN")]
    login: Option<Login>,
    /// The number of devices at a time
    #[arg(long, value_name = "N", default_value_t = BULK_PARALLEL, value_parser = parallel)]
    parallel: usize,
    /// The time that each may take: 30s, 10m, 1h
    #[arg(long, value_name = "SPAN", value_parser = ttl)]
    timeout: Option<Duration>,
    /// The time to wait for devices that are offline: 30s, 10m, 1h
    #[arg(long, value_name = "SPAN", value_parser = ttl)]
    wait: Option<Duration>,
}

impl Args {
    /// Returns the line that the account's shell gets.
    #[must_use]
    pub(crate) fn line(&self) -> String {
        self.command.join(" ")
    }

    /// Returns the line that asks the console for this.
    #[must_use]
    pub(crate) fn at_console(&self) -> String {
        let mut words = vec!["exec".into(), "--on".into(), self.on.to_string()];
        words.extend(self.order.words());
        words.extend(self.json.then(|| "--json".into()));
        // What is behind the dashes is taken unchanged.
        format!("{} -- {}", shell_words::join(words), self.line())
    }
}

impl Command for Args {
    fn need(&self) -> Right {
        // Each device is decided on by itself.
        Right::AnyRole
    }

    fn event(&self) -> Option<Event> {
        // What is done on each device is a session there, with rows of its own.
        None
    }

    fn streams(&self) -> bool {
        true
    }

    async fn run(self, _call: Call<'_, '_>) -> Result<Done, Failure> {
        Err(super::only_over_ssh())
    }
}

impl BulkOptions {
    /// Returns the number of devices at a time, and the time that each may take.
    #[must_use]
    pub(crate) fn pace(&self) -> Pace {
        Pace {
            parallel: self.parallel,
            timeout: self.timeout,
            wait: self.wait,
        }
    }

    /// Returns the account: by default that of the user's own name, as `ssh` has it.
    ///
    /// # Errors
    /// A sentence: no account can have that name.
    pub(crate) fn login(&self, user: &UserName) -> Result<Login, Invalid> {
        let own = || {
            Login::new(user.as_str()).map_err(|_| {
                format!("\"{user}\" is not a valid account name: name one with --login").into()
            })
        };
        self.login.clone().map_or_else(own, Ok)
    }

    /// Returns it as it was typed, but for what is the default.
    pub(crate) fn words(&self) -> Vec<String> {
        let span = |span: Duration| {
            humantime::format_duration(span)
                .to_string()
                .replace(' ', "")
        };
        let parallel = (self.parallel != BULK_PARALLEL).then(|| self.parallel.to_string());
        let given = [
            ("--login", self.login.as_ref().map(ToString::to_string)),
            ("--parallel", parallel),
            ("--timeout", self.timeout.map(span)),
            ("--wait", self.wait.map(span)),
        ];
        let given = given
            .into_iter()
            .filter_map(|(flag, value)| Some([flag.to_owned(), value?]));
        given.flatten().collect()
    }
}

fn parallel(text: &str) -> Result<usize, Invalid> {
    let number = text.parse().ok();
    let number = number.filter(|number| (1..=MAX_BULK_PARALLEL).contains(number));
    number.ok_or_else(|| format!("expected a number from 1 to {MAX_BULK_PARALLEL}").into())
}
