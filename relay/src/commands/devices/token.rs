//! `token`: what lets devices join.

use std::time::Duration;

use clap::Subcommand;
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::identity::token::Token;
use holdfast_protocol::limits::MAX_LABELS;
use serde::Serialize;

use crate::audit::{Event, EventKind};
use crate::clock::Coarse;
use crate::commands::Done;
use crate::commands::answer::table::{labels, table};
use crate::commands::args::{Label, ambiguous, count, ttl};
use crate::commands::call::{Call, Command, Right};
use crate::commands::{Context, Failure, json};
use crate::recording::objects::backend::StorageBackend;
use crate::store::{Labels, NewToken, TokenRow};

/// Tokens that let devices join
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay token create --uses 20 --ttl 1d --label role=camera
  relay token ls
  relay token rm 3f9a")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: TokenCommand,
    /// Print JSON for machines
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it, alone, on stdout
    #[command(after_help = "Examples:
  relay token create                                   one device, within the hour
  relay token create --uses 50 --ttl 7d --label role=camera
  relay token create --relay                           one relay of the cluster

On the device:              edge-agent join TOKEN
On the new relay's machine: relay cluster join TOKEN --public HOST --database 'postgres://…'
                            relay serve --config FILE       with the others' configuration
The token is shown this once: the relay keeps only a hash of its secret.")]
    Create {
        /// The number of devices that may join with it
        #[arg(long, default_value_t = 1, value_parser = count)]
        uses: u32,
        /// The time that it is valid: 30s, 10m, 1h, 7d
        #[arg(long, default_value = "1h", value_parser = ttl)]
        ttl: Duration,
        /// Label of each device that joins with it; can be given more than once
        #[arg(long, value_name = "KEY=VALUE")]
        label: Vec<Label>,
        /// For a relay that joins the cluster, not for devices
        #[arg(long, conflicts_with = "label")]
        relay: bool,
    },
    /// List the tokens, without their secrets
    #[command(visible_alias = "list")]
    Ls,
    /// Remove a token: no device can join with it any more
    Rm {
        /// As `token ls` prints it, or the beginning of it
        id: String,
    },
}

/// A token, for machines.
#[derive(Serialize)]
struct Row {
    id: String,
    uses: i64,
    uses_left: i64,
    created: String,
    expires: String,
    labels: Labels,
    r#for: &'static str,
}

/// A new token, for machines: the only time that it is shown.
#[derive(Serialize)]
struct NewRow {
    id: String,
    token: String,
    expires: String,
}

impl Command for Args {
    fn need(&self) -> Right {
        Right::ADMIN
    }

    /// Returns the audit event of a change; the store adds the token.
    fn event(&self) -> Option<Event> {
        match &self.command {
            TokenCommand::Create {
                uses,
                ttl,
                label,
                relay,
            } => {
                let labels: Vec<String> = label
                    .iter()
                    .map(|Label(key, value)| format!("{key}={value}"))
                    .collect();
                let event = Event::new(EventKind::TokenCreated).with("uses", *uses);
                let event = event.with("ttl", ttl.as_secs()).with("labels", labels);
                Some(match relay {
                    true => event.with("for", "relay"),
                    false => event,
                })
            }
            TokenCommand::Rm { id } => {
                Some(Event::new(EventKind::TokenRemoved).with("token", id.as_str()))
            }
            TokenCommand::Ls => None,
        }
    }

    /// Returns whether a token is made only for its text: one that could not be written is of no use.
    fn is_deed(&self) -> bool {
        matches!(self.command, TokenCommand::Rm { .. })
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        run(self, call.context).await.map(Done::from)
    }
}

async fn run(args: Args, context: &Context) -> Result<String, Failure> {
    match args.command {
        TokenCommand::Create {
            uses,
            ttl,
            label,
            relay,
        } => {
            let labels = label_map(label)?;
            if relay {
                may_grow(context).await?;
            }
            let new = NewToken {
                uses,
                ttl,
                labels,
                for_relay: relay,
            };
            create(new, args.json, context).await
        }
        TokenCommand::Ls => list(&context.store.tokens().await?, args.json, context),
        TokenCommand::Rm { id } => {
            let id = find(&id, context).await?;
            let mut tx = context.begin().await?;
            if !tx.remove_token(&id).await? {
                return Err(none(&id));
            }
            tx.commit().await?;
            Ok(format!("token {id} removed\n"))
        }
    }
}

