//! The reasons why a session's SFTP cannot be followed any more.

use thiserror::Error;

use crate::limits::{MAX_SFTP_HANDLE, MAX_SFTP_OPEN, MAX_SFTP_PACKET, MAX_SFTP_PENDING};
use crate::sftp::VERSION;

/// The reason why a session's SFTP cannot be followed any more.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FollowError {
    /// This is no packet of SFTP.
    #[error("invalid packet length: expected 1 to {MAX_SFTP_PACKET} bytes, got {0}")]
    Length(u32),
    /// A packet that ends before its number or its fields.
    #[error("a packet is too short")]
    Short,
    /// Another version of the protocol.
    #[error("the server speaks version {0} of SFTP: expected version {VERSION}")]
    Version(u32),
    /// The client used a number again.
    #[error("the client used request number {0} again before it was answered")]
    ReusedId(u32),
    /// The server answered what was not asked.
    #[error("the server answered request number {0}, which is not pending")]
    Unasked(u32),
    /// The server answered something else than was asked.
    #[error("the server answered request number {id} with an unexpected packet of kind {kind}")]
    WrongAnswer {
        /// The number of the request.
        id: u32,
        /// The kind of the answer.
        kind: u8,
    },
    /// A request on a handle that is not open succeeded.
    #[error("the server used a handle that is not open")]
    UnknownHandle,
    /// The server gave out a handle that is in use.
    #[error("the server gave out a handle that is in use")]
    HandleInUse,
    /// A handle over the protocol's bound.
    #[error("a handle is longer than {MAX_SFTP_HANDLE} bytes")]
    LongHandle,
    /// More unanswered requests than are followed.
    #[error("the pending requests take more than {MAX_SFTP_PENDING} bytes")]
    TooManyRequests,
    /// More open files than are followed.
    #[error("more than {MAX_SFTP_OPEN} files are open")]
    TooManyFiles,
}
