//! Bounds of the configuration, each with its reason.

use std::time::Duration;

/// The time from accepting an SSH connection to its authentication, however chatty the peer (OpenSSH's
/// `LoginGraceTime` is 120 s; a machine needs one).
pub(crate) const LOGIN_GRACE: Duration = Duration::from_secs(30);

/// The least that `login_grace` may be: in less, a client far away cannot log in, and no one could log in
/// to correct it.
pub(crate) const MIN_LOGIN_GRACE: Duration = Duration::from_secs(1);

/// The most that `login_grace` may be: five times what OpenSSH's server grants. A client that does not log in keeps one
/// of the few places for connections for so long.
pub(crate) const MAX_LOGIN_GRACE: Duration = Duration::from_secs(600);

/// Networks in `penalty_exempt`.
pub(crate) const MAX_PENALTY_EXEMPT: usize = 256;

/// Networks in `proxy_protocol`.
pub(crate) const MAX_PROXY_PROTOCOL: usize = 256;

/// Characters of a line of the configuration in an error about its value: enough to find it.
pub(crate) const MAX_SHOWN_VALUE: usize = 120;
