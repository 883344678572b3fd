//! Commands for who runs the relay: the audit log and the check of the installation.
pub(crate) mod audit;
pub(crate) mod cluster;
pub(crate) mod doctor;
