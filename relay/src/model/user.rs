//! Operators, as the store has them and as decisions need them.

use std::net::IpAddr;

use holdfast_protocol::ids::UserName;

use super::role::Role;

/// The name that the audit log gives to the relay's own shell. No user has it.
pub(crate) const LOCAL_USER: &str = "local";

/// A user, however often their name is given to others later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UserId(pub i64);

/// An operator, as the access decision needs one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// The id of the user.
    pub id: UserId,
    /// The name.
    pub name: UserName,
    /// The e-mail address, for records; nothing is sent there.
    pub email: Option<String>,
    /// The names of the roles, in order.
    pub roles: Vec<String>,
    /// True if nothing is allowed, whatever the roles say.
    pub disabled: bool,
}

/// A user, and their roles as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// The user. Names of roles that do not exist mean nothing.
    pub user: User,
    /// The roles that count, by name.
    pub roles: Vec<Role>,
    /// The client's address, if some of the user's roles do not count from there.
    pub elsewhere: Option<IpAddr>,
}

/// The fingerprints of a key, as OpenSSH prints them. SHA-1 is for revocation lists that name keys so, and
/// proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prints {
    /// `SHA256:…`.
    pub sha256: String,
    /// `SHA1:…`.
    pub sha1: String,
}
