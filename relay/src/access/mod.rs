//! Who may do what. Pure functions of facts and the time: nothing here reads a store or a clock.

pub mod certificate;
pub mod decision;
pub mod form;
pub mod idle;
pub mod lock;
pub mod policy;
pub mod presets;
pub mod quota;
pub mod recording;
pub mod role;
pub mod rule;
pub mod selector;
pub mod sftp;

#[cfg(test)]
pub(crate) mod tests;
