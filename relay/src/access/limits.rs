//! Bounds of access decisions, each with its reason.

use std::time::Duration;

/// The content of a stream without a terminal that a recording keeps where no role of its user says anything: more than
/// people read, and a quarter of a device's spool.
pub(crate) const DEFAULT_CONTENT_BYTES: u64 = 16 * 1024 * 1024;

/// The time at which an idle session ends where no role of its user says anything.
pub(crate) const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Shorter RSA keys are within reach of a patient attacker (NIST SP 800-131A).
pub(crate) const MIN_RSA_BITS: usize = 2048;

/// Principals of one certificate: each is looked up at a login. OpenSSH takes 256; no user has 64 names.
pub(crate) const MAX_CERTIFICATE_PRINCIPALS: usize = 64;
