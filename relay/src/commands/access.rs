//! Who may run which command.

use super::{Caller, Command};
use crate::access::policy::{self, ADMIN};

/// Whether the caller may run the command: who can read the state folder may do everything, over ssh an
/// admin may, and everybody may ask who they are.
///
/// # Errors
/// The sentence to refuse with.
pub fn permit(caller: &Caller, command: &Command) -> Result<(), String> {
    let user = match (caller, command) {
        (Caller::Local, _) | (_, Command::Whoami(_)) => return Ok(()),
        (Caller::User(user), _) => user,
    };
    let name = &user.name;
    if user.disabled {
        return Err(format!("user \"{name}\" is disabled: ask an admin"));
    }
    if policy::is_admin(user) {
        return Ok(());
    }
    Err(format!(
        "user \"{name}\" may not run this command: it needs the role {ADMIN}; ask an admin, and see `whoami`"
    ))
}
