//! `get`: roles and users as they are, in the form that `apply` takes.

use clap::{Subcommand, ValueEnum};

use super::policy::{Document, roles_toml, users_toml};
use super::{role, user};
use crate::audit::Event;
use crate::commands::Done;
use crate::commands::call::{Call, Command, Right};
use crate::commands::{Context, FAILED, Failure, USAGE, json};
use crate::model::presets;
use crate::model::role::{Role, RoleName};

/// Give roles or users back, in the form that `apply` takes
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay get roles
  relay get roles -o toml > roles.toml      edit it, then: relay apply -f roles.toml
  relay get roles operator -o toml          a preset, to begin a role of one's own with
  relay get users -o json | jq -r '.users | keys[]'")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    /// The form of the output [default: table]
    #[arg(short, long, global = true, value_enum)]
    output: Option<Form>,
    /// Print JSON for machines, as `-o json` does
    #[arg(long, global = true, conflicts_with = "output")]
    json: bool,
}

impl Args {
    /// Returns whether two forms are asked for: the grammar sees that only of options at one place.
    const fn is_two(&self) -> bool {
        self.json && self.output.is_some()
    }

    fn form(&self) -> Form {
        match self.json {
            true => Form::Json,
            false => self.output.unwrap_or(Form::Table),
        }
    }
}

impl Command for Args {
    fn need(&self) -> Right {
        Right::REVIEW
    }

    fn event(&self) -> Option<Event> {
        None
    }

    fn failure_code(&self) -> u8 {
        if self.is_two() { USAGE } else { FAILED }
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        run(&self, call.context).await.map(Done::from)
    }
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// The roles. The presets, which cannot be changed, are in the table, and in a file only by name
    Roles {
        /// These alone
        names: Vec<RoleName>,
    },
    /// The users
    Users,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people
    Table,
    /// As `apply` takes it
    Toml,
    /// The same in JSON
    Json,
}

async fn run(args: &Args, context: &Context) -> Result<String, Failure> {
    if args.is_two() {
        return Err(Failure::new(
            "--json cannot be given with --output <OUTPUT>",
        ));
    }
    match &args.what {
        What::Roles { names } => roles(names, args.form(), context).await,
        What::Users => {
            let users = context.store.users().await?;
            match args.form() {
                Form::Table => user::list(&users, false, context.width),
                Form::Toml => Ok(users_toml(&Document::of_users(&users))),
                Form::Json => json(&Document::of_users(&users)),
            }
        }
    }
}

async fn roles(names: &[RoleName], form: Form, context: &Context) -> Result<String, Failure> {
    let mut all = context.store.roles().await?;
    if form == Form::Table || !names.is_empty() {
        all.extend(presets::presets());
        all.sort_by(|a, b| a.name.cmp(&b.name));
    }
    if let Some(unknown) = names
        .iter()
        .find(|name| !all.iter().any(|role| &role.name == *name))
    {
        return Err(Failure(format!(
            "no role \"{unknown}\": see `relay get roles`"
        )));
    }
    all.retain(|role: &Role| names.is_empty() || names.contains(&role.name));
    match form {
        Form::Table => Ok(role::roles_table(&all, context.width)),
        Form::Toml => Ok(roles_toml(&Document::of_roles(&all))),
        Form::Json => json(&Document::of_roles(&all)),
    }
}
