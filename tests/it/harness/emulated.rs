//! Agents for other processors, run by qemu on this machine.
//!
//! An agent starts itself once more for each session, by `/proc/self/exe`, so that qemu in front of the
//! first one is not enough: the kernel must know what to do with such a program. It is configured in a user
//! namespace that lives as long as the agent does, and not for the whole machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

use super::Device;

/// The place where the programs are: a JSON object of triples, each with `program` and `runner`. `cargo xtask test`
/// writes it when it has built them.
const VARIABLE: &str = "HOLDFAST_EMULATED";

/// The ELF header that qemu's own registrations go by, after its first four bytes: class and byte order,
/// what may be anything, the type (2: a program at a fixed address), the machine.
const MACHINES: [(&str, &str, &str); 4] = [
    ("aarch64", "02", "b7"),
    ("armv7", "01", "28"),
    ("arm", "01", "28"),
    ("riscv64gc", "02", "f3"),
];

/// Enters the namespaces and becomes the program; `$0` is what to register. Only a process outside may
/// write what the ids inside stand for, and it says by the pipe when it has.
const ENTER: &str = r#"
go=$(mktemp -u)
mkfifo "$go"
(
    until [ "$(readlink /proc/$$/ns/user)" != "$(readlink /proc/self/ns/user)" ]; do
        kill -0 $$ || exit
    done
    echo 0 0 65536 > /proc/$$/uid_map
    echo 0 0 65536 > /proc/$$/gid_map
    echo > "$go"
) &
exec unshare --user --mount sh -c '
    read -r _ < "$0" && rm "$0" && mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc &&
    printf %s "$1" > /proc/sys/fs/binfmt_misc/register && shift && exec "$@"
' "$go" "$0" "$@"
"#;

/// An agent for another processor, and what it takes to run it here.
pub(crate) struct Emulated {
    program: PathBuf,
    registration: String,
    folder: TempDir,
}

impl Emulated {
    /// The one for `triple`.
    pub(crate) fn of(triple: &str) -> Self {
        Self::run_by(triple, |runner| runner.join(" "))
    }

    /// The one for `triple`, whose clock shows another time: `env` is what makes a program of this machine see it.
    /// The emulator must then be one that asks libc for the time.
    pub(crate) fn with_clock(triple: &str, env: &[(&str, &str)]) -> Self {
        let env: Vec<String> = env
            .iter()
            .map(|(name, value)| format!("{name}='{value}'"))
            .collect();
        Self::run_by(triple, |runner| {
            let emulator = runner[0].trim_end_matches("-static");
            format!("env {} {emulator} {}", env.join(" "), runner[1..].join(" "))
        })
    }

    fn run_by(triple: &str, line: impl FnOnce(&[&str]) -> String) -> Self {
        let list = std::env::var_os(VARIABLE).unwrap_or_else(|| {
            panic!("{VARIABLE} names no programs: run this by `cargo xtask test --only cross`")
        });
        let list: serde_json::Value = serde_json::from_slice(&fs::read(list).unwrap()).unwrap();
        let program = list[triple]["program"].as_str().expect("a built program");
        let runner = list[triple]["runner"].as_array().expect("an emulator");
        let runner: Vec<&str> = runner.iter().map(|word| word.as_str().unwrap()).collect();

        let folder = tempfile::tempdir().unwrap();
        // The kernel takes one file and no arguments.
        let interpreter = folder.path().join("run");
        let script = format!("#!/bin/sh\nexec {} \"$@\"\n", line(&runner));
        fs::write(&interpreter, script).unwrap();
        fs::set_permissions(&interpreter, fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            program: program.into(),
            registration: registration(triple, interpreter.to_str().unwrap()),
            folder,
        }
    }

    /// A device that runs it. This must outlive the device.
    pub(crate) fn device(&self, name: &str) -> Device {
        Device::new(name)
            .wrapped(&["sh", "-euc", ENTER, &self.registration])
            .env("TMPDIR", self.folder.path())
            .program(self.program.clone())
    }
}

/// A line for `/proc/sys/fs/binfmt_misc/register`.
fn registration(triple: &str, interpreter: &str) -> String {
    let isa = triple.split('-').next().unwrap_or_default();
    let (_, class, machine) = MACHINES
        .iter()
        .find(|(name, ..)| *name == isa)
        .unwrap_or_else(|| panic!("no ELF machine is known for {triple}"));
    let any = r"\x00".repeat(8);
    let magic = format!(r"\x7fELF\x{class}\x01\x01\x00{any}\x02\x00\x{machine}\x00");
    let mask = format!(r"\xff\xff\xff\xff\xff\xff\xff\x00{any}\xfe\xff\xff\xff");
    format!(":holdfast:M::{magic}:{mask}:{interpreter}:")
}
