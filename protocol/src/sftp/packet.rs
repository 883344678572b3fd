//! Packets and their fields, as bytes: what [`SftpFields`](super::SftpFields) reads back.

use alloc::vec::Vec;

use super::attributes::{
    Attributes, HAS_EXTENDED, HAS_OWNER, HAS_PERMISSIONS, HAS_SIZE, HAS_TIMES,
};
use super::kind::TEMPORARY;

/// Writes packets, one behind the other.
#[derive(Clone, Debug, Default)]
pub(super) struct PacketWriter {
    pub(super) bytes: Vec<u8>,
}

impl PacketWriter {
    /// Begins a packet, and returns where; it is to be ended.
    pub(super) fn begin(&mut self, kind: u8, id: u32) -> usize {
        let start = self.bytes.len();
        self.number(0);
        self.bytes.push(kind);
        self.number(id);
        start
    }

    /// Ends the packet that begins there.
    pub(super) fn end(&mut self, start: usize) {
        self.set_number(start, self.bytes.len() - start - 4);
    }

    pub(super) fn number(&mut self, number: u32) {
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    pub(super) fn long(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    /// Sets a number; all that is counted here is smaller than a packet.
    pub(super) fn set_number(&mut self, at: usize, number: usize) {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        if let Some(to) = self.bytes.get_mut(at..at + 4) {
            to.copy_from_slice(&number.to_be_bytes());
        }
    }

    pub(super) fn string(&mut self, string: &[u8]) {
        let at = self.bytes.len();
        self.number(0);
        self.bytes.extend_from_slice(string);
        self.set_number(at, string.len());
    }

    pub(super) fn attributes(&mut self, attributes: &Attributes) {
        let Attributes {
            size,
            owner,
            permissions,
            times,
            temporary,
        } = attributes;
        let flag = |is_given, flag| if is_given { flag } else { 0 };
        self.number(
            flag(size.is_some(), HAS_SIZE)
                | flag(owner.is_some(), HAS_OWNER)
                | flag(permissions.is_some(), HAS_PERMISSIONS)
                | flag(times.is_some(), HAS_TIMES)
                | flag(*temporary, HAS_EXTENDED),
        );
        if let Some(size) = size {
            self.long(*size);
        }
        if let Some((user, group)) = owner {
            self.number(*user);
            self.number(*group);
        }
        if let Some(permissions) = permissions {
            self.number(*permissions);
        }
        if let Some((read, changed)) = times {
            self.number(*read);
            self.number(*changed);
        }
        if *temporary {
            self.number(1);
            self.string(TEMPORARY);
            self.string(b"");
        }
    }
}
