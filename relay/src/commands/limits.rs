//! Bounds of commands, each with its reason.

use std::time::Duration;

/// The interval at which `wait` looks whether its device is there: a person waits for it, and many may.
pub(crate) const WAIT_POLL: Duration = Duration::from_secs(1);

/// Limits how far the clock of a relay's machine may be from the database's before `doctor` says so: NTP keeps one within
/// milliseconds, also over a slow line, and a second is what people see in a log.
pub(crate) const MAX_CLOCK_OFFSET: Duration = Duration::from_secs(1);

/// Limits how long `doctor` waits for another relay's answer: several retransmissions over a slow line.
pub(crate) const PEER_PROBE: Duration = Duration::from_secs(4);

/// Limits how long `doctor` waits until the recordings' bucket has taken and given an object: a bucket far away takes a
/// second for the three requests, and a segment is given much longer.
pub(crate) const BUCKET_PROBE: Duration = Duration::from_secs(15);

/// The time in which a relay that is to drain says what it still has: it looks each quarter of a second, and its database
/// may be away for a while.
pub(crate) const DRAIN_BEGINS: Duration = Duration::from_secs(30);

/// After the deadline of a drain, the time in which a relay has closed what was left.
pub(crate) const DRAIN_OVERDUE: Duration = Duration::from_secs(30);

/// Most users that a policy document names.
pub(crate) const MAX_POLICY_USERS: usize = 10_000;

/// Most keys of one user in a policy document.
pub(crate) const MAX_KEYS_OF_USER: usize = 64;

/// Longest principal of a certificate that a user may have, in bytes.
pub(crate) const MAX_PRINCIPAL: usize = 256;

/// Longest e-mail address, in bytes: what RFC 5321 section 4.5.3.1.3 leaves of a path.
pub(crate) const MAX_EMAIL: usize = 254;

/// Longest name of an authority, in bytes.
pub(crate) const MAX_AUTHORITY_NAME: usize = 64;

/// Longest revoked key id, in bytes: a certificate with a longer one does not pass before authentication.
pub(crate) const MAX_KEY_ID: usize = 4_096;

/// Longest message of a lock or a kill, in bytes: it is to fit on a line or two of a terminal.
pub(crate) const MAX_LOCK_MESSAGE: usize = 256;

/// The time that a command that takes something away waits for the relays to confirm it.
pub(crate) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// The interval at which it looks.
pub(crate) const CONFIRM_POLL: Duration = Duration::from_millis(20);

/// Devices that `exec` and `cp` work on at a time, by default.
pub(crate) const BULK_PARALLEL: usize = 20;

/// Longest path that `cp` takes, in bytes: Linux's, without the zero.
pub(crate) const MAX_COPY_PATH: usize = 4095;

/// Between two sessions or events of one run in a folded listing: Ansible takes seconds from task to task, and what a
/// person begins a minute later is work of its own.
pub(crate) const RUN_GAP: Duration = Duration::from_secs(60);

/// The same of those over one SSH connection: a kept connection is one piece of work, over its pauses.
pub(crate) const CONNECTION_GAP: Duration = Duration::from_secs(60 * 60);

/// Audit events that a folded listing holds before it writes them, however long the log is.
pub(crate) const MAX_AUDIT_HELD: usize = 1_000;

/// The narrowest terminal that a table is cut for: below it, nothing could be read.
pub(crate) const MIN_TABLE_WIDTH: usize = 40;

/// In a narrower terminal an entry of the audit log is two lines: its columns alone take 89 characters.
pub(crate) const WHOLE_ENTRY: usize = 132;

/// Columns of a table are shortened to no less than this.
pub(crate) const MIN_TABLE_COLUMN: usize = 8;

/// The most that a command reads from stdin or a file: some hundred public keys.
pub(crate) const MAX_INPUT: usize = 64 * 1024;

/// The same of `ca revoke`: a revocation list of some ten thousand entries.
pub(crate) const MAX_REVOCATION_INPUT: usize = 1024 * 1024;

/// The same of `apply`: some ten thousand users with their keys.
pub(crate) const MAX_POLICY_INPUT: usize = 4 * 1024 * 1024;

/// The time in which the relay has to answer a health check of `doctor`.
pub(crate) const HEALTH_ANSWER: Duration = Duration::from_secs(3);

/// The longest line that the console parses: no command needs more, keys come by stdin.
pub(crate) const MAX_CONSOLE_LINE: usize = 8 * 1024;
