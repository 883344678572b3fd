//! `role`: roles one by one. They are made and changed by `apply`.

use clap::Subcommand;

use super::table::{or_dash, table};
use super::{Context, Failure};
use crate::access::form::{RoleForm, inline};
use crate::access::presets::{self, is_preset};
use crate::access::role::{Ability, Role, RoleName};
use crate::audit::{Event, EventKind};

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay role ls
  relay role rm field-tech

Roles are made and changed in a file: `relay apply --help`.")]
pub struct Args {
    #[command(subcommand)]
    command: RoleCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum RoleCommand {
    /// List the roles; in full: `relay get roles -o toml`
    #[command(visible_alias = "list")]
    Ls,
    /// Remove a role that no user has
    Rm {
        /// Which
        name: RoleName,
    },
}

impl Args {
    pub(super) fn only_reads(&self) -> bool {
        matches!(self.command, RoleCommand::Ls)
    }

    /// What a change is recorded as.
    pub(super) fn event(&self) -> Option<Event> {
        let RoleCommand::Rm { name } = &self.command else {
            return None;
        };
        let event = Event::new(EventKind::AccessChanged).with("change", "role.rm");
        Some(event.with("target", name.as_str()))
    }
}

pub(super) async fn run(args: Args, context: &Context) -> Result<String, Failure> {
    match args.command {
        RoleCommand::Ls => {
            let mut roles = context.store.roles().await?;
            roles.extend(presets::presets());
            roles.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(roles_table(&roles))
        }
        RoleCommand::Rm { name } => {
            context.store.remove_role(&name).await?;
            Ok(format!("role {name} removed\n"))
        }
    }
}

/// One row per role: what it is about at a glance, not all that it says.
pub(super) fn roles_table(roles: &[Role]) -> String {
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
        let kind = if is_preset(role.name.as_str()) {
            "preset"
        } else {
            "own"
        };
        [
            role.name.to_string(),
            kind.to_owned(),
            or_dash(&abilities(role)),
            or_dash(idle.unwrap_or_default().trim_matches('"')),
            or_dash(&limits.join(",")),
            or_dash(&source.join(",")),
        ]
    };
    let rows: Vec<_> = roles.iter().map(row).collect();
    table(
        ["NAME", "KIND", "ALLOWS", "IDLE", "LIMITS", "SOURCE"],
        &rows,
    )
}

/// Every ability that some rule allows.
fn abilities(role: &Role) -> String {
    let allowed = |ability: &Ability| {
        let mut rules = role.allow.iter();
        rules.any(|rule| {
            rule.abilities
                .as_ref()
                .is_some_and(|all| all.contains(ability))
        })
    };
    let words: Vec<&str> = Ability::ALL
        .iter()
        .filter(|ability| allowed(ability))
        .map(|ability| ability.as_str())
        .collect();
    words.join(",")
}