/// Returns the id of the one token whose id begins so.
async fn find(begins: &str, context: &Context) -> Result<String, Failure> {
    let wanted = begins.to_ascii_lowercase();
    let tokens = context.store.tokens().await?;
    let ids = tokens.into_iter().map(|token| token.id);
    let mut found: Vec<String> = ids
        .filter(|id| !wanted.is_empty() && id.starts_with(&wanted))
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => Err(none(begins)),
        (Some(last), false) => {
            found.push(last);
            Err(ambiguous("token", begins, &found))
        }
    }
}

fn none(id: &str) -> Failure {
    let id = Escaped(id);
    Failure(format!("no token \"{id}\": see `relay token ls`"))
}

async fn create(new: NewToken, as_json: bool, context: &Context) -> Result<String, Failure> {
    let address = context.store.tunnel_address(context.facts.member).await?;
    let address = address.ok_or_else(|| {
        Failure::new(
            "no relay has served yet, so a token has no address to name: start `relay serve` once",
        )
    })?;
    let expires = context.now.after(new.ttl).rfc3339();
    let mut tx = context.begin().await?;
    let (id, secret) = tx.create_token(new, context.now).await?;
    tx.commit().await?;
    let fingerprint = context.facts.cluster;
    let token = Token {
        address,
        fingerprint,
        secret,
    }
    .expose();
    if as_json {
        return json(&NewRow { id, token, expires });
    }
    Ok(token + "\n")
}

/// Refuses a token for another relay where this one has to stay alone.
async fn may_grow(context: &Context) -> Result<(), Failure> {
    let place = StorageBackend::remembered(&context.store).await;
    let place = place.map_err(|error| Failure(error.to_string()))?;
    match place.why_alone(&context.store) {
        Some(why) => Err(Failure::new(why)),
        None => Ok(()),
    }
}

fn label_map(given: Vec<Label>) -> Result<Labels, Failure> {
    let mut labels = Labels::new();
    for Label(key, value) in given {
        if let Some(before) = labels.insert(key.clone(), value.clone())
            && before != value
        {
            return Err(Failure(format!(
                "label {key} is given twice: {before} and {value}"
            )));
        }
    }
    if labels.len() > MAX_LABELS {
        return Err(Failure(format!(
            "{} labels are too many; the maximum is {MAX_LABELS}",
            labels.len()
        )));
    }
    Ok(labels)
}

/// Returns what joins with a token, in a word.
fn joins(token: &TokenRow) -> &'static str {
    match token.for_relay {
        true => "relay",
        false => "device",
    }
}

fn list(tokens: &[TokenRow], as_json: bool, context: &Context) -> Result<String, Failure> {
    if as_json {
        let row = |token: &TokenRow| Row {
            id: token.id.clone(),
            uses: token.uses,
            uses_left: token.uses_left,
            created: token.created.rfc3339(),
            expires: token.expires.rfc3339(),
            labels: token.labels.clone(),
            r#for: joins(token),
        };
        return json(&tokens.iter().map(row).collect::<Vec<_>>());
    }
    let row = |token: &TokenRow| {
        let left = Coarse(token.expires.since(context.now));
        let over = Coarse(context.now.since(token.expires));
        [
            token.id.clone(),
            format!("{} of {}", token.uses_left, token.uses),
            if token.expires > context.now {
                format!("in {left}")
            } else {
                format!("expired {over} ago")
            },
            joins(token).to_owned(),
            labels(&token.labels),
        ]
    };
    let rows: Vec<_> = tokens.iter().map(row).collect();
    let head = ["ID", "LEFT", "EXPIRES", "FOR", "LABELS"];
    Ok(table(context.width, head, &rows))
}
