//! Parses the account and device that an operator asks for, from what `ssh` sends: a user name, or the host of a
//! forward.

use std::str::FromStr;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::{DeviceName, Login, NameError};
use thiserror::Error;

/// The domain that `relay ssh-config` gives to devices, so that a pattern can match them all.
pub(crate) const FLEET_DOMAIN: &str = "fleet";

/// The port that a jump's forward names: what `ssh` asks for by default.
pub(crate) const SSH_PORT: u32 = 22;

/// The target that the user name of an SSH connection asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SshTarget {
    /// `LOGIN+DEVICE`: a session on a device, the direct way.
    Device(Login, DeviceName),
    /// A name that means something and cannot be had; this says why when something is opened.
    Unusable(TargetError),
    /// Any other name: the console, or a jump. The name itself means nothing: the user is known
    /// from their key.
    Relay,
}

/// The reason why a text names no target.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum TargetError {
    /// The part before the `+`.
    #[error("\"{}\" is not of the form LOGIN+DEVICE: {error}", Escaped(.text))]
    Login {
        /// The text that came.
        text: String,
        /// The fault in it.
        error: NameError,
    },
    /// Nothing is behind the `+`.
    #[error("\"{}\" is not of the form LOGIN+DEVICE: the device is missing", Escaped(.0))]
    NoDevice(String),
    /// The part after it, or the host of a jump.
    #[error("no device \"{}\" that you may reach", Escaped(.0))]
    Device(String),
    /// A forward to something else than a device's SSH port.
    #[error(
        "the relay forwards to port {SSH_PORT} of devices only, not to \"{}\" port {port}",
        Escaped(.host)
    )]
    Port {
        /// The host that was asked for.
        host: String,
        /// Its port.
        port: u32,
    },
}

impl SshTarget {
    /// Returns the device that it names, if it names one.
    pub(crate) fn device(&self) -> Option<&DeviceName> {
        match self {
            Self::Device(_, name) => Some(name),
            Self::Unusable(_) | Self::Relay => None,
        }
    }
}

impl FromStr for SshTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        // In `ssh://root+cam@relay`, OpenSSH's client takes the `+` for a space, as in a form. No name has a space.
        let parts = text.split_once('+').or_else(|| text.split_once(' '));
        let Some((login, device)) = parts else {
            return Ok(Self::Relay);
        };
        let login = Login::new(login).map_err(|error| TargetError::Login {
            text: text.to_owned(),
            error,
        })?;
        if device.is_empty() {
            return Err(TargetError::NoDevice(text.to_owned()));
        }
        Ok(Self::Device(login, device_name(device)?))
    }
}

/// Returns the device that a name means: in any case, with or without the suffix and a final dot.
///
/// # Errors
/// [`TargetError::Device`]: what cannot be a name is the name of no device.
pub(crate) fn device_name(text: &str) -> Result<DeviceName, TargetError> {
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_suffix('.').unwrap_or(&lower);
    let in_fleet = bare
        .strip_suffix(FLEET_DOMAIN)
        .and_then(|name| name.strip_suffix('.'));
    let bare = in_fleet.unwrap_or(bare);
    DeviceName::new(bare).map_err(|_| TargetError::Device(text.to_owned()))
}

/// Returns the device that a forward (`direct-tcpip`) asks for. Nothing else is ever dialled for a client.
///
/// # Errors
/// [`TargetError`].
pub(crate) fn forward(host: &str, port: u32) -> Result<DeviceName, TargetError> {
    if port != SSH_PORT {
        return Err(TargetError::Port {
            host: host.to_owned(),
            port,
        });
    }
    device_name(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn device(login: &str, name: &str) -> SshTarget {
        SshTarget::Device(Login::new(login).unwrap(), DeviceName::new(name).unwrap())
    }

    #[test]
    fn a_user_name_with_a_plus_names_a_device() {
        assert_eq!(
            "root+kitchen-cam".parse(),
            Ok(device("root", "kitchen-cam"))
        );
        assert_eq!(
            "root+Kitchen-Cam.fleet".parse(),
            Ok(device("root", "kitchen-cam"))
        );
        // What OpenSSH's client makes of `ssh://root+kitchen-cam@relay`.
        assert_eq!(
            "root kitchen-cam".parse(),
            Ok(device("root", "kitchen-cam"))
        );
        assert_eq!("alice".parse(), Ok(SshTarget::Relay));
        assert_eq!("".parse(), Ok(SshTarget::Relay));
    }

    #[test]
    fn what_cannot_be_a_name_is_refused_in_words() {
        let said = |text: &str| text.parse::<SshTarget>().unwrap_err().to_string();
        assert!(
            said("ro ot+cam")
                .starts_with("\"ro ot+cam\" is not of the form LOGIN+DEVICE: a login may hold")
        );
        assert_eq!(said("root+a+b"), "no device \"a+b\" that you may reach");
        assert_eq!(
            said("root+"),
            "\"root+\" is not of the form LOGIN+DEVICE: the device is missing"
        );
        assert!(!said("root+\u{1b}[2J").contains('\u{1b}'));
    }

    #[test]
    fn a_forward_goes_to_devices_only() {
        assert_eq!(
            forward("cam.fleet", 22),
            Ok(DeviceName::new("cam").unwrap())
        );
        assert!(matches!(forward("cam", 80), Err(TargetError::Port { .. })));
        for host in [
            "10.0.0.1",
            "127.0.0.1",
            "::1",
            "example.com",
            "localhost.",
            "",
        ] {
            let found = forward(host, 22);
            assert!(
                found.is_err() || found == Ok(DeviceName::new("localhost").unwrap()),
                "{host}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_the_parser(text: String, port: u32) {
            let _ = text.parse::<SshTarget>();
            let _ = forward(&text, port);
        }
    }
}
