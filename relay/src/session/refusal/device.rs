//! The reasons why there is no session on a device, in words for the operator: it refused, or it is not there.

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::{DeviceName, Login};
use holdfast_protocol::wire::{SFTP, SessionRefusal};

use crate::clock::{Coarse, Timestamp};
use crate::store::{Device, PresenceState};

/// Returns one sentence that names the device, the account and, where there is one, the remedy.
#[must_use]
pub(crate) fn sentence(device: &DeviceName, login: &Login, why: &SessionRefusal) -> String {
    match why {
        SessionRefusal::NoAccount => format!("{device} runs no account \"{login}\""),
        SessionRefusal::AccountLocked => {
            format!(
                "account \"{login}\" on {device} is locked or expired: on the device, `usermod -p '*' {login}` enables logins by key, and `usermod -e '' {login}` removes the expiry"
            )
        }
        SessionRefusal::NoShell => {
            format!(
                "account \"{login}\" on {device} allows no logins: its shell is not a login shell"
            )
        }
        SessionRefusal::NoLogin(text) => {
            format!(
                "logins are disabled on {device} (/etc/nologin): {}",
                Escaped(text.trim())
            )
        }
        SessionRefusal::OnlyServes(account) => {
            format!("agent on {device} is not root: it serves account \"{account}\" only")
        }
        SessionRefusal::DeniedAs(other) => format!(
            "account \"{login}\" on {device} has the user id of \"{other}\", which your roles deny"
        ),
        SessionRefusal::NoSubsystem(name) if name == SFTP => format!(
            "no sftp-server on {device}: run its agent without --sftp-server, or install one there, or use `scp -O`"
        ),
        SessionRefusal::NoSubsystem(name) => format!(
            "no subsystem \"{}\" on {device}: sftp is the only one",
            Escaped(name)
        ),
        SessionRefusal::TooManySessions(most) => {
            format!("{device} has reached its limit of {most} sessions: close one")
        }
        SessionRefusal::Failed(why) => {
            format!("{device} could not start the session: {}", Escaped(why))
        }
        SessionRefusal::NotPermitted(address) => {
            format!("your roles do not allow a forward to {address} on {device}")
        }
        SessionRefusal::NotPermittedPath(path) => format!(
            "your roles do not allow a forward to {} on {device}",
            Escaped(path)
        ),
        SessionRefusal::Unreachable(why) => {
            format!("{device} cannot reach it: {}", Escaped(why))
        }
        SessionRefusal::TooManyForwards(most) => {
            format!("{device} has reached its limit of {most} forwards: close one")
        }
        SessionRefusal::RecordingUnavailable(why) => {
            format!("recording unavailable on {device}: {}", Escaped(why))
        }
    }
}

/// Returns one sentence for `mosh`.
#[must_use]
pub(crate) fn mosh(device: &DeviceName) -> String {
    format!(
        "mosh needs direct UDP to {device}, which is behind NAT: use `ssh`, whose sessions outlive a device's change of network"
    )
}

/// Returns one sentence for a device without a tunnel. `console` is how a console command begins.
#[must_use]
pub(crate) fn offline(device: &Device, now: Timestamp, console: &str) -> String {
    let presence = device.presence;
    match (presence.state, presence.since.or(presence.last_seen)) {
        (PresenceState::Online | PresenceState::Stale, _) => {
            format!("{} is reconnecting: try again in a moment", device.name)
        }
        (PresenceState::Offline, Some(since)) => {
            let ago = Coarse(now.since(since)).words();
            format!(
                "{0} is offline since {since} ({ago} ago). `{console} wait {0}` waits for it.",
                device.name
            )
        }
        (PresenceState::Offline, None) => {
            format!(
                "{} has not been online yet: is `edge-agent run` running there?",
                device.name
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_thing() {
        let device = DeviceName::new("attic-node").unwrap();
        let login = Login::new("deploy").unwrap();
        let said = |why| sentence(&device, &login, &why);
        assert_eq!(
            said(SessionRefusal::NoAccount),
            "attic-node runs no account \"deploy\""
        );
        let only = SessionRefusal::OnlyServes(Login::new("pi").unwrap());
        assert_eq!(
            said(only),
            "agent on attic-node is not root: it serves account \"pi\" only"
        );
        let nasty = SessionRefusal::NoLogin("back soon\u{1b}]0;x\u{7}\n".into());
        assert!(!said(nasty).contains(['\u{1b}', '\u{7}', '\n']));
    }
}
