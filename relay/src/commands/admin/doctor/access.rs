//! Users and roles that look unsafe.

use super::{Finding, Level};
use crate::access::policy::{Ability, Subject};
use crate::commands::access::ca;
use crate::commands::answer::table::count;
use crate::model::presets::{is_preset, preset};
use crate::model::role::rule::{LabelRule, Rule};
use crate::model::role::{IdleTimeout, Role};
use crate::store::{Store, StoreError, UserRow};

pub(crate) async fn check(store: &Store) -> Result<Vec<Finding>, StoreError> {
    let (users, roles) = (store.users().await?, store.roles().await?);
    let mut found: Vec<Finding> = users
        .iter()
        .flat_map(|user| of_user(user, &roles))
        .collect();
    found.extend(roles.iter().flat_map(of_role));
    let has_authority = ca::has_authority(store).await?;
    found.extend(
        users
            .iter()
            .filter_map(|row| without_authority(row, has_authority)),
    );
    found.extend(no_admin(&users, &roles, has_authority));
    let quiet = found.is_empty();
    if quiet {
        let (users, roles) = (count(users.len(), "user"), count(roles.len(), "role"));
        let message = format!("{users}, {roles} beside the presets, nothing unsafe");
        found.push(Finding::new(Level::Ok, "access", message));
    }
    Ok(found)
}

/// Checks that there is an authority for users who are known by principals alone: they need one to log in.
fn without_authority(row: &UserRow, has_authority: bool) -> Option<Finding> {
    let needs_one = row.keys.is_empty() && !row.principals.is_empty();
    (needs_one && !has_authority).then(|| {
        let message = format!(
            "user {} has principals and no key, and no authority for users is trusted, so nothing logs in as {0}: `relay ca trust`, or `relay user key add {0}`",
            row.user.name
        );
        Finding::new(Level::Warning, "users", message)
    })
}

/// Checks that an admin can log in over SSH: the relay's own shell can do everything.
fn no_admin(users: &[UserRow], roles: &[Role], has_authority: bool) -> Option<Finding> {
    let role = |name: &String| {
        let own = roles.iter().find(|role| role.name.as_str() == name);
        own.cloned().or_else(|| preset(name))
    };
    let is_admin = |row: &UserRow| {
        let logs_in = !row.keys.is_empty() || (has_authority && !row.principals.is_empty());
        let subject = Subject {
            user: row.user.clone(),
            roles: row.user.roles.iter().filter_map(role).collect(),
        };
        logs_in && subject.may(Ability::Admin)
    };
    (!users.iter().any(is_admin)).then(|| {
        let message = "no user who can log in may administer the relay, which is left to its own shell: `relay user add NAME --key FILE --role admin`";
        Finding::new(Level::Warning, "users", message)
    })
}

fn of_user(row: &UserRow, roles: &[Role]) -> Vec<Finding> {
    let user = &row.user;
    let mut found = Vec::new();
    let mut warn = |message: String| found.push(Finding::new(Level::Warning, "users", message));
    if row.keys.is_empty() && row.principals.is_empty() {
        warn(format!(
            "user {} has neither key nor principal and cannot log in",
            user.name
        ));
    }
    if user.roles.is_empty() {
        warn(format!("user {} has no role and may do nothing", user.name));
    }
    for name in &user.roles {
        if !is_preset(name) && !roles.iter().any(|role| role.name.as_str() == name) {
            warn(format!(
                "user {} has the role {name}, which does not exist",
                user.name
            ));
        }
    }
    found
}

fn of_role(role: &Role) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut warn = |message: String| found.push(Finding::new(Level::Warning, "roles", message));
    if role.idle_timeout == Some(IdleTimeout::Never) && role.max_session.is_none() {
        warn(format!(
            "role {} has idle_timeout never and no max_session: a forgotten session stays open",
            role.name
        ));
    }
    if role.deny.is_empty() && role.allow.iter().any(allows_everything) {
        warn(format!(
            "role {} allows every login on every device",
            role.name
        ));
    }
    found
}

fn allows_everything(rule: &Rule) -> bool {
    let runs = |ability: &Ability| matches!(ability, Ability::Shell | Ability::Exec);
    rule.labels.as_ref().is_some_and(LabelRule::is_any)
        && rule.logins.is_some()
        && rule.any_login()
        && rule.abilities.iter().flatten().any(runs)
}
