//! Nouns that several layers share: devices, users, roles and their rules, labels, locks, quotas, snapshots of the
//! whole policy, sources of connections, faults. What a value says of another is here (a rule matches, a quota is full);
//! decisions are in [`crate::access`].

pub(crate) mod device;
pub(crate) mod form;
pub(crate) mod invalid;
pub(crate) mod labels;
pub(crate) mod limits;
pub(crate) mod lock;
pub(crate) mod quota;
pub(crate) mod request;
pub(crate) mod role;
pub(crate) mod sftp;
pub(crate) mod snapshot;
pub(crate) mod source;
pub(crate) mod user;

pub(crate) use role::presets;
