//! The stored access rules: users, keys, roles, authorities, revocations, locks, and the policy document.
pub(crate) mod authorities;
pub(crate) mod keys;
pub(crate) mod locks;
pub(crate) mod policy;
pub(crate) mod revocations;
pub(crate) mod roles;
pub(crate) mod snapshot;
pub(crate) mod user_changes;
pub(crate) mod users;
