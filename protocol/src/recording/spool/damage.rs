//! Damage of a segment, and what a crash leaves: the one has blocks behind it, the other has not.

use alloc::vec::Vec;

use crate::limits::SECTOR;
use crate::recording::medium::SegmentName;
use crate::recording::scan::ScanFault;
use crate::recording::segment::{BlockKind, block_length};

/// A block, a header or an end that is not what was written. Its segment is kept and delivered as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// In which segment.
    pub segment: SegmentName,
    /// The number of the block, from 0; 0 if it is the header, and that of the first one that is missing.
    pub block: u32,
    /// The fault.
    pub fault: ScanFault,
}

/// Returns whether whole blocks follow in `rest`, which begins with the damaged one; the kind of the last of them.
/// Their checks hang on the damaged block, so the shape must do: a run of blocks that ends exactly where the bytes do,
/// or two and more before a torn one.
pub(super) fn blocks_behind(rest: &[u8]) -> Option<BlockKind> {
    // The damaged block itself may begin with a head that is whole.
    let first = block_length(rest).map_or(1, |length| length.min(rest.len()));
    let starts = core::iter::once(first).chain(1..rest.len());
    starts.filter_map(|start| run(rest.get(start..)?)).next()
}

/// Returns whether a part of the bytes was never written: a power cut leaves sectors of zeros. Sealed bytes have none.
pub(super) fn has_unwritten(rest: &[u8]) -> bool {
    let mut zeros = 0;
    rest.iter().any(|byte| {
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        zeros >= SECTOR
    })
}

fn run(mut rest: &[u8]) -> Option<BlockKind> {
    let (mut count, mut last) = (0_u32, None);
    loop {
        let whole = block_length(rest).filter(|length| *length <= rest.len());
        let Some(length) = whole else {
            let torn = block_length(rest).is_some();
            let enough = count >= 2 && torn;
            return last.filter(|_| rest.is_empty() || enough);
        };
        last = rest.first().copied().and_then(BlockKind::from_number);
        count += 1;
        rest = rest.get(length..)?;
    }
}

/// Reads what is left of a file, a bounded segment, from `at` on.
pub(super) fn read_rest<M: crate::recording::medium::Medium>(
    medium: &mut M,
    name: SegmentName,
    mut at: u64,
    length: u64,
) -> Vec<u8> {
    let mut rest = Vec::new();
    let mut buffer = [0; 4 * 1024];
    while at < length {
        let file = crate::recording::medium::FileName::Segment(name);
        let Ok(count @ 1..) = medium.read(file, at, &mut buffer) else {
            break;
        };
        rest.extend_from_slice(buffer.get(..count).unwrap_or_default());
        at += count as u64;
    }
    rest
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn block(kind: u8, length: u8) -> Vec<u8> {
        let mut block = vec![kind, 0, 0, length];
        block.extend((0..8 + length).map(|n| n | 0x80));
        block
    }

    #[test]
    fn a_run_of_blocks_to_the_end_is_no_torn_tail() {
        let [one, two, last] = [block(0, 40), block(0, 50), block(2, 30)];
        let all = [one.as_slice(), &two, &last].concat();
        assert_eq!(blocks_behind(&all), Some(BlockKind::FinalFooter));
        // The head of the damaged one is lost as well.
        let mut headless = all.clone();
        headless[..4].fill(0xff);
        assert_eq!(blocks_behind(&headless), Some(BlockKind::FinalFooter));
        // The last block alone may be torn, and so may what is behind two that stand.
        assert_eq!(blocks_behind(&one), None);
        assert_eq!(blocks_behind(&one[..20]), None);
        assert_eq!(blocks_behind(&[]), None);
        let cut = [one.as_slice(), &two, &two, &last[..20]].concat();
        assert_eq!(blocks_behind(&cut), Some(BlockKind::Records));
        let garbage = [one.as_slice(), &[0xa5; 100]].concat();
        assert_eq!(blocks_behind(&garbage), None);
        let zeros = [one.as_slice(), &[0; 600]].concat();
        assert_eq!(blocks_behind(&zeros), None);
        assert!(has_unwritten(&zeros) && !has_unwritten(&all));
    }
}
