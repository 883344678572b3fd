//! Measures the bytes of a program: its sections as `readelf` lists them, and whose code they hold, by the names that
//! `nm` prints of the same program before it was stripped.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::process;
use crate::tools;

/// The distribution of a program's bytes.
#[derive(Debug, Serialize)]
pub(super) struct CrateSize {
    /// Of the file that is shipped.
    pub(super) file: u64,
    /// Of what of it is loaded, and of what is zeroed beside it, largest first.
    pub(super) sections: Vec<Section>,
    /// By crate, largest first.
    pub(super) crates: Vec<SizeShare>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// It takes memory and no room in the file.
    pub(super) zeroed: bool,
}

/// The share of one crate in a program, in bytes.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct SizeShare {
    pub(super) name: String,
    pub(super) code: u64,
    pub(super) data: u64,
}

impl CrateSize {
    /// Of the `stripped` program, of which `named` is the one with its symbols.
    pub(super) fn of(stripped: &Path, named: &Path) -> Result<Self> {
        tools::ensure(&[tools::READELF])?;
        let mut readelf = Command::new("readelf");
        readelf
            .args(["--wide", "--section-headers"])
            .env("LC_ALL", "C");
        let sections = sections(&process::capture(readelf.arg(stripped))?)?;
        let mut nm = Command::new("nm");
        nm.args(["--print-size", "--demangle", "--radix=d"]);
        let mut crates = crates(&process::capture(nm.env("LC_ALL", "C").arg(named))?);
        if crates.is_empty() {
            bail!("{} has no symbols", named.display());
        }
        crates.push(nameless(&sections, &crates));
        crates.sort_by_key(|share| std::cmp::Reverse(share.code + share.data));
        Ok(Self {
            file: fs::metadata(stripped)
                .with_context(|| format!("cannot look at {}", stripped.display()))?
                .len(),
            sections,
            crates,
        })
    }

    /// Two tables in Markdown.
    pub(super) fn markdown(&self) -> String {
        let mut lines = vec![
            format!("The file has {} bytes.", self.file),
            String::new(),
            "| section | bytes | |".into(),
            "| --- | --- | --- |".into(),
        ];
        lines.extend(self.sections.iter().map(|section| {
            let note = if section.zeroed {
                "zeroed, not in the file"
            } else {
                ""
            };
            format!("| `{}` | {} | {note} |", section.name, section.bytes)
        }));
        lines.extend([
            String::new(),
            "| crate | code | constants and data | share of all |".into(),
            "| --- | --- | --- | --- |".into(),
        ]);
        let all: u64 = self
            .crates
            .iter()
            .map(|share| share.code + share.data)
            .sum();
        let (shown, rest) = self.crates.split_at(SHOWN.min(self.crates.len()));
        let mut others = SizeShare {
            name: format!("{} others", rest.len()),
            ..SizeShare::default()
        };
        for share in rest {
            others.code += share.code;
            others.data += share.data;
        }
        lines.extend(shown.iter().chain([&others]).map(|share| {
            let percent = 100 * (share.code + share.data) / all.max(1);
            format!(
                "| {} | {} | {} | {percent} % |",
                share.name, share.code, share.data
            )
        }));
        lines.join("\n") + "\n"
    }
}

/// The number of crates that the table has a row for; the JSON has them all.
const SHOWN: usize = 24;

/// Returns what is loaded, of the table that `readelf --section-headers --wide` prints.
fn sections(shown: &str) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    for line in shown.lines() {
        // `  [ 1] .rodata  PROGBITS  ADDRESS OFFSET SIZE ES FLAGS …`; the first entry has no name.
        let Some((_, row)) = line.split_once("] ") else {
            continue;
        };
        let words: Vec<&str> = row.split_whitespace().collect();
        let [name, kind, _, _, size, _, flags, ..] = words.as_slice() else {
            continue;
        };
        if name.starts_with('.') && flags.contains('A') {
            sections.push(Section {
                name: (*name).to_owned(),
                bytes: u64::from_str_radix(size, 16)
                    .with_context(|| format!("readelf gives {size:?} as a size"))?,
                zeroed: *kind == "NOBITS",
            });
        }
    }
    sections.sort_by_key(|section| std::cmp::Reverse(section.bytes));
    Ok(sections)
}

/// Adds up what `nm --print-size --demangle --radix=d` prints: `ADDRESS SIZE KIND NAME`.
fn crates(shown: &str) -> Vec<SizeShare> {
    let mut crates: BTreeMap<String, SizeShare> = BTreeMap::new();
    // What several names stand for counts once.
    let mut last = None;
    let mut symbols: Vec<(u64, u64, char, &str)> = shown.lines().filter_map(symbol).collect();
    symbols.sort_unstable();
    for (address, bytes, kind, name) in symbols {
        if last == Some((address, bytes)) {
            continue;
        }
        last = Some((address, bytes));
        let owner = owner(name);
        let share = crates.entry(owner.to_owned()).or_insert_with(|| SizeShare {
            name: owner.to_owned(),
            ..SizeShare::default()
        });
        match kind {
            't' | 'w' => share.code += bytes,
            'r' | 'd' => share.data += bytes,
            // Zeroed memory is no part of the file.
            _ => {}
        }
    }
    crates.into_values().collect()
}

