//! The plain bytes inside a seal: `codec: u8`, and for LZ4 the plain length as `u32 BE`, then the bytes. LZ4's block
//! format, where the text of the segment before the block serves as its dictionary.

use alloc::vec;
use alloc::vec::Vec;

use crate::limits::{BLOCK_WINDOW, MAX_BLOCK_PLAIN};

const STORED: u8 = 0;
const LZ4: u8 = 1;
const LZ4_HEAD: usize = 5;

/// Packs the plain text behind its predecessors' last bytes (`window`).
pub(super) fn pack(window: &[u8], plain: &[u8]) -> Vec<u8> {
    let bound = LZ4_HEAD + lz4_flex::block::get_maximum_output_size(plain.len());
    let mut packed = vec![0; bound];
    let (head, body) = packed.split_at_mut(LZ4_HEAD);
    let compressed = lz4_flex::block::compress_into_with_dict(plain, body, window);
    let length = u32::try_from(plain.len()).unwrap_or(u32::MAX);
    match compressed {
        Ok(used) if used + LZ4_HEAD <= plain.len() => {
            let [a, b, c, d] = length.to_be_bytes();
            head.copy_from_slice(&[LZ4, a, b, c, d]);
            packed.truncate(LZ4_HEAD + used);
        }
        _ => packed = store(plain),
    }
    packed
}

/// Returns the plain text as it is.
pub(super) fn store(plain: &[u8]) -> Vec<u8> {
    [&[STORED], plain].concat()
}

/// Returns whether [`pack`] found nothing to save.
pub(super) fn is_stored(packed: &[u8]) -> bool {
    packed.first() == Some(&STORED)
}

/// Returns the length of the plain text, as far as the packed one says it.
pub(super) fn plain_length(packed: &[u8]) -> usize {
    match packed {
        [LZ4, a, b, c, d, ..] => {
            let length = u32::from_be_bytes([*a, *b, *c, *d]);
            usize::try_from(length).unwrap_or(usize::MAX)
        }
        [_, plain @ ..] => plain.len(),
        [] => 0,
    }
}

/// Appends the plain text to `window`, which holds the text of the segment before it; `None` if the bytes
/// are not what [`pack`] makes. Gives the length of what it appended.
pub(super) fn unpack(window: &mut Vec<u8>, packed: &[u8]) -> Option<usize> {
    let (codec, rest) = packed.split_first()?;
    let plain = match *codec {
        STORED if rest.len() <= MAX_BLOCK_PLAIN => rest.to_vec(),
        LZ4 => {
            let (length, body) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            if length > MAX_BLOCK_PLAIN {
                return None;
            }
            let mut plain = vec![0; length];
            let used = lz4_flex::block::decompress_into_with_dict(body, &mut plain, window).ok()?;
            (used == length).then_some(plain)?
        }
        _ => return None,
    };
    slide(window);
    window.extend_from_slice(&plain);
    Some(plain.len())
}

/// Forgets what lies further back than a block may refer to.
pub(super) fn slide(window: &mut Vec<u8>) {
    let excess = window.len().saturating_sub(BLOCK_WINDOW);
    window.drain(..excess);
}
