//! Finds the instructions of a 32-bit ARM program that an ARMv6 has not.
//!
//! A program that is shipped has no symbols, so nothing says where in it code ends and constants begin. Constants that
//! an instruction loads by its own address are distinguished from code by that; of the others, those that look like an
//! instruction are named here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The instructions that there may be, by kind and number.
const KNOWN: [(InstructionKind, usize); 1] = [
    // musl's `__a_barrier_v7` and `__a_cas_v7`, which it takes where the kernel names an ARMv7.
    (InstructionKind::Barrier, 3),
];

/// Words of SHA-2's tables (FIPS 180-4, 4.2), which lie among ring's code, that would be NEON, `movw` or `movt`.
const SHA_2: [u32; 7] = [
    0xf40e_3585,
    0xf348_b538,
    0xf27b_896f,
    0xa303_0242,
    0x930a_a725,
    0xe341_8acb,
    0x2304_7d84,
];

/// Groups of instructions that came after ARMv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum InstructionKind {
    Neon,
    /// `dmb`, `dsb`, `isb`: ARMv6 has them as coprocessor instructions.
    Barrier,
    /// `movw`, `movt`
    WideMove,
    /// `ubfx`, `sbfx`, `bfi`, `bfc`, `rbit`
    BitField,
    /// `sdiv`, `udiv`
    Division,
    /// `mls`
    MultiplySubtract,
}

/// An error that tells where `program` has what no ARMv6 has.
pub(crate) fn are_of_armv6(program: &Path) -> Result<()> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let code = code(&bytes).with_context(|| {
        format!(
            "{} is no 32-bit ELF file with code in it",
            program.display()
        )
    })?;
    let mut found: BTreeMap<InstructionKind, Vec<u32>> = BTreeMap::new();
    for (address, words) in code {
        for (kind, at) in later_than_armv6(&words) {
            let offset = u32::try_from(at * 4).context("a 32-bit program is larger than that")?;
            found.entry(kind).or_default().push(address + offset);
        }
    }
    for (kind, at) in found {
        let known = KNOWN.iter().find(|(known, _)| *known == kind);
        let allowed = known.map_or(0, |(_, number)| *number);
        if at.len() > allowed {
            let first: Vec<String> = at.iter().take(4).map(|at| format!("{at:#x}")).collect();
            bail!(
                "{} has {} instructions of kind {kind:?}, which no ARMv6 has, where {allowed} are known: \
                 the first are at {}. Built with --profile device-symbols, a disassembly names the function",
                program.display(),
                at.len(),
                first.join(", ")
            );
        }
    }
    Ok(())
}

/// The address and the words of each section with code; `None` if there is none.
fn code(elf: &[u8]) -> Option<Vec<(u32, Vec<u32>)>> {
    const EXECUTABLE: u32 = 4;
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    let place = |at: usize| usize::try_from(word(at)?).ok();
    if !elf.starts_with(b"\x7fELF\x01\x01") {
        return None;
    }
    let (table, size, number) = (place(32)?, usize::from(half(46)?), usize::from(half(48)?));
    let mut found = Vec::new();
    for at in (0..number).map(|section| table + section * size) {
        if word(at + 8)? & EXECUTABLE != 0 {
            let (address, from, length) = (word(at + 12)?, place(at + 16)?, place(at + 20)?);
            let (words, _) = elf.get(from..from + length)?.as_chunks();
            found.push((
                address,
                words.iter().copied().map(u32::from_le_bytes).collect(),
            ));
        }
    }
    (!found.is_empty()).then_some(found)
}

/// Their kinds, and which words they are.
fn later_than_armv6(words: &[u32]) -> Vec<(InstructionKind, usize)> {
    let constants: BTreeSet<usize> = words
        .iter()
        .enumerate()
        .flat_map(|(at, &word)| loaded(at, word))
        .collect();
    words
        .iter()
        .enumerate()
        .filter(|(at, word)| !constants.contains(at) && !SHA_2.contains(word))
        .filter_map(|(at, &word)| Some((kind(word)?, at)))
        .collect()
}

