//! `role`: roles one by one. They are made and changed by `apply`.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde::Serialize;

use crate::audit::{Event, EventKind};
use crate::commands::Done;
use crate::commands::answer::table::{or_dash, table};
use crate::commands::call::{Call, Command, Right};
use crate::commands::{Context, Failure, json};
use crate::model::form::{RoleForm, inline};
use crate::model::presets::{self, is_preset};
use crate::model::role::{Ability, Role, RoleName};

/// Roles: list, remove
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay role ls
  relay role rm field-tech

Roles are made and changed in a file: `relay apply --help`.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: RoleCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum RoleCommand {
    /// List the roles; in full: `relay get roles -o toml`
    #[command(visible_alias = "list")]
    Ls {
        /// Print JSON for machines
        #[arg(long)]
        json: bool,
    },
    /// Remove a role that no user has
    Rm {
        /// The name of the role
        name: RoleName,
    },
}

/// A role at a glance, for machines. These names are relied upon: they may be added to, never changed.
#[derive(Serialize)]
struct Row {
    name: String,
    /// `preset` or `own`.
    kind: &'static str,
    allows: Vec<&'static str>,
    /// `null`: the role says nothing of it.
    idle_timeout: Option<String>,
    /// `null`: no limit.
    max_session: Option<String>,
    limits: BTreeMap<&'static str, u32>,
    source: Vec<String>,
}

impl Row {
    fn of(role: &Role) -> Self {
        let form = RoleForm::of(role);
        let limits = form.limits.named();
        Self {
            name: role.name.to_string(),
            kind: kind(role),
            allows: abilities(role),
            idle_timeout: form.idle_timeout.map(|idle| bare(&inline(&idle))),
            max_session: form.max_session.map(|longest| bare(&inline(&longest))),
            limits: limits
                .into_iter()
                .filter_map(|(name, limit)| Some((name, limit?)))
                .collect(),
            source: role.source.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Returns a text without the quotes of its form.
fn bare(text: &str) -> String {
    text.trim_matches('"').to_owned()
}

fn kind(role: &Role) -> &'static str {
    if is_preset(role.name.as_str()) {
        "preset"
    } else {
        "own"
    }
}

impl Args {
    fn only_reads(&self) -> bool {
        matches!(self.command, RoleCommand::Ls { .. })
    }
}

impl Command for Args {
    fn need(&self) -> Right {
        Right::to_read_or_change(self.only_reads(), Right::REVIEW)
    }

    /// Returns the audit event of a change.
    fn event(&self) -> Option<Event> {
        let RoleCommand::Rm { name } = &self.command else {
            return None;
        };
        let event = Event::new(EventKind::AccessChanged).with("change", "role.rm");
        Some(event.with("target", name.as_str()))
    }

    fn is_deed(&self) -> bool {
        !self.only_reads()
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        run(self, call.context).await.map(Done::from)
    }
}

async fn run(args: Args, context: &Context) -> Result<String, Failure> {
    match args.command {
        RoleCommand::Ls { json: as_json } => {
            let mut roles = context.store.roles().await?;
            roles.extend(presets::presets());
            roles.sort_by(|a, b| a.name.cmp(&b.name));
            if as_json {
                return json(&roles.iter().map(Row::of).collect::<Vec<_>>());
            }
            Ok(roles_table(&roles, context.width))
        }
        RoleCommand::Rm { name } => {
            let mut tx = context.begin().await?;
            tx.remove_role(&name).await?;
            tx.commit().await?;
            Ok(format!("role {name} removed\n"))
        }
    }
}

/// Returns one row per role: what it is about at a glance, not all that it says.
pub(crate) fn roles_table(roles: &[Role], width: Option<usize>) -> String {
    let row = |role: &Role| {
        let form = RoleForm::of(role);
        let idle = form.idle_timeout.map(|idle| inline(&idle));
        let limits: Vec<String> = form
            .limits
            .named()
            .into_iter()
            .filter_map(|(name, limit)| Some(format!("{name}={}", limit?)))
            .chain(form.max_session.map(|longest| {
                let longest = inline(&longest);
                format!("max_session={}", longest.trim_matches('"'))
            }))
            .collect();
        let source: Vec<String> = role.source.iter().map(ToString::to_string).collect();
        [
            role.name.to_string(),
            kind(role).to_owned(),
            or_dash(&abilities(role).join(",")),
            or_dash(idle.unwrap_or_default().trim_matches('"')),
            or_dash(&limits.join(",")),
            or_dash(&source.join(",")),
        ]
    };
    let rows: Vec<_> = roles.iter().map(row).collect();
    let head = ["NAME", "KIND", "ALLOWS", "IDLE", "LIMITS", "SOURCE"];
    table(width, head, &rows)
}

/// Returns every ability that some rule allows and that there is something for.
fn abilities(role: &Role) -> Vec<&'static str> {
    let allowed = |ability: &Ability| {
        let mut rules = role.allow.iter();
        rules.any(|rule| {
            rule.abilities
                .as_ref()
                .is_some_and(|all| all.contains(ability))
        })
    };
    Ability::OFFERED
        .iter()
        .filter(|ability| allowed(ability))
        .map(|ability| ability.as_str())
        .collect()
}
