//! The roles that every relay has. They cannot be changed: who wants another one gives it another name.

use crate::model::role::rule::{LabelRule, LoginRule, Rule};
use crate::model::role::{Ability, Role, RoleName};

/// Everything: every command, every login on every device.
pub(crate) const ADMIN: &str = "admin";
/// Working on every device, under every login, and seeing one's own recordings.
pub(crate) const OPERATOR: &str = "operator";
/// Seeing everything that was done, and doing nothing.
pub(crate) const AUDITOR: &str = "auditor";

/// The names of the presets.
pub(crate) const NAMES: [&str; 3] = [ADMIN, AUDITOR, OPERATOR];

/// Returns whether that name is a preset's.
#[must_use]
pub(crate) fn is_preset(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Returns the preset of that name, if it is one's.
#[must_use]
pub(crate) fn preset(name: &str) -> Option<Role> {
    use Ability::{Admin, AgentForward, Exec, Forward, Recover, Review, ReviewOwn, Sftp, Shell};
    const DEVICE: [Ability; 5] = [Shell, Exec, Sftp, Forward, AgentForward];
    let name = RoleName::new(name).ok()?;
    let allow = match name.as_str() {
        ADMIN => vec![
            on_any_device(DEVICE.into_iter().chain([Recover]).collect()),
            over_the_fleet(vec![Admin, Review, ReviewOwn]),
        ],
        OPERATOR => vec![
            on_any_device(DEVICE.into()),
            over_the_fleet(vec![ReviewOwn]),
        ],
        AUDITOR => vec![over_the_fleet(vec![Review, ReviewOwn])],
        _ => return None,
    };
    Some(Role {
        allow,
        ..Role::empty(name)
    })
}

/// Returns all presets, by name.
#[must_use]
pub(crate) fn presets() -> Vec<Role> {
    NAMES.into_iter().filter_map(preset).collect()
}

fn on_any_device(abilities: Vec<Ability>) -> Rule {
    Rule {
        labels: Some(LabelRule::any()),
        logins: Some(vec![LoginRule::Any]),
        abilities: Some(abilities),
    }
}

fn over_the_fleet(abilities: Vec<Ability>) -> Rule {
    Rule {
        abilities: Some(abilities),
        ..Rule::default()
    }
}
