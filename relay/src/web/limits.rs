//! Bounds of the answers over HTTP, each with its reason.

use std::time::Duration;

/// Connections of health checks at once. A check takes a millisecond, and several balancers check each second.
pub(super) const MAX_HEALTH_CONNECTIONS: usize = 32;

/// The time that one such connection may take, from its beginning to the last byte of the answer.
pub(super) const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a request: the least that hyper reads at once, and many times what a check sends.
pub(super) const MAX_HEALTH_REQUEST: usize = 8_192;

/// Header fields of a request. Checks have three or four, and proxies between add some.
pub(super) const MAX_HEALTH_FIELDS: usize = 32;
