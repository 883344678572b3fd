//! The policy document: roles and users in one file that can be reviewed, applied and given back.

mod json;
mod read;
mod users;
mod write;

use std::collections::BTreeMap;

use holdfast_protocol::ids::UserName;
use serde::{Deserialize, Serialize};

use crate::model::form::{FormText, RoleForm, only_a_table};
use crate::model::role::RoleName;

pub(crate) use read::read;
pub(crate) use users::{check_email, check_principal};
pub(crate) use write::{roles_toml, users_toml};

/// A document as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    remote = "Self",
    deny_unknown_fields,
    expecting = "a table of roles and users"
)]
pub(crate) struct Document {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<FormText<RoleName>, RoleForm>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<FormText<UserName>, UserForm>,
}

/// `[users.NAME]`. What it does not name stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, expecting = "a table of a user")]
pub(crate) struct UserForm {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<RoleName>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principals: Option<Vec<String>>,
}

only_a_table!(Document, UserForm);

#[cfg(test)]
mod tests;
