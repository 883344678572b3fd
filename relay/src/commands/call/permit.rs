//! Who may run which command.

use crate::access::policy::Ability;
use crate::commands::{Caller, Command};

/// The right that a command needs. What it shows may be less for some than for others: that is the command's to see to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// The caller is a user who is not disabled.
    Nothing,
    /// A role, whichever.
    AnyRole,
    /// An ability over the fleet.
    Ability(Ability),
    /// The caller may see all recordings, or their own: which, the command looks at.
    Recordings,
}

fn need(command: &Command) -> Need {
    const REVIEW: Need = Need::Ability(Ability::Review);
    const ADMIN: Need = Need::Ability(Ability::Admin);
    match command {
        Command::Whoami(_) => Need::Nothing,
        // Everybody sees and ends their own sessions: who is at a limit must be able to.
        Command::SshConfig(_) | Command::Sessions(_) => Need::AnyRole,
        // Everybody sees the devices that they may know of.
        Command::Devices(args) if args.only_reads() => Need::AnyRole,
        // Each device is decided on by itself.
        Command::Wait(_) | Command::Exec(_) | Command::Cp(_) => Need::AnyRole,
        Command::User(args) if args.only_reads() => REVIEW,
        Command::Ca(args) if args.only_reads() => REVIEW,
        Command::Role(args) if args.only_reads() => REVIEW,
        Command::Get(_) | Command::Doctor(_) | Command::Audit(_) => REVIEW,
        Command::Lock(args) if args.only_reads() => REVIEW,
        Command::Recordings(args) if args.only_reads() => Need::Recordings,
        Command::Play(_) | Command::Export(_) => Need::Recordings,
        Command::Lock(_)
        | Command::Unlock(_)
        | Command::Devices(_)
        | Command::User(_)
        | Command::Ca(_)
        | Command::Role(_)
        | Command::Token(_)
        | Command::Recordings(_)
        | Command::Apply(_) => ADMIN,
    }
}

/// Checks whether the caller may run the command: who can read the state folder may run every one, over ssh the
/// roles say. Who may administer may review too.
///
/// # Errors
/// The sentence to refuse with.
pub(crate) fn permit(caller: &Caller, command: &Command) -> Result<(), String> {
    let subject = match caller {
        Caller::Local => return Ok(()),
        Caller::User(subject) => subject,
    };
    let name = &subject.user.name;
    if subject.user.disabled {
        return Err(format!("user \"{name}\" is disabled: ask an admin"));
    }
    let admin = subject.may(Ability::Admin);
    match need(command) {
        Need::Nothing => Ok(()),
        Need::AnyRole if !subject.roles.is_empty() => Ok(()),
        Need::AnyRole => Err(format!(
            "user \"{name}\" may not run this command: it needs a role; ask an admin, and see `whoami`"
        )),
        Need::Recordings
            if admin || subject.may(Ability::Review) || subject.may(Ability::ReviewOwn) =>
        {
            Ok(())
        }
        Need::Recordings => Err(format!(
            "user \"{name}\" may not run this command: it needs the ability review or review-own; ask an admin, and see `whoami`"
        )),
        Need::Ability(ability) if admin || subject.may(ability) => Ok(()),
        Need::Ability(ability) => Err(format!(
            "user \"{name}\" may not run this command: it needs the ability {}; ask an admin, and see `whoami`",
            ability.as_str()
        )),
    }
}
