//! Bounds of roles, their rules, and what is remembered of devices, each with its reason.

use std::time::Duration;

/// Shortest idle timeout of a role: below it a pause for thought would end a session.
pub(crate) const MIN_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest idle timeout of a role that is no `never`.
pub(crate) const MAX_IDLE_TIMEOUT: Duration = Duration::from_secs(366 * 86_400);

/// Shortest `max_session` of a role: a session has to begin at least.
pub(crate) const MIN_MAX_SESSION: Duration = Duration::from_secs(1);

/// Longest `max_session` of a role; who wants more leaves it out.
pub(crate) const MAX_MAX_SESSION: Duration = Duration::from_secs(366 * 86_400);

/// Longest name of a role, in bytes: as a user's.
pub(crate) const MAX_ROLE_NAME: usize = 64;

/// Most allow rules of one role, and most deny rules.
pub(crate) const MAX_RULES: usize = 64;

/// Most labels that one rule names: as many as a device has.
pub(crate) const MAX_RULE_LABELS: usize = holdfast_protocol::limits::MAX_LABELS;

/// Most values of one label in a rule.
pub(crate) const MAX_RULE_VALUES: usize = 64;

/// Most logins that one rule names.
pub(crate) const MAX_RULE_LOGINS: usize = 256;

/// Most source networks of one role.
pub(crate) const MAX_ROLE_NETWORKS: usize = 256;

/// The time that two machines with one key are remembered after they were last seen at odds. An agent dials at least
/// every 30 s, so they are at odds again soon, or are not any more.
pub(crate) const CLONE_MEMORY: Duration = Duration::from_secs(3600);
