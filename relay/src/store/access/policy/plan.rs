//! Plans the changes of a policy document, from what is and what the document says. Pure.

use std::collections::BTreeMap;

use holdfast_protocol::ids::UserName;

use super::{ApplyError, Policy, Snapshot, UserPolicy, UserState};
use crate::model::presets;
use crate::model::user::LOCAL_USER;
use crate::store::limits::MAX_ROLES;

pub(crate) fn plan(
    before: &Snapshot,
    policy: &Policy,
    prune: bool,
) -> Result<Snapshot, ApplyError> {
    let mut after = before.clone();
    // A file with roles alone says nothing of users, and the other way round.
    if prune && !policy.roles.is_empty() {
        after.roles.clear();
    }
    if prune && !policy.users.is_empty() {
        let named = |name: &UserName| policy.users.iter().any(|user| &user.name == name);
        after.users.retain(|name, _| named(name));
    }
    for role in &policy.roles {
        after.roles.insert(role.name.clone(), role.clone());
    }
    for user in &policy.users {
        let state = after.users.entry(user.name.clone()).or_default();
        say(state, user);
    }
    check(before, &after)?;
    Ok(after)
}

fn say(state: &mut UserState, user: &UserPolicy) {
    if let Some(email) = &user.email {
        state.email.clone_from(email);
    }
    if let Some(disabled) = user.disabled {
        state.disabled = disabled;
    }
    if let Some(roles) = &user.roles {
        state.roles = roles.iter().map(ToString::to_string).collect();
        state.roles.sort();
    }
    if let Some(keys) = &user.keys {
        state.keys.clone_from(keys);
    }
    if let Some(principals) = &user.principals {
        state.principals.clone_from(principals);
        state.principals.sort();
    }
}

fn check(before: &Snapshot, after: &Snapshot) -> Result<(), ApplyError> {
    if after.roles.len() > MAX_ROLES {
        let (found, most) = (after.roles.len(), MAX_ROLES);
        return Err(ApplyError::TooManyRoles { found, most });
    }
    let mut holders: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, state) in &after.users {
        for role in &state.roles {
            holders.entry(role).or_default().push(name.to_string());
        }
    }
    for (role, holders) in holders {
        let known = after.roles.keys().any(|name| name.as_str() == role);
        if !known && !presets::is_preset(role) {
            let role = role.to_owned();
            return Err(ApplyError::UnknownRole { role, holders });
        }
    }
    one_owner(after, |state| state.keys.iter().map(|key| &key.fingerprint)).map_err(
        |(fingerprint, owner, other)| ApplyError::KeyTaken {
            fingerprint,
            owner,
            other,
        },
    )?;
    one_owner(after, |state| state.principals.iter()).map_err(|(principal, owner, other)| {
        ApplyError::PrincipalTaken {
            principal,
            owner,
            other,
        }
    })?;
    let is_reserved = |name: &&UserName| name.as_str().eq_ignore_ascii_case(LOCAL_USER);
    let mut new = after
        .users
        .keys()
        .filter(|name| !before.users.contains_key(*name));
    if let Some(name) = new.find(is_reserved) {
        return Err(ApplyError::ReservedUser(name.clone()));
    }
    match before.has_admin() && !after.has_admin() {
        true => Err(ApplyError::LastAdmin),
        false => Ok(()),
    }
}

/// Checks whether each thing is one user's; if not: what, whose, and whose too.
fn one_owner<'a, I: Iterator<Item = &'a String>>(
    snapshot: &'a Snapshot,
    things: impl Fn(&'a UserState) -> I,
) -> Result<(), (String, String, String)> {
    let mut owners: BTreeMap<&str, &UserName> = BTreeMap::new();
    for (name, state) in &snapshot.users {
        for thing in things(state) {
            match owners.insert(thing, name) {
                Some(owner) if owner != name => {
                    return Err((thing.clone(), owner.to_string(), name.to_string()));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::role::{Role, RoleName};
    use crate::store::UserKey;
    use crate::store::access::policy::diff::diff;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    /// Generates few names, so that documents meet each other.
    fn document() -> impl Strategy<Value = Policy> {
        let role = prop::sample::select(vec!["a", "b", "admin"])
            .prop_map(|name| RoleName::new(name).unwrap());
        let roles = btree_map(prop::sample::select(vec!["a", "b"]), any::<bool>(), 0..3);
        let key = prop::sample::select(vec!["k", "l"]).prop_map(|key| UserKey {
            fingerprint: format!("SHA256:{key}"),
            public_key: key.to_owned(),
            comment: String::new(),
        });
        let principal = prop::sample::select(vec!["p", "q"]).prop_map(str::to_owned);
        let user = (
            proptest::option::of(vec(role, 0..2)),
            proptest::option::of(vec(key, 0..2)),
            proptest::option::of(vec(principal, 0..2)),
            proptest::option::of(any::<bool>()),
        );
        let users = btree_map(
            prop::sample::select(vec!["alice", "bob", "carol"]),
            user,
            0..3,
        );
        (roles, users).prop_map(|(roles, users)| {
            let role = |(name, never)| Role {
                idle_timeout: Some(crate::model::role::IdleTimeout::Never).filter(|_| never),
                ..Role::empty(RoleName::new(name).unwrap())
            };
            let user = |(name, (roles, keys, principals, disabled))| UserPolicy {
                name: UserName::new(name).unwrap(),
                email: None,
                disabled,
                roles,
                keys,
                principals,
            };
            Policy {
                roles: roles.into_iter().map(role).collect(),
                users: users.into_iter().map(user).collect(),
            }
        })
    }

    proptest! {
        #[test]
        fn a_document_applied_twice_changes_nothing_more(documents in vec((document(), any::<bool>()), 1..6)) {
            let mut now = Snapshot::default();
            for (document, prune) in documents {
                let Ok(after) = plan(&now, &document, prune) else { continue };
                prop_assert_eq!(diff(&now, &after).is_empty(), now == after);
                // No user has what does not exist, or what is another's, and an admin stays where one was.
                prop_assert!(check(&after, &after).is_ok());
                prop_assert!(!now.has_admin() || after.has_admin());
                let again = plan(&after, &document, prune).unwrap();
                prop_assert_eq!(&again, &after);
                if prune && !document.users.is_empty() {
                    prop_assert_eq!(after.users.len(), document.users.len());
                }
                now = after;
            }
        }
    }
}
