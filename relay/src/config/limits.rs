//! Bounds of the configuration, each with its reason.

use std::time::Duration;

/// The time from accepting an SSH connection to its authentication, however chatty the peer (OpenSSH's
/// `LoginGraceTime` is 120 s; a machine needs one).
pub(crate) const LOGIN_GRACE: Duration = Duration::from_secs(30);

/// Networks in `penalty_exempt`.
pub(crate) const MAX_PENALTY_EXEMPT: usize = 256;
