//! Packets out of a stream of bytes: of each no more is kept than its paths and numbers need.

use crate::limits::{MAX_SFTP_PACKET, MAX_SFTP_PREFIX};

/// The type of a write's packet, and of its counterpart: file data, of which only the head is wanted.
const WRITE: u8 = 6;
const DATA: u8 = 103;

/// A handle is at most 256 bytes (section 6.3 of the draft); with its length, an offset and another length.
const DATA_PREFIX: usize = 4 + 4 + 256 + 8 + 4;

/// Finds the packets of one direction.
#[derive(Debug, Default)]
pub(crate) struct Packets {
    /// The length and the type, as far as they have come.
    head: Vec<u8>,
    /// The rest of the packet that has not come.
    left: usize,
    body: Vec<u8>,
    done: bool,
}

/// A packet, or the beginning of a large one.
pub(crate) struct Packet<'a> {
    pub(crate) kind: u8,
    body: &'a [u8],
}

/// A packet's fields, one after the other; `None` when they are over.
pub(crate) struct Fields<'a>(&'a [u8]);

impl Packets {
    /// The next packet that is complete in `bytes`, which is shortened.
    ///
    /// # Errors
    /// Why this is no SFTP.
    pub(crate) fn take(&mut self, bytes: &mut &[u8]) -> Result<Option<Packet<'_>>, &'static str> {
        if std::mem::take(&mut self.done) {
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
                    return Err("a packet's length is none");
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
        Ok(Some(Packet {
            kind,
            body: &self.body,
        }))
    }
}

impl<'a> Packet<'a> {
    pub(crate) fn fields(&self) -> Fields<'a> {
        Fields(self.body)
    }
}

impl<'a> Fields<'a> {
    /// Those in these bytes: a packet without its length and its kind.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn number(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    pub(crate) fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.number()? as usize;
        let (string, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(string)
    }
}
