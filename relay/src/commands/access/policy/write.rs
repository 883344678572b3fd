//! Writes what the store holds as a document.

use holdfast_protocol::ids::UserName;

use super::{Document, UserForm};
use crate::model::form::{FormText, RoleForm, TomlText};
use crate::model::role::{Role, RoleName};
use crate::store::{UserKey, UserRow};

impl Document {
    /// Returns the document of these roles.
    pub(crate) fn of_roles<'a>(roles: impl IntoIterator<Item = &'a Role>) -> Self {
        let form = |role: &Role| (FormText(role.name.clone()), RoleForm::of(role));
        Self {
            roles: roles.into_iter().map(form).collect(),
            ..Self::default()
        }
    }

    /// Returns the document of these users.
    pub(crate) fn of_users(users: &[UserRow]) -> Self {
        let form = |row: &UserRow| (FormText(row.user.name.clone()), UserForm::of(row));
        Self {
            users: users.iter().map(form).collect(),
            ..Self::default()
        }
    }
}

impl UserForm {
    /// Lists are written even when they are empty: applied again, they then take away what came since.
    fn of(row: &UserRow) -> Self {
        let role = |name: &String| RoleName::new(name).ok();
        let key = |key: &UserKey| {
            format!("{} {}", key.public_key, key.comment)
                .trim_end()
                .to_owned()
        };
        Self {
            email: row.user.email.clone(),
            disabled: row.user.disabled.then_some(true),
            roles: Some(row.user.roles.iter().filter_map(role).collect()),
            keys: Some(row.keys.iter().map(key).collect()),
            principals: Some(row.principals.clone()),
        }
    }
}

/// Returns `[roles.…]` of all of them.
pub(crate) fn roles_toml(document: &Document) -> String {
    let mut text = TomlText::default();
    for (name, role) in &document.roles {
        text.role(&name.0, role);
    }
    text.finish()
}

/// Returns `[users.…]` of all of them.
pub(crate) fn users_toml(document: &Document) -> String {
    let mut text = TomlText::default();
    for (name, user) in &document.users {
        one_user(&mut text, &name.0, user);
    }
    text.finish()
}

fn one_user(text: &mut TomlText, name: &UserName, user: &UserForm) {
    text.table(&["users", name.as_str()], false);
    if let Some(email) = &user.email {
        text.value("email", email);
    }
    if let Some(disabled) = &user.disabled {
        text.value("disabled", disabled);
    }
    if let Some(roles) = &user.roles {
        text.value("roles", roles);
    }
    if let Some(keys) = &user.keys {
        text.value("keys", keys);
    }
    if let Some(principals) = &user.principals {
        text.value("principals", principals);
    }
}
