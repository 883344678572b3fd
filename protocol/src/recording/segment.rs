//! Segments: a header, sealed blocks of records, a sealed footer. [`SegmentWriter`] makes them.
//!
//! A chain of SHA-256 over the ciphertexts runs through all segments of a session. Each header and block
//! carries the first bytes of its link as a check, so that a reader without the key finds the last whole block
//! after a cut anywhere, and one value names everything before it.

mod writer;

use core::fmt;

use serde::{Deserialize, Serialize};

use super::digest::sha256;
use super::seal::{ENCAPSULATED_LEN, KeyId, TAG_LEN, first_bytes};
use crate::ids::SessionId;
use crate::limits::MAX_BLOCK_SEALED;

pub use self::writer::{SegmentWriter, WriteError};
pub use crate::wire::SegmentLink;

/// The first bytes of every segment.
pub const MAGIC: [u8; 4] = *b"HFRS";

/// The version of the format. Another one is another format.
pub const VERSION: u8 = 1;

/// HPKE with X25519, HKDF-SHA256 and ChaCha20-Poly1305; SHA-256; LZ4.
pub const SUITE: u8 = 1;

/// Length of a segment's header.
pub const HEADER_LEN: usize = 108;

/// Length of the head before each sealed block.
pub const BLOCK_HEAD_LEN: usize = 12;

/// The most that a block takes beyond its plain bytes: its head, the tag and the codec's byte.
pub const BLOCK_OVERHEAD: usize = BLOCK_HEAD_LEN + TAG_LEN + 1;

/// The most that a closed segment takes beyond its blocks: header and footer.
pub const SEGMENT_OVERHEAD: usize = HEADER_LEN + BLOCK_HEAD_LEN + TAG_LEN + MAX_FOOTER;

/// The longest encoded footer.
const MAX_FOOTER: usize = 40;

/// A segment's header, without its check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The session that it belongs to.
    pub session: SessionId,
    /// Its number in the session, from 0.
    pub index: u32,
    /// The key that opens it.
    pub key: KeyId,
    /// The chain before it.
    pub before: SegmentLink,
    /// HPKE's encapsulated key.
    pub encapsulated: [u8; ENCAPSULATED_LEN],
}

/// The content of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Records.
    Records,
    /// The footer of a segment that another follows.
    Footer,
    /// The footer of the last segment.
    FinalFooter,
}

/// The content of a footer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    /// Blocks of records in the segment.
    pub blocks: u32,
    /// Records in it.
    pub records: u32,
    /// Bytes of records in it.
    pub bytes: u64,
    /// Microseconds from the recording's start to the segment's first record.
    pub from: u64,
    /// And to its last.
    pub to: u64,
}

impl SegmentLink {
    /// Returns where the chain of a session begins.
    #[must_use]
    pub fn first(session: &SessionId) -> Self {
        Self(sha256(&[b"holdfast recording v1\0", &session.0]))
    }

    /// Returns the check that is stored of it.
    #[must_use]
    pub fn check(&self) -> [u8; 8] {
        first_bytes(&self.0)
    }

    pub(super) fn behind_block(&self, head: [u8; 4], sealed: &[u8]) -> Self {
        Self(sha256(&[&[1], &self.0, &head, sealed]))
    }
}

impl SegmentHeader {
    /// Returns the bytes of the header, check and all, and the chain behind it.
    #[must_use]
    pub fn encode(&self) -> ([u8; HEADER_LEN], SegmentLink) {
        let mut bytes = [0; HEADER_LEN];
        let (head, check) = bytes.split_at_mut(HEADER_LEN - 8);
        let (info, encapsulated) = head.split_at_mut(INFO_LEN);
        info.copy_from_slice(&self.info());
        encapsulated.copy_from_slice(&self.encapsulated);
        let link = self.behind(head);
        check.copy_from_slice(&link.check());
        (bytes, link)
    }

    /// Returns the bytes before the encapsulated key: HPKE binds the segment's key to it.
    pub(super) fn info(&self) -> [u8; INFO_LEN] {
        let mut info = [0; INFO_LEN];
        let fields: [&[u8]; 6] = [
            &MAGIC,
            &[VERSION, SUITE, 0, 0],
            &self.session.0,
            &self.index.to_be_bytes(),
            &self.key.0,
            &self.before.0,
        ];
        for (to, from) in info.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        info
    }

    /// Returns the chain behind a header of these bytes.
    pub(super) fn behind(&self, head: &[u8]) -> SegmentLink {
        SegmentLink(sha256(&[&[0], &self.before.0, head]))
    }
}

/// Length of the header up to the encapsulated key.
pub(super) const INFO_LEN: usize = HEADER_LEN - 8 - ENCAPSULATED_LEN;

impl BlockKind {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Records => 0,
            Self::Footer => 1,
            Self::FinalFooter => 2,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Records),
            1 => Some(Self::Footer),
            2 => Some(Self::FinalFooter),
            _ => None,
        }
    }
}

/// Returns the first four bytes of a block: its kind and the length of what is sealed.
fn block_head(kind: BlockKind, length: usize) -> [u8; 4] {
    // At most `MAX_BLOCK_SEALED`, which is below 2^24.
    let [_, high, middle, low] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [kind.number(), high, middle, low]
}

/// Returns the length of the block that these bytes seem to begin, its head included.
pub(super) fn block_length(bytes: &[u8]) -> Option<usize> {
    let [kind, high, middle, low] = *bytes.first_chunk::<4>()?;
    BlockKind::from_number(kind)?;
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    (TAG_LEN..=MAX_BLOCK_SEALED)
        .contains(&length)
        .then_some(BLOCK_HEAD_LEN + length)
}

/// Returns what each seal is bound to: its place, and whether it is the last.
pub(super) fn bound(session: &SessionId, segment: u32, block: u32, kind: BlockKind) -> [u8; 25] {
    let mut bound = [0; 25];
    let fields: [&[u8]; 4] = [
        &session.0,
        &segment.to_be_bytes(),
        &block.to_be_bytes(),
        &[kind.number()],
    ];
    for (to, from) in bound.iter_mut().zip(fields.into_iter().flatten()) {
        *to = *from;
    }
    bound
}

impl fmt::Debug for SegmentLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({self})")
    }
}

impl fmt::Display for SegmentLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
