//! From the text of a document to what the store is to hold, checked.

use holdfast_protocol::escape::{Escaped, OneLine};
use thiserror::Error;

use super::users::{UserError, check_user};
use super::{Document, json};
use crate::commands::Failure;
use crate::commands::limits::MAX_POLICY_USERS;
use crate::config::one_line;
use crate::model::form::FormError;
use crate::model::presets::is_preset;
use crate::model::role::{Ability, Role};
use crate::store::Policy;
use crate::store::limits::MAX_ROLES;

/// The reason why a document is not applied.
#[derive(Debug, Error)]
pub(crate) enum DocumentError {
    #[error("{0} is not valid UTF-8")]
    NoText(String),
    #[error("{0} is empty: expected roles or users in TOML or JSON{1}")]
    Empty(String, &'static str),
    #[error("{file}: {problem}")]
    Parse { file: String, problem: String },
    #[error("{file}: {problem}")]
    Form { file: String, problem: FormError },
    #[error("{file}: {problem}")]
    User { file: String, problem: UserError },
    #[error(
        "{file}: role \"{role}\" is a preset and cannot be changed: take it out of the file, or give yours another name"
    )]
    Preset { file: String, role: String },
    #[error(
        "{file}: role \"{role}\" names the ability \"join\", which no version of this relay implements: take it out"
    )]
    NotImplemented { file: String, role: String },
    #[error("{file} has {found} {what}; the maximum is {most}")]
    TooMany {
        file: String,
        found: usize,
        what: &'static str,
        most: usize,
    },
}

impl From<DocumentError> for Failure {
    fn from(error: DocumentError) -> Self {
        Self(error.to_string())
    }
}

/// Reads a document. `file` is what to call it.
pub(crate) fn read(file: &str, text: &[u8]) -> Result<Policy, DocumentError> {
    let file = Escaped(file).to_string();
    let Ok(text) = std::str::from_utf8(text) else {
        return Err(DocumentError::NoText(file));
    };
    // Nothing at all is more likely a command before the pipe, or an editor, that failed.
    if text.trim_ascii().is_empty() {
        let cause = match file.as_str() {
            "stdin" => "; did the command before the pipe fail?",
            _ => "",
        };
        return Err(DocumentError::Empty(file, cause));
    }
    let document = match json::is_json(text) {
        true => json::read(text),
        false => toml::from_str(text).map_err(|error| one_line(text, &error)),
    };
    let document: Document = document.map_err(|problem| DocumentError::Parse {
        file: file.clone(),
        // What it quotes of the text is escaped where it is quoted.
        problem: OneLine(&problem).to_string(),
    })?;
    for (found, what, most) in [
        (document.roles.len(), "roles", MAX_ROLES),
        (document.users.len(), "users", MAX_POLICY_USERS),
    ] {
        if found > most {
            return Err(DocumentError::TooMany {
                file,
                found,
                what,
                most,
            });
        }
    }
    let mut policy = Policy::default();
    for (name, form) in document.roles {
        if is_preset(name.0.as_str()) {
            let role = name.0.to_string();
            return Err(DocumentError::Preset { file, role });
        }
        let role = form.role(name.0);
        let role = role.map_err(|problem| DocumentError::Form {
            file: file.clone(),
            problem,
        })?;
        if names(&role, Ability::Join) {
            let role = role.name.to_string();
            return Err(DocumentError::NotImplemented { file, role });
        }
        policy.roles.push(role);
    }
    for (name, form) in document.users {
        let user = check_user(name.0, form);
        policy
            .users
            .push(user.map_err(|problem| DocumentError::User {
                file: file.clone(),
                problem,
            })?);
    }
    Ok(policy)
}

/// Returns whether a rule of the role is about an ability.
fn names(role: &Role, ability: Ability) -> bool {
    let mut rules = role.allow.iter().chain(&role.deny);
    rules.any(|rule| rule.abilities.iter().flatten().any(|one| *one == ability))
}
