//! The member of the cluster that a state folder belongs to.

/// The identifier of a member of the cluster, which no other has, also after it has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberId(pub [u8; 16]);

impl MemberId {
    /// The one that made the database.
    pub(crate) const FIRST: Self = Self([0; 16]);
}
