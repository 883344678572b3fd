//! What a role allows.

use crate::store::User;

/// The role that allows everything.
pub const ADMIN: &str = "admin";

/// The roles that there are.
pub const ROLES: &[&str] = &[ADMIN];

/// What one does on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// An interactive shell.
    Shell,
    /// One command.
    Exec,
    /// Copying files: the sftp subsystem.
    Sftp,
}

/// Whether any of the user's roles lets them see a device and hear of its state.
#[must_use]
pub fn may_see(user: &User) -> bool {
    is_admin(user)
}

/// Whether any of the user's roles allows an ability on a device.
#[must_use]
pub fn may_do(user: &User, _ability: Ability) -> bool {
    is_admin(user)
}

/// Whether the user may run the console's administrative commands.
#[must_use]
pub fn is_admin(user: &User) -> bool {
    !user.disabled && user.roles.iter().any(|role| role == ADMIN)
}