fn symbol(line: &str) -> Option<(u64, u64, char, &str)> {
    let mut words = line.splitn(4, ' ');
    let address = words.next()?.parse().ok()?;
    let bytes = words.next()?.parse().ok()?;
    let kind = words.next()?.chars().next()?.to_ascii_lowercase();
    Some((address, bytes, kind, words.next()?))
}

/// Returns what the sections hold and no symbol names: constants without a name, tables, padding.
fn nameless(sections: &[Section], crates: &[SizeShare]) -> SizeShare {
    let stored = |code: bool| -> u64 {
        let wanted = sections
            .iter()
            .filter(|section| !section.zeroed && (section.name == ".text") == code);
        wanted.map(|section| section.bytes).sum()
    };
    let code: u64 = crates.iter().map(|share| share.code).sum();
    let data: u64 = crates.iter().map(|share| share.data).sum();
    SizeShare {
        name: "(without a name: text, tables, padding)".to_owned(),
        code: stored(true).saturating_sub(code),
        data: stored(false).saturating_sub(data),
    }
}

/// Returns whose a symbol is: the crate that the first path in it begins with. What drops a value is its type's.
fn owner(symbol: &str) -> &str {
    const DROP: &str = "core::ptr::drop_in_place";
    let (symbol, otherwise) = match symbol.strip_prefix(DROP) {
        Some(of) => (of, "core"),
        None => (symbol, "libc and compiler support"),
    };
    if symbol.contains("ring_core_") {
        return "ring (C and assembly)";
    }
    let mut rest = symbol;
    while let Some(at) = rest.find("::") {
        let before = &rest[..at];
        let start = before
            .rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .map_or(0, |at| at + 1);
        let name = &before[start..];
        if !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) {
            return name;
        }
        rest = &rest[at + 2..];
    }
    otherwise
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_their_crates() {
        for (symbol, wanted) in [
            ("quinn_proto::connection::Connection::poll", "quinn_proto"),
            ("<quinn::Endpoint as core::ops::drop::Drop>::drop", "quinn"),
            (
                "<&mut alloc::vec::Vec<u8> as std::io::Write>::write",
                "alloc",
            ),
            ("<[u8] as core::fmt::Debug>::fmt", "core"),
            ("<(dyn edge_agent::Any + 'static)>::call", "edge_agent"),
            ("core::ptr::drop_in_place<rustls::msgs::Message>", "rustls"),
            (
                "core::ptr::drop_in_place::<rustls::msgs::Message>",
                "rustls",
            ),
            ("core::ptr::drop_in_place<u8>", "core"),
            (
                "ring_core_0_17_14__x25519_ge_frombytes",
                "ring (C and assembly)",
            ),
            ("memcpy", "libc and compiler support"),
        ] {
            assert_eq!(owner(symbol), wanted, "{symbol}");
        }
    }

    #[test]
    fn what_is_loaded_is_listed_largest_first() {
        let shown = "\
Section Headers:
  [Nr] Name              Type            Address          Off    Size   ES Flg Lk Inf Al
  [ 0]                   NULL            0000000000000000 000000 000000 00      0   0  0
  [ 1] .rodata           PROGBITS        00000000010002c0 0002c0 000010 00 AMS  0   0 64
  [ 2] .text             PROGBITS        0000000001040180 03f180 000100 00  AX  0   0 64
  [ 3] .bss              NOBITS          0000000001090000 08e000 000020 00  WA  0   0 64
  [10] .symtab           SYMTAB          0000000000000000 08e000 009000 18     11   9  8
";
        let listed: Vec<(String, u64, bool)> = sections(shown)
            .unwrap()
            .into_iter()
            .map(|section| (section.name, section.bytes, section.zeroed))
            .collect();
        let wanted = [
            (".text", 256, false),
            (".bss", 32, true),
            (".rodata", 16, false),
        ];
        assert_eq!(
            listed,
            wanted.map(|(name, size, zeroed)| (name.to_owned(), size, zeroed))
        );
    }

    #[test]
    fn each_byte_counts_once_and_zeroed_memory_not_at_all() {
        let shown = "\
0000000000001000 0000000000000064 T ring::aead::seal
0000000000001000 0000000000000064 t ring::aead::the_same
0000000000002000 0000000000000008 r <ring::aead::X as core::fmt::Debug>::NAMES
0000000000003000 0000000000000100 b ring::cpu::FEATURES
                 U nothing
";
        let share = SizeShare {
            name: "ring".to_owned(),
            code: 64,
            data: 8,
        };
        assert_eq!(crates(shown), [share]);
    }
}
