//! `apply`: applies a policy document.

use serde::Serialize;

use super::policy;
use crate::audit::{Event, EventKind};
use crate::commands::Done;
use crate::commands::call::input;
use crate::commands::call::{Call, Command, Right};
use crate::commands::limits::MAX_POLICY_INPUT;
use crate::commands::{Caller, Context, Failure, json};
use crate::store::{Apply, Change};

/// Apply roles and users from a file
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay apply -f policy.toml --dry-run
  relay apply -f policy.toml
  ssh -p 2222 relay.example.com apply -f - < policy.toml

The file, in TOML (or the same in JSON, as `get -o json` prints it):
  [roles.field-tech]
  idle_timeout = \"15m\"                    # or \"never\"; absent: 15m
  max_session = \"8h\"                      # absent: no limit
  on_disconnect = \"hup\"                   # hup, leave, kill: of a process whose client is lost
  recording = \"strict\"                    # strict, best-effort, off
  record_content = \"16 MiB\"               # of a stream without a terminal; or \"unlimited\"
  source = [\"203.0.113.0/24\"]             # absent: anywhere
  [roles.field-tech.limits]
  max_sessions = 5                        # also max_connections, max_channels; 0: no limit
  [roles.field-tech.allow]                # or a list: [[roles.field-tech.allow]]
  labels = { role = \"camera\", site = [\"berlin\", \"paris\"], env = \"!=lab\" }
  logins = [\"pi\", \"{user}\"]               # [\"*\"]: any
  abilities = [\"shell\", \"exec\", \"sftp\"]
  [roles.field-tech.deny]
  logins = [\"root\"]
  [users.alice]
  email = \"alice@example.com\"
  roles = [\"field-tech\"]
  keys = [\"ssh-ed25519 AAAA... alice@laptop\"]
  principals = [\"alice\"]

All of it is applied, or nothing. What the file does not name is unchanged.")]
pub(crate) struct Args {
    /// The file; - reads stdin
    #[arg(short, long, value_name = "FILE|-")]
    file: String,
    /// Only print what would change
    #[arg(long)]
    dry_run: bool,
    /// Remove the roles that the file does not name, if it names any, and the users likewise
    #[arg(long)]
    prune: bool,
    /// Print JSON for machines
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    dry_run: bool,
    changes: Vec<String>,
}

impl Command for Args {
    const MAX_INPUT: usize = MAX_POLICY_INPUT;

    fn need(&self) -> Right {
        Right::ADMIN
    }

    /// Returns the audit event of a change.
    fn event(&self) -> Option<Event> {
        let event = Event::new(EventKind::AccessChanged).with("change", "apply");
        (!self.dry_run).then(|| event.with("prune", self.prune))
    }

    fn is_deed(&self) -> bool {
        !self.dry_run
    }

    fn wants_stdin(&self) -> bool {
        self.file == "-"
    }

    fn names_file(&self) -> bool {
        self.file != "-"
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        run(&self, call.caller, call.context, call.stdin)
            .await
            .map(Done::from)
    }
}

async fn run(
    args: &Args,
    caller: &Caller,
    context: &Context,
    stdin: Option<&[u8]>,
) -> Result<String, Failure> {
    let remedy = "over ssh, the file comes by stdin: `ssh RELAY apply -f - < policy.toml`";
    let text = input::read(&args.file, caller, stdin, MAX_POLICY_INPUT, remedy)?;
    let policy = policy::read(input::name(&args.file), &text)?;
    let how = Apply {
        prune: args.prune,
        dry_run: args.dry_run,
    };
    let mut tx = context.begin().await?;
    let changes = tx.apply(&policy, how, context.now).await?;
    tx.commit().await?;
    let changes: Vec<String> = changes.iter().map(Change::to_string).collect();
    if args.json {
        return json(&Row {
            dry_run: args.dry_run,
            changes,
        });
    }
    if changes.is_empty() {
        return Ok("unchanged\n".to_owned());
    }
    let mut text: String = changes.iter().map(|change| format!("{change}\n")).collect();
    if args.dry_run {
        text.push_str("dry run: nothing was changed\n");
    }
    Ok(text)
}
