//! The arguments of `user`.

use clap::{ArgGroup, Subcommand};
use holdfast_protocol::ids::UserName;

use crate::commands::access::policy::{check_email, check_principal};
use crate::model::invalid::Invalid;
use crate::model::role::RoleName;

/// Operators: who they are, by which keys they are known, what roles they have
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay user add alice --key alice.pub --role operator
  relay user ls
  relay user role add alice auditor")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(super) command: UserCommand,
    /// Print JSON for machines
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Add a user by public keys
    #[command(group = ArgGroup::new("proof").required(true).multiple(true), after_help = "Examples:
  relay user add alice --key alice.pub --role admin
  ssh-add -L | relay user add alice --key -
  curl -s https://github.com/alice.keys | relay user add alice --key -
  relay user add alice --principal alice --role operator      by certificates alone

The same command a second time changes nothing. A user without a role may do nothing yet.")]
    Add {
        /// The name in logs and refusals
        name: UserName,
        /// File with one or more public keys; - reads stdin
        #[arg(long, value_name = "FILE|-", group = "proof")]
        key: Vec<String>,
        /// A role of the user; can be given more than once
        #[arg(long, value_name = "ROLE")]
        role: Vec<String>,
        /// For records
        #[arg(long, value_name = "ADDRESS", value_parser = email)]
        email: Option<String>,
        /// A name of the user in certificates; can be given more than once
        #[arg(long, value_name = "PRINCIPAL", value_parser = principal, group = "proof")]
        principal: Vec<String>,
    },
    /// List the users
    #[command(visible_alias = "list")]
    Ls,
    /// Show one user with all keys
    Show {
        /// The name of the user
        name: UserName,
    },
    /// Remove a user and all keys
    Rm {
        /// The name of the user
        name: UserName,
    },
    /// Disable a user and end their sessions; keys and roles are kept
    Disable {
        /// The name of the user
        name: UserName,
    },
    /// Allow a user again what the roles say
    Enable {
        /// The name of the user
        name: UserName,
    },
    /// Note a user's e-mail address; an empty one removes it
    Email {
        /// The name of the user
        name: UserName,
        /// The address
        #[arg(value_parser = email_or_none)]
        address: Option<String>,
    },
    /// Add or remove roles
    #[command(subcommand)]
    Role(UserRoleCommand),
    /// Add or remove a key of a user
    #[command(subcommand)]
    Key(KeyCommand),
    /// Add or remove certificate principals
    #[command(subcommand)]
    Principal(PrincipalCommand),
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum UserRoleCommand {
    /// Give a user roles
    #[command(after_help = "Example:
  relay user role add alice operator")]
    Add {
        /// The name of the user
        name: UserName,
        /// The roles
        #[arg(required = true)]
        roles: Vec<String>,
    },
    /// Take a role from a user
    Rm {
        /// The name of the user
        name: UserName,
        /// The role
        role: RoleName,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum PrincipalCommand {
    /// Add principals to a user
    Add {
        /// The name of the user
        name: UserName,
        /// The principals
        #[arg(required = true, value_parser = principal)]
        principals: Vec<String>,
    },
    /// Take a principal from a user
    Rm {
        /// The name of the user
        name: UserName,
        /// The principal
        #[arg(value_parser = principal)]
        principal: String,
    },
}

fn email(text: &str) -> Result<String, Invalid> {
    check_email(text).map_err(|error| error.to_string().into())
}

fn email_or_none(text: &str) -> Result<String, Invalid> {
    if text.is_empty() {
        return Ok(String::new());
    }
    email(text)
}

fn principal(text: &str) -> Result<String, Invalid> {
    check_principal(text).map_err(|error| error.to_string().into())
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Add keys to a user
    #[command(after_help = "Example:
  relay user key add alice --key laptop.pub")]
    Add {
        /// The name of the user
        name: UserName,
        #[command(flatten)]
        key: KeyArg,
    },
    /// Remove a key from a user
    #[command(after_help = "Example:
  relay user key rm alice SHA256:3fQ…

`relay user show alice` prints the fingerprints.")]
    Rm {
        /// The name of the user
        name: UserName,
        /// `SHA256:…`, as `user show` and `ssh-keygen -l` print it
        fingerprint: String,
    },
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct KeyArg {
    /// File with one or more public keys; - reads stdin
    #[arg(long, value_name = "FILE|-", required = true)]
    pub(super) key: Vec<String>,
}
