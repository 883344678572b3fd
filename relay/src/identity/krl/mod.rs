//! Key revocation lists as `ssh-keygen -k` writes them (OpenSSH's PROTOCOL.krl): bytes to entries.
//!
//! Nothing here judges or verifies. A signature section is read over and not verified, as OpenSSH does since
//! 9.4: the list is worth what the hand that gives it to the relay is worth. What an entry would mean that is
//! not understood makes the whole list refused, never the rest of it used.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use thiserror::Error;

/// The first bytes of every list.
pub(crate) const MAGIC: &[u8; 8] = b"SSHKRL\n\0";

/// A revocation list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Krl {
    /// Its number, which `ssh-keygen -z` sets.
    pub version: u64,
    /// The time at which it was made, in seconds since 1970.
    pub generated: u64,
    /// The revocations, in the order of the file.
    pub entries: Vec<KrlEntry>,
}

/// One thing that is revoked.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum KrlEntry {
    /// A public key, by its SSH encoding.
    Key(Vec<u8>),
    /// A public key, by the SHA-1 of its SSH encoding.
    Sha1([u8; 20]),
    /// A public key, by the SHA-256 of its SSH encoding.
    Sha256([u8; 32]),
    /// Certificates by their serial numbers. Zero, "not numbered", is never among them.
    Serials(KrlAuthority, RangeInclusive<u64>),
    /// Certificates by their key id, unchanged: bytes from outside.
    KeyId(KrlAuthority, Vec<u8>),
}

/// The SSH encoding of the public key that signed the certificates; `None`: of any.
pub(crate) type KrlAuthority = Option<Arc<[u8]>>;

/// The reason why bytes are no revocation list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum KrlError {
    /// They do not begin as one.
    #[error("it is not a key revocation list: make one with `ssh-keygen -k`")]
    NotOne,
    /// A format that is not known.
    #[error("it is of format {0}, and only format 1 is known")]
    Format(u32),
    /// It ends too early, or a length in it is wrong.
    #[error("it is damaged or cut off: copy the whole file")]
    Damaged,
    /// A kind of section that is not known.
    #[error("it has a section of kind {0}, which is not known, so what it revokes is not either")]
    Section(u8),
    /// An extension that must be understood.
    #[error("it has a critical extension, and none is known")]
    Extension,
    /// Serial 0, a range that ends before it begins, or a number over 64 bits.
    #[error("it revokes serial numbers that no certificate can have")]
    Serials,
    /// Something else behind the signature that ends a list.
    #[error("unexpected data behind its signature")]
    AfterSignature,
    /// More entries than are taken.
    #[error(
        "it has more than {0} entries: revoke ranges of serial numbers, or the authority itself"
    )]
    TooMany(usize),
}

const FORMAT: u32 = 1;

const CERTIFICATES: u8 = 1;
const EXPLICIT_KEYS: u8 = 2;
const SHA1_FINGERPRINTS: u8 = 3;
const SIGNATURE: u8 = 4;
const SHA256_FINGERPRINTS: u8 = 5;
const EXTENSION: u8 = 255;

const SERIAL_LIST: u8 = 0x20;
const SERIAL_RANGE: u8 = 0x21;
const SERIAL_BITMAP: u8 = 0x22;
const KEY_IDS: u8 = 0x23;
const CERTIFICATE_EXTENSION: u8 = 0x39;

