//! The identities of both ends: tokens, the signed roster, and the key that releases are signed with.

pub mod release;
pub mod roster;
pub mod token;
