//! Checks how hard a program is to attack by what its ELF file says, as `readelf` shows it.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde::Deserialize;

use crate::process;
use crate::tools;

/// `targets/TRIPLE/hardening.json`, and what was found in a program.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Hardening {
    /// No interpreter and no shared libraries.
    #[serde(rename = "static")]
    is_static: bool,
    relro: Relro,
    /// It says that its stack and data are not to be executed.
    nx: bool,
    executable_stack: bool,
    /// A segment is writable and executable.
    writable_code: bool,
    pie: bool,
    /// The reason why it is none.
    #[serde(default)]
    pie_reason: Option<String>,
    /// `Tag_CPU_arch` of 32-bit ARM programs: the oldest processors that run all of it.
    arm_architecture: Option<String>,
}

/// The part of the tables filled in at the start that is read-only afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Relro {
    Full,
    Partial,
    None,
}

impl Hardening {
    /// Returns what `program` has.
    pub(crate) fn of(program: &Path) -> Result<Self> {
        tools::ensure(&[tools::READELF])?;
        let mut readelf = Command::new("readelf");
        readelf.args([
            "--wide",
            "--file-header",
            "--segments",
            "--dynamic",
            "--arch-specific",
        ]);
        let shown = process::capture(readelf.env("LC_ALL", "C").arg(program))?;
        Ok(Self::in_words_of_readelf(&shown))
    }

    fn in_words_of_readelf(shown: &str) -> Self {
        let segments: Vec<Vec<&str>> = shown
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| words.len() >= 8 && words.get(1).is_some_and(|w| w.starts_with("0x")))
            .collect();
        let named = |name: &str| {
            let name = name.to_owned();
            segments
                .iter()
                .filter(move |words| words.first().is_some_and(|first| *first == name))
        };
        // "R E" and "RWE" are one or two words, between six numbers and the alignment.
        let flags = |words: &[&str]| words.get(6..words.len() - 1).unwrap_or_default().concat();
        let stack = named("GNU_STACK").next().map(|words| flags(words));
        let has_relro = named("GNU_RELRO").next().is_some();
        // Without a dynamic linker everything is bound before the program begins.
        let bound_at_once = shown.contains("There is no dynamic section")
            || shown
                .lines()
                .any(|line| line.contains("BIND_NOW") || line.contains("Flags: NOW"));
        Self {
            is_static: named("INTERP").next().is_none() && !shown.contains("(NEEDED)"),
            relro: match (has_relro, bound_at_once) {
                (true, true) => Relro::Full,
                (true, false) => Relro::Partial,
                (false, _) => Relro::None,
            },
            nx: stack.as_deref() == Some("RW"),
            executable_stack: stack.is_none_or(|flags| flags.contains('E')),
            writable_code: named("LOAD").any(|words| flags(words) == "RWE"),
            pie: shown
                .lines()
                .any(|line| line.trim_start().starts_with("Type:") && line.contains("DYN")),
            pie_reason: None,
            arm_architecture: shown
                .lines()
                .find_map(|line| line.trim().strip_prefix("Tag_CPU_arch: "))
                .map(str::to_owned),
        }
    }

    /// Returns whether the program is for ARMv6.
    pub(crate) fn is_armv6(&self) -> bool {
        self.arm_architecture.as_deref() == Some("v6")
    }

    /// In what `found` differs from this; `None` if it is as it should be.
    pub(crate) fn difference(&self, found: &Self) -> Option<String> {
        let expected = Self {
            pie_reason: None,
            arm_architecture: self.arm_architecture.clone(),
            ..*self
        };
        if !self.pie && self.pie_reason.is_none() {
            Some("no reason is given why it is not position-independent".to_owned())
        } else if expected == *found {
            None
        } else {
            Some(format!("{expected:?} expected, {found:?} found"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATIC: &str = "\
  Type:                              EXEC (Executable file)
  LOAD           0x000000 0x0000000001000000 0x0000000001000000 0x029638 0x029638 R   0x1000
  LOAD           0x029640 0x000000000102a640 0x000000000102a640 0x15f09f 0x15f09f R E 0x1000
  LOAD           0x1886e0 0x000000000118a6e0 0x000000000118a6e0 0x00bf58 0x00c920 RW  0x1000
  GNU_RELRO      0x1886e0 0x000000000118a6e0 0x000000000118a6e0 0x00bf58 0x00c920 R   0x1
  GNU_STACK      0x000000 0x0000000000000000 0x0000000000000000 0x000000 0x1000000 RW  0
There is no dynamic section in this file.
Attribute Section: aeabi
File Attributes
  Tag_CPU_name: \"arm1176jzf-s\"
  Tag_CPU_arch: v6
";

    fn wanted() -> Hardening {
        let file = r#"{"static": true, "relro": "full", "nx": true, "executable-stack": false,
            "writable-code": false, "pie": false, "pie-reason": "fixed", "arm-architecture": "v6"}"#;
        serde_json::from_str(file).unwrap()
    }

    #[test]
    fn a_program_as_it_should_be_has_no_difference() {
        let found = Hardening::in_words_of_readelf(STATIC);
        assert_eq!(wanted().difference(&found), None);
    }

    #[test]
    fn each_weakness_is_seen() {
        for (from, to) in [
            ("RW  0\n", "RWE 0\n"),
            ("0x00c920 RW  0x1000", "0x00c920 RWE 0x1000"),
            ("  GNU_RELRO ", "  GNU_NOTHING "),
            ("  GNU_STACK ", "  GNU_NOTHING "),
            ("There is no dynamic section in this file.", ""),
            (
                "There is no",
                " 0x0000000000000001 (NEEDED) Shared library: [libc.so.6]\nThere is no",
            ),
            ("Tag_CPU_arch: v6", "Tag_CPU_arch: v7"),
            (
                "EXEC (Executable file)",
                "DYN (Position-Independent Executable file)",
            ),
        ] {
            let weak = STATIC.replace(from, to);
            assert_ne!(weak, STATIC, "{from}");
            let found = Hardening::in_words_of_readelf(&weak);
            assert!(wanted().difference(&found).is_some(), "{from} -> {to}");
        }
    }

    #[test]
    fn a_fixed_address_needs_a_reason() {
        let without = Hardening {
            pie_reason: None,
            ..wanted()
        };
        let found = Hardening::in_words_of_readelf(STATIC);
        let difference = without.difference(&found).unwrap();
        assert!(difference.contains("reason"), "{difference}");
    }
}
