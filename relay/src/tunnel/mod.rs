//! The relay's end of the tunnels. This is a face: it translates, and holds no rule about who may do what.

pub(crate) mod clones;
pub(crate) mod control;
pub(crate) mod enroll;
pub(crate) mod joins;
pub(crate) mod keys;
pub(crate) mod listen;
pub(crate) mod member;
pub(crate) mod registry;
pub(crate) mod reset;
pub(crate) mod socket;
pub(crate) mod tls;
