//! The fields of a packet.

/// A packet's fields, one after the other; `None` when they are over.
#[derive(Clone, Debug)]
pub struct SftpFields<'a>(&'a [u8]);

impl<'a> SftpFields<'a> {
    /// Returns those in these bytes: a packet without its length and its kind.
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (now, later) = self.0.split_first_chunk()?;
        self.0 = later;
        Some(*now)
    }

    /// Returns the next byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    /// Returns a number of four bytes.
    pub fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Returns a number of eight bytes.
    pub fn long(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Returns a string: its length, and so many bytes.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        // 32 bits fit.
        let length = self.number()? as usize;
        let (now, later) = self.0.split_at_checked(length)?;
        self.0 = later;
        Some(now)
    }

    /// Returns the same as [`Self::string`], but of one that is longer than what is left, as much as there is.
    pub fn beginning(&mut self) -> Option<&'a [u8]> {
        let length = self.number()? as usize;
        let (now, later) = self.0.split_at(length.min(self.0.len()));
        self.0 = later;
        Some(now)
    }

    /// Passes over so many bytes.
    pub fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    /// Returns all that is left.
    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}
