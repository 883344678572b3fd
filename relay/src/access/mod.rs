//! Who may do what. Pure functions of facts and the time: nothing here reads a store or a clock.

pub(crate) mod certificate;
pub(crate) mod decision;
pub(crate) mod form;
pub(crate) mod idle;
pub(crate) mod lock;
pub(crate) mod policy;
pub(crate) mod presets;
pub(crate) mod quota;
pub(crate) mod recording;
pub(crate) mod role;
pub(crate) mod rule;
pub(crate) mod selector;
pub(crate) mod sftp;

#[cfg(test)]
pub(crate) mod tests;
