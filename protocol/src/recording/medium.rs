//! The medium of a spool. A real one is a folder; a simulated one tears writes, fills up and fails.

use alloc::vec::Vec;
use core::fmt;

use embedded_io::ErrorKind;

use crate::ids::SessionId;

/// The kind of error that says that there is no space, or that a quota is used up. `embedded-io` has no
/// word of its own for it.
pub const NO_SPACE: ErrorKind = ErrorKind::WriteZero;

/// The kind of error that says that nothing can ever be written there.
pub const READ_ONLY: ErrorKind = ErrorKind::Unsupported;

/// A folder of segments. Names are made by the spool; each operation is done when it returns.
pub trait Medium {
    /// An error; its kind says what follows from it.
    type Error: embedded_io::Error;

    /// Makes an empty file, also in place of one that is there.
    ///
    /// # Errors
    /// The medium's.
    fn create(&mut self, name: FileName) -> Result<(), Self::Error>;

    /// Cuts the file to `at` bytes, which also takes away what a failed write left there, and writes
    /// `bytes` behind them. When it fails, any part of it may have been done.
    ///
    /// # Errors
    /// The medium's.
    fn append(&mut self, name: FileName, at: u64, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Returns when the file, its length and its name are safe from a power cut.
    ///
    /// # Errors
    /// The medium's. What was written since the last sync may then be lost.
    fn sync(&mut self, name: FileName) -> Result<(), Self::Error>;

    /// Gives a file another name.
    ///
    /// # Errors
    /// The medium's.
    fn rename(&mut self, from: FileName, to: FileName) -> Result<(), Self::Error>;

    /// Reads from `at` into `to`, and gives how many bytes there were: 0 at the end.
    ///
    /// # Errors
    /// The medium's.
    fn read(&mut self, name: FileName, at: u64, to: &mut [u8]) -> Result<usize, Self::Error>;

    /// Removes a file, for good: it does not come back after a power cut.
    ///
    /// # Errors
    /// The medium's.
    fn remove(&mut self, name: FileName) -> Result<(), Self::Error>;

    /// Returns all files whose names are a spool's.
    ///
    /// # Errors
    /// The medium's.
    fn list(&mut self) -> Result<Vec<MediumEntry>, Self::Error>;

    /// Returns the free bytes of the file system.
    ///
    /// # Errors
    /// The medium's.
    fn free(&mut self) -> Result<u64, Self::Error>;
}

/// One segment of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// The session.
    pub session: SessionId,
    /// The number of the segment.
    pub index: u32,
}

/// A file of a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileName {
    /// `SESSION-INDEX.seg`, the session in hexadecimal and the index in eight decimal digits.
    Segment(SegmentName),
    /// `SESSION-INDEX.bad`: one that was found corrupt and set aside.
    Bad(SegmentName),
}

/// A file, as a folder lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediumEntry {
    /// Its name.
    pub name: FileName,
    /// Its length.
    pub length: u64,
    /// The time when it was last written, in seconds since 1970 by the device's clock.
    pub modified: i64,
}

impl FileName {
    /// Reads a name; `None` for one that is no spool's.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (stem, kind) = text.split_once('.')?;
        let (session, index) = stem.split_once('-')?;
        let digits = index.len() == 8 && index.bytes().all(|digit| digit.is_ascii_digit());
        let segment = SegmentName {
            session: SessionId::from_hex(session)?,
            index: index.parse().ok().filter(|_| digits)?,
        };
        let name = match kind {
            "seg" => Self::Segment(segment),
            "bad" => Self::Bad(segment),
            _ => return None,
        };
        // One file, one name: upper case would be another file.
        (!text.bytes().any(|byte| byte.is_ascii_uppercase())).then_some(name)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08}", self.session, self.index)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => write!(f, "{segment}.seg"),
            Self::Bad(segment) => write!(f, "{segment}.bad"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn names_go_both_ways_and_others_are_not_ours() {
        let segment = SegmentName {
            session: SessionId([0xab; 16]),
            index: 42,
        };
        for name in [FileName::Segment(segment), FileName::Bad(segment)] {
            assert_eq!(FileName::parse(&name.to_string()), Some(name));
        }
        let good = FileName::Segment(segment).to_string();
        for bad in [
            "",
            "x.seg",
            &good.to_uppercase(),
            &good.replace(".seg", ".tmp"),
            &good.replace("00000042", "+0000042"),
            &good.replace("00000042", "42"),
        ] {
            assert_eq!(FileName::parse(bad), None, "{bad}");
        }
    }
}
