//! The relay's end of the tunnels. This is a face: it translates, and holds no rule about who may do what.

pub mod clones;
pub mod control;
pub mod enroll;
pub mod joins;
pub mod keys;
pub mod listen;
pub mod member;
pub mod registry;
pub mod reset;
pub mod socket;
pub mod tls;
