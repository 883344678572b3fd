//! Commands about people, their keys and roles, locks, and authorities.
pub(crate) mod apply;
pub(crate) mod ca;
pub(crate) mod get;
pub(crate) mod keys;
pub(crate) mod lock;
pub(crate) mod policy;
pub(crate) mod role;
pub(crate) mod user;
pub(crate) mod whoami;
