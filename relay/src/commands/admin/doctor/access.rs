//! Users and roles that look unsafe.

use super::Finding;
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
        found.push(Finding::ok("access", message));
    }
    Ok(found)
}

/// Checks that there is an authority for users who are known by principals alone: they need one to log in.
fn without_authority(row: &UserRow, has_authority: bool) -> Option<Finding> {
    let needs_one = row.keys.is_empty() && !row.principals.is_empty();
    (needs_one && !has_authority).then(|| {
        let name = &row.user.name;
        let message = format!(
            "user {name} has principals and no key, and no authority for users is trusted, so nothing logs in as {name}"
        );
        let remedy = format!("`relay ca trust`, or `relay user key add {name}`");
        Finding::warning("users", message, remedy)
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
            elsewhere: None,
            user: row.user.clone(),
            roles: row.user.roles.iter().filter_map(role).collect(),
        };
        logs_in && subject.may(Ability::Admin)
    };
    (!users.iter().any(is_admin)).then(|| {
        let message =
            "no user who can log in may administer the relay, which is left to its own shell";
        let remedy = "`relay user add NAME --key FILE --role admin`";
        Finding::warning("users", message, remedy)
    })
}

fn of_user(row: &UserRow, roles: &[Role]) -> Vec<Finding> {
    let user = &row.user;
    let mut found = Vec::new();
    let own = &user.name;
    let mut warn = |message: String, remedy: String| {
        found.push(Finding::warning("users", message, remedy));
    };
    if row.keys.is_empty() && row.principals.is_empty() {
        warn(
            format!("user {own} has neither key nor principal and cannot log in"),
            format!("`relay user key add {own} --key FILE`, or `relay user rm {own}`"),
        );
    }
    if user.roles.is_empty() {
        warn(
            format!("user {own} has no role and may do nothing"),
            format!("`relay user role add {own} ROLE`; `relay get roles` lists them"),
        );
    }
    for name in &user.roles {
        if !is_preset(name) && !roles.iter().any(|role| role.name.as_str() == name) {
            warn(
                format!("user {own} has the role {name}, which does not exist"),
                format!("define it with `relay apply`, or `relay user role rm {own} {name}`"),
            );
        }
    }
    found
}

fn of_role(role: &Role) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut warn = |message: String, remedy: &str| {
        found.push(Finding::warning("roles", message, remedy));
    };
    if role.idle_timeout == Some(IdleTimeout::Never) && role.max_session.is_none() {
        let message = format!(
            "role {} has idle_timeout never and no max_session: a forgotten session stays open",
            role.name
        );
        warn(message, "set one of them, if that was not intended");
    }
    if role.deny.is_empty() && role.allow.iter().any(allows_everything) {
        let message = format!("role {} allows every login on every device", role.name);
        warn(
            message,
            "name the logins or the labels, if that was not intended",
        );
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
