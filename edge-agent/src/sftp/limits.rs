//! Bounds of the SFTP server, each with its reason.

/// Most files and folders that one SFTP client may have open: what OpenSSH's server allows where the system
/// sets its usual limit, and all that are followed for a recording.
pub(crate) const MAX_SFTP_HANDLES: usize = holdfast_protocol::limits::MAX_SFTP_OPEN;

/// Most handles of one SFTP client whose files could not be opened, and which it has not closed: as many as the relay
/// names at a time.
pub(crate) const MAX_SFTP_FAILED: usize = 64;

/// Most files of one SFTP client that go with its session: who copies a file has one.
pub(crate) const MAX_SFTP_TEMPORARY: usize = 16;

/// Room for requests that have come: a packet of the largest size, and as much as a pipe of
/// [`PIPE_BYTES`](crate::os::limits::PIPE_BYTES) holds.
pub(crate) const SFTP_INPUT: usize = 512 * 1024;

/// Answers of SFTP are sent when there is so much of them, or nothing else to answer: enough that system
/// calls don't count, little enough that the client has work soon.
pub(crate) const SFTP_ANSWERS: usize = 64 * 1024;

/// Bytes of a folder's names that the kernel gives at once: 128 short names, whose answer stays under the
/// 34,000 bytes that every client takes.
pub(crate) const SFTP_LISTING: usize = 4 * 1024;

/// Most numbers of users and groups that one request of SFTP names: the answer fits in a packet.
pub(crate) const MAX_SFTP_IDS: usize = 512;

/// Most names of users, and of groups, that are kept for listings.
pub(crate) const MAX_SFTP_NAMES: usize = 1024;

/// Bytes that one system call copies within the device.
pub(crate) const SFTP_COPY: usize = 8 * 1024 * 1024;

/// Sets how often a path within a root is tried while folders are moved under it.
pub(crate) const SFTP_ROOT_ATTEMPTS: u32 = 64;
