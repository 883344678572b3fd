//! The member of the cluster that a state folder belongs to.

use std::fmt;

use holdfast_protocol::ids::DeviceId;

use crate::hex::hex;

/// The identifier of a member of the cluster, which no other has, also after it has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberId(pub [u8; 16]);

impl MemberId {
    /// The one that made the database.
    pub(crate) const FIRST: Self = Self([0; 16]);

    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        DeviceId::from_hex(text).map(|id| Self(id.0))
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}