/// Returns whether the bytes want to be a revocation list.
#[must_use]
pub(crate) fn looks_like_one(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Reads a list of at most `most` entries; a range of serial numbers is one.
///
/// # Errors
/// [`KrlError`]; nothing of a list that is wrong anywhere is used.
pub(crate) fn parse(bytes: &[u8], most: usize) -> Result<Krl, KrlError> {
    let mut reader = Reader(bytes.strip_prefix(MAGIC).ok_or(KrlError::NotOne)?);
    let format = reader.u32()?;
    if format != FORMAT {
        return Err(KrlError::Format(format));
    }
    let (version, generated) = (reader.u64()?, reader.u64()?);
    let _flags = reader.u64()?;
    let (_reserved, _comment) = (reader.string()?, reader.string()?);
    let mut entries = Entries { all: vec![], most };
    let mut signed = false;
    while !reader.is_empty() {
        let kind = reader.byte()?;
        let mut section = Reader(reader.string()?);
        match kind {
            SIGNATURE => {
                // The section was the key that signed; this is the signature.
                reader.string()?;
                signed = true;
                continue;
            }
            _ if signed => return Err(KrlError::AfterSignature),
            CERTIFICATES => certificates(&mut section, &mut entries)?,
            EXPLICIT_KEYS => {
                while !section.is_empty() {
                    entries.push(KrlEntry::Key(section.string()?.to_vec()))?;
                }
            }
            SHA1_FINGERPRINTS => {
                while !section.is_empty() {
                    entries.push(KrlEntry::Sha1(section.hash()?))?;
                }
            }
            SHA256_FINGERPRINTS => {
                while !section.is_empty() {
                    entries.push(KrlEntry::Sha256(section.hash()?))?;
                }
            }
            EXTENSION => section.extension()?,
            unknown => return Err(KrlError::Section(unknown)),
        }
    }
    Ok(Krl {
        version,
        generated,
        entries: entries.all,
    })
}

/// Reads the certificates of one authority.
fn certificates(section: &mut Reader<'_>, entries: &mut Entries) -> Result<(), KrlError> {
    let authority = section.string()?;
    let authority: KrlAuthority = (!authority.is_empty()).then(|| authority.into());
    let _reserved = section.string()?;
    while !section.is_empty() {
        let kind = section.byte()?;
        let mut part = Reader(section.string()?);
        match kind {
            SERIAL_LIST => {
                while !part.is_empty() {
                    let serial = part.u64()?;
                    entries.serials(&authority, serial, serial)?;
                }
            }
            SERIAL_RANGE => {
                let (first, last) = (part.u64()?, part.u64()?);
                entries.serials(&authority, first, last)?;
                part.end()?;
            }
            SERIAL_BITMAP => {
                let offset = part.u64()?;
                let bits = part.string()?;
                bitmap(&authority, offset, bits, entries)?;
                part.end()?;
            }
            KEY_IDS => {
                while !part.is_empty() {
                    let id = part.string()?.to_vec();
                    entries.push(KrlEntry::KeyId(authority.clone(), id))?;
                }
            }
            CERTIFICATE_EXTENSION => part.extension()?,
            unknown => return Err(KrlError::Section(unknown)),
        }
    }
    Ok(())
}

/// Reads the serial numbers `offset + n` for each bit `n` of a number (an mpint: big-endian, not negative), as
/// ranges of neighbours.
fn bitmap(
    authority: &KrlAuthority,
    offset: u64,
    bits: &[u8],
    entries: &mut Entries,
) -> Result<(), KrlError> {
    if bits.first().is_some_and(|byte| byte & 0x80 != 0) {
        return Err(KrlError::Damaged);
    }
    let mut run: Option<(u64, u64)> = None;
    let mut place = 0_u64;
    for byte in bits.iter().rev() {
        for bit in 0..8 {
            if byte >> bit & 1 == 1 {
                let serial = offset.checked_add(place).ok_or(KrlError::Serials)?;
                run = Some((run.map_or(serial, |(first, _)| first), serial));
            } else if let Some((first, last)) = run.take() {
                entries.serials(authority, first, last)?;
            }
            place += 1;
        }
    }
    match run {
        Some((first, last)) => entries.serials(authority, first, last),
        None => Ok(()),
    }
}

/// The entries that were read so far.
struct Entries {
    all: Vec<KrlEntry>,
    most: usize,
}

impl Entries {
    fn push(&mut self, entry: KrlEntry) -> Result<(), KrlError> {
        if self.all.len() >= self.most {
            return Err(KrlError::TooMany(self.most));
        }
        self.all.push(entry);
        Ok(())
    }

    fn serials(&mut self, authority: &KrlAuthority, first: u64, last: u64) -> Result<(), KrlError> {
        if first == 0 || first > last {
            return Err(KrlError::Serials);
        }
        self.push(KrlEntry::Serials(authority.clone(), first..=last))
    }
}

/// The unread rest, in the encoding of RFC 4251 section 5.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn end(&self) -> Result<(), KrlError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(KrlError::Damaged)
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], KrlError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(KrlError::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], KrlError> {
        self.take(N)?.try_into().map_err(|_| KrlError::Damaged)
    }

    fn byte(&mut self) -> Result<u8, KrlError> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, KrlError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, KrlError> {
        self.array().map(u64::from_be_bytes)
    }

    fn string(&mut self) -> Result<&'a [u8], KrlError> {
        let length = usize::try_from(self.u32()?).map_err(|_| KrlError::Damaged)?;
        self.take(length)
    }

    fn hash<const N: usize>(&mut self) -> Result<[u8; N], KrlError> {
        self.string()?.try_into().map_err(|_| KrlError::Damaged)
    }

    /// Reads an extension: none is known, so only one that may be ignored is.
    fn extension(&mut self) -> Result<(), KrlError> {
        let _name = self.string()?;
        if self.byte()? != 0 {
            return Err(KrlError::Extension);
        }
        let _contents = self.string()?;
        self.end()
    }
}

impl fmt::Debug for KrlEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |authority: &KrlAuthority| match authority {
            Some(_) => "one authority",
            None => "any authority",
        };
        match self {
            Self::Key(blob) => write!(f, "Key({} bytes)", blob.len()),
            Self::Sha1(hash) => write!(f, "Sha1({hash:02x?})"),
            Self::Sha256(hash) => write!(f, "Sha256({hash:02x?})"),
            Self::Serials(authority, range) => write!(f, "Serials({range:?} of {})", of(authority)),
            Self::KeyId(authority, id) => {
                write!(f, "KeyId({} of {})", id.escape_ascii(), of(authority))
            }
        }
    }
}

#[cfg(test)]
mod tests;
