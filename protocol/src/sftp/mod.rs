//! SFTP version 3 (draft-ietf-secsh-filexfer-02, OpenSSH's `PROTOCOL`): its packets, and who follows them. Nothing here
//! opens a file.
//!
//! A packet is its length (four bytes, big-endian), a byte that names its kind, a number that the client
//! chose, and fields. A string is its length and its bytes.
//!
//! [`request`] and [`answer`] are what a server needs, and [`RequestWriter`] what a client does; [`stream`] finds packets in bytes that pass, [`cut`] takes some
//! of them out, and [`follow`] says what was done by them: for the audit log of the relay and for recordings on
//! devices.

pub mod answer;
pub mod attributes;
pub mod cut;
pub mod fields;
pub mod follow;
pub mod kind;
pub mod operation;
pub mod request;
pub mod stream;

mod error;
mod packet;
mod pending;
mod write;

pub use self::answer::{Code, NameList, SftpAnswers};
pub use self::attributes::Attributes;
pub use self::error::FollowError;
pub use self::fields::SftpFields;
pub use self::follow::{Followed, Follower, PossibleOperations};
pub use self::operation::{FileAction, FileOutcome, Operation};
pub use self::request::{Broken, ClientPacket, SftpRequest, Unclear, decode, next_packet};
pub use self::write::RequestWriter;

/// Largest packet that the agent's server takes, its length not counted: OpenSSH's. The draft asks for 34,000 bytes at
/// least.
pub const MAX_PACKET: usize = 256 * 1024;

/// Most bytes that one read gives, and that one write can hold beside its other fields.
pub const MAX_DATA: u32 = 256 * 1024 - 1024;

/// The version that is spoken.
pub const VERSION: u32 = 3;

/// `SSH_FXF_WRITE`, `_APPEND`, `_CREAT` and `_TRUNC`: an open with any of them may change the file.
pub const WRITING: u32 = 0x02 | 0x04 | 0x08 | 0x10;

#[cfg(test)]
mod tests;
