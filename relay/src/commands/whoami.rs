//! `whoami`: the one command that everybody may run.

use serde::Serialize;

use super::{Caller, Failure, json};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print an object for machines
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    /// `null` for who is at the relay's own shell.
    user: Option<&'a str>,
    roles: &'a [String],
    disabled: bool,
}

pub(super) fn run(args: &Args, caller: &Caller) -> Result<String, Failure> {
    let row = match caller {
        Caller::Local => Row {
            user: None,
            roles: &[],
            disabled: false,
        },
        Caller::User(user) => Row {
            user: Some(user.name.as_str()),
            roles: &user.roles,
            disabled: user.disabled,
        },
    };
    if args.json {
        return json(&row);
    }
    let Some(name) = row.user else {
        return Ok(
            "the relay's own administrator: who can read its state may do everything\n".to_owned(),
        );
    };
    let roles = if row.disabled {
        "disabled: may do nothing".to_owned()
    } else if row.roles.is_empty() {
        "no role: may do nothing yet".to_owned()
    } else {
        format!("roles {}", row.roles.join(", "))
    };
    Ok(format!("{name}: {roles}\n"))
}
