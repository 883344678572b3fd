//! The rules about who may do what. Pure functions of facts and the time: nothing here reads a store or a clock.

pub(crate) mod certificate;
pub(crate) mod decision;
pub(crate) mod idle;
pub(crate) mod limits;
pub(crate) mod policy;
pub(crate) mod recording;
pub(crate) mod selector;

#[cfg(test)]
pub(crate) mod tests;
