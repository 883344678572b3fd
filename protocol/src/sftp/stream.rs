//! Packets out of a stream of bytes: of each no more is kept than its paths and numbers need.

use alloc::vec::Vec;

use super::SftpFields;
use super::error::FollowError;
use super::kind::{DATA, WRITE};
use crate::limits::{MAX_SFTP_HANDLE, MAX_SFTP_PACKET, MAX_SFTP_PREFIX};

/// A request's number; a handle with its length, an offset and another length.
const DATA_PREFIX: usize = 4 + 4 + MAX_SFTP_HANDLE + 8 + 4;

/// Finds the packets of one direction.
#[derive(Debug, Default)]
pub struct Packets {
    /// The length and the type, as far as they have come.
    head: Vec<u8>,
    /// The rest of the packet that has not come.
    left: usize,
    body: Vec<u8>,
    done: bool,
}

/// A packet, or the beginning of a large one.
#[derive(Debug)]
pub struct SeenPacket<'a> {
    /// Its kind, as in [`super::kind`].
    pub kind: u8,
    body: &'a [u8],
}

impl Packets {
    /// Returns the next packet that is complete in `bytes`, which is shortened.
    ///
    /// # Errors
    /// Why this is no SFTP.
    pub fn take(&mut self, bytes: &mut &[u8]) -> Result<Option<SeenPacket<'_>>, FollowError> {
        if core::mem::take(&mut self.done) {
            self.head.clear();
            self.body.clear();
        }
        while self.head.len() < 5 {
            let Some((byte, rest)) = bytes.split_first() else {
                return Ok(None);
            };
            self.head.push(*byte);
            *bytes = rest;
            if let [a, b, c, d, _] = self.head[..] {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                if !(1..=MAX_SFTP_PACKET).contains(&length) {
                    return Err(FollowError::Length(u32::from_be_bytes([a, b, c, d])));
                }
                self.left = length - 1;
            }
        }
        let kind = self.head.last().copied().unwrap_or_default();
        let most = match kind {
            WRITE | DATA => DATA_PREFIX,
            _ => MAX_SFTP_PREFIX,
        };
        let (here, rest) = bytes.split_at(self.left.min(bytes.len()));
        let kept = here.len().min(most.saturating_sub(self.body.len()));
        self.body.extend_from_slice(&here[..kept]);
        self.left -= here.len();
        *bytes = rest;
        if self.left > 0 {
            return Ok(None);
        }
        self.done = true;
        Ok(Some(SeenPacket {
            kind,
            body: &self.body,
        }))
    }
}

impl<'a> SeenPacket<'a> {
    /// Returns its fields, as far as they are kept.
    #[must_use]
    pub fn fields(&self) -> SftpFields<'a> {
        SftpFields::of(self.body)
    }
}