/// Returns which words the one at `at` loads, if it is `ldr` or `vldr` with an address that counts from its own.
fn loaded(at: usize, word: u32) -> Vec<usize> {
    let (distance, words) = if word & 0x0f7f_0000 == 0x051f_0000 && word >> 28 != 0xf {
        ((word & 0xfff) / 4, 1)
    } else if word & 0x0f3f_0000 == 0x0d1f_0000 {
        (word & 0xff, 2)
    } else {
        return Vec::new();
    };
    // The program counter is two instructions ahead; bit 23 says whether the distance is added.
    let distance = distance as usize;
    let first = if word & 0x0080_0000 != 0 {
        Some(at + 2 + distance)
    } else {
        (at + 2).checked_sub(distance)
    };
    first.map_or(Vec::new(), |first| (first..first + words).collect())
}

/// By the encodings of the ARM Architecture Reference Manual, ARMv7-A, A5 and A7.
fn kind(word: u32) -> Option<InstructionKind> {
    if word >> 28 == 0xf {
        return if word & 0x0e00_0000 == 0x0200_0000 || word & 0x0f10_0000 == 0x0400_0000 {
            Some(InstructionKind::Neon)
        } else if [0x40, 0x50, 0x60].contains(&(word & 0xf0)) && word & 0x0fff_ff00 == 0x057f_f000 {
            Some(InstructionKind::Barrier)
        } else {
            None
        };
    }
    if [0x0300_0000, 0x0340_0000].contains(&(word & 0x0ff0_0000)) {
        Some(InstructionKind::WideMove)
    } else if word & 0x0fa0_0070 == 0x07a0_0050
        || word & 0x0fe0_0070 == 0x07c0_0010
        || word & 0x0fff_0ff0 == 0x06ff_0f30
    {
        Some(InstructionKind::BitField)
    } else if word & 0x0fd0_f0f0 == 0x0710_f010 {
        Some(InstructionKind::Division)
    } else if word & 0x0ff0_00f0 == 0x0060_0090 {
        Some(InstructionKind::MultiplySubtract)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_after_armv6_is_distinguished() {
        for (word, expected) in [
            (0xf222_0844, Some(InstructionKind::Neon)), // vadd.i32 q0, q1, q2
            (0xf462_4a8f, Some(InstructionKind::Neon)), // vld1.32 {d20-d21}, [r2]
            (0xf57f_f05b, Some(InstructionKind::Barrier)), // dmb ish
            (0xe300_0001, Some(InstructionKind::WideMove)), // movw r0, #1
            (0xe340_0001, Some(InstructionKind::WideMove)), // movt r0, #1
            (0xe7e7_0450, Some(InstructionKind::BitField)), // ubfx r0, r0, #8, #8
            (0xe7c7_0011, Some(InstructionKind::BitField)), // bfi r0, r1, #0, #8
            (0xe6ff_0f31, Some(InstructionKind::BitField)), // rbit r0, r1
            (0xe710_f211, Some(InstructionKind::Division)), // sdiv r0, r1, r2
            (0xe060_3291, Some(InstructionKind::MultiplySubtract)), // mls r0, r1, r2, r3
            (0xe3a0_0001, None),                        // mov r0, #1
            (0xee07_0fba, None),                        // mcr p15, 0, r0, c7, c10, 5
            (0xe192_0f9f, None),                        // ldrex r0, [r2]
            (0xe6ff_0070, None),                        // uxth r0, r0
            (0xee30_0b02, None),                        // vadd.f64 d0, d0, d2: VFPv2
            (0xf5d1_f000, None),                        // pld [r1]
            (0xfa00_0000, None),                        // blx
        ] {
            assert_eq!(kind(word), expected, "{word:#x}");
        }
    }

    #[test]
    fn what_is_loaded_as_a_constant_is_not_taken_for_an_instruction() {
        let dmb = 0xf57f_f05b;
        // ldr r0, [pc, #4] loads the fourth word, and not the third.
        assert_eq!(later_than_armv6(&[0xe59f_0004, 0, 0, dmb]), []);
        assert_eq!(
            later_than_armv6(&[0xe59f_0004, 0, dmb, 0]),
            [(InstructionKind::Barrier, 2)]
        );
        // ldr r0, [pc, #-8] loads itself; vldr d0, [pc] the two words behind the next.
        assert_eq!(
            later_than_armv6(&[0xe51f_000c, dmb]),
            [(InstructionKind::Barrier, 1)]
        );
        assert_eq!(later_than_armv6(&[0xed9f_0b00, 0, dmb, dmb]), []);
        assert_eq!(later_than_armv6(&[SHA_2[0]]), []);
    }

    #[test]
    fn what_is_no_program_has_no_code() {
        assert!(code(b"#!/bin/sh").is_none());
        assert!(code(b"\x7fELF\x01\x01").is_none());
    }
}
