//! `cargo xtask build`: the agent for a device, from any Linux machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::target::Target;
use crate::tools::{self, PythonTool};
use crate::workspace::{self, Workspace};

/// The cargo profile of what is shipped: no unwinding, smallest code.
pub(crate) const DEVICE: &str = "device";

/// The same program with its symbols.
pub(crate) const DEVICE_SYMBOLS: &str = "device-symbols";

/// Build edge-agent for a device
#[derive(clap::Args)]
#[command(
    after_help = "The path of the program is the last line on stdout; all else goes to stderr.

Examples:
  cargo xtask build --target aarch64-unknown-linux-musl        Pi 3, 4, 5 with a 64-bit system
  cargo xtask build --target armv7-unknown-linux-musleabihf    Pi 2, 3, 4 with a 32-bit system
  cargo xtask build --target arm-unknown-linux-musleabihf      Pi 1, Zero
  scp \"$(cargo xtask build --target x86_64-unknown-linux-musl)\" device:"
)]
pub(crate) struct Args {
    /// The target triple: one of the folders in targets/
    #[arg(long, value_name = "TRIPLE")]
    target: String,
    /// The cargo profile: `device` is the small one to ship
    #[arg(long, value_name = "NAME", default_value = DEVICE)]
    profile: String,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let target = Target::load(&workspace, &args.target)?;
    let place = BuildFolder::of(&workspace);
    let binary = agent(&workspace, &place, &target, &args.profile)?;
    println!("{}", binary.display());
    Ok(ExitCode::SUCCESS)
}

/// The folders of a build.
pub(crate) struct BuildFolder {
    /// The sources.
    pub(crate) root: PathBuf,
    /// The output of the compiler. A folder of its own: another compiler's leftovers would make both build
    /// everything anew.
    pub(crate) cross: PathBuf,
}

impl BuildFolder {
    /// The checkout itself.
    pub(crate) fn of(workspace: &Workspace) -> Self {
        Self {
            root: workspace.root.clone(),
            cross: workspace.tool_dir("cross"),
        }
    }
}

/// Builds the agent for one target, and gives the binary's path.
pub(crate) fn agent(
    workspace: &Workspace,
    place: &BuildFolder,
    target: &Target,
    profile: &str,
) -> Result<PathBuf> {
    let built = agents(workspace, place, &[target], profile)?;
    let binary = built.into_iter().next();
    binary.context("one agent was to be built")
}

/// Builds the agent for each target and gives the binaries' paths in the same order. Targets that go
/// by the same route and have nothing special share one cargo run, which keeps all cores busy.
pub(crate) fn agents(
    workspace: &Workspace,
    place: &BuildFolder,
    targets: &[&Target],
    profile: &str,
) -> Result<Vec<PathBuf>> {
    let routes = targets
        .iter()
        .map(|target| Route::best(workspace, target))
        .collect::<Result<Vec<_>>>()?;
    let bin = tools::python_env(workspace, &[PythonTool::Zig, PythonTool::Zigbuild])?;
    let mut runs: Vec<(Route, Vec<&Target>)> = Vec::new();
    for (&target, route) in targets.iter().zip(routes) {
        eprintln!("{}: {}", target.triple, route.sentence());
        let fits = |(of_run, members): &&mut (Route, Vec<&Target>)| {
            *of_run == route && members.iter().all(|member| member.goes_with(target))
        };
        match runs.iter_mut().find(fits) {
            Some((_, members)) => members.push(target),
            None => runs.push((route, vec![target])),
        }
    }
    for (route, members) in runs {
        let mut command = route.command(place, &bin)?;
        command
            .args([
                "zigbuild",
                "--package",
                "edge-agent",
                "--bin",
                "edge-agent",
                "--locked",
            ])
            .args(["--profile", profile])
            .env("CARGO_TARGET_DIR", &place.cross)
            .args(
                members
                    .iter()
                    .flat_map(|target| ["--target", target.triple.as_str()]),
            );
        let special = members.iter().flat_map(|target| &target.settings.features);
        command.args(special.flat_map(|feature| ["--features", feature]));
        let includes: Vec<_> = members
            .iter()
            .filter_map(|target| target.include(&place.root))
            .collect();
        route.add_flags(&mut command, place, profile, &includes)?;
        process::run_aside(&mut command)?;
    }
    let mut binaries = Vec::new();
    for target in targets {
        let binary = program(place, &target.triple, profile);
        if profile == DEVICE {
            check_size(&binary, target)?;
        }
        binaries.push(binary);
    }
    Ok(binaries)
}

/// Returns where the agent for `triple` is once it is built.
pub(crate) fn program(place: &BuildFolder, triple: &str, profile: &str) -> PathBuf {
    let folder = if profile == "dev" { "debug" } else { profile };
    place.cross.join(triple).join(folder).join("edge-agent")
}

/// Nothing is shipped that does not fit.
fn check_size(binary: &Path, target: &Target) -> Result<()> {
    let size = fs::metadata(binary)
        .with_context(|| format!("cannot find {}", binary.display()))?
        .len();
    let max = target.settings.size_max;
    if size > max {
        bail!(
            "{} is {size} bytes, over its size-max of {max} (of one with a standard library that is built from source)",
            binary.display()
        );
    }
    Ok(())
}

/// The source of the target's standard library. Zig is linker and C compiler on all routes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    /// The toolchain has the target installed (`rustup target add`).
    ToolchainStd,
    /// Built from the source in the toolchain (`rustup component add rust-src`).
    ToolchainSource,
    /// Built from Debian's source package by Debian's compiler.
    DebianSource,
}

impl Route {
    /// Returns the best route for `target`, and installs Debian's toolchain where it needs that and may. A standard
    /// library that is built from its source comes first: the ready-made one has the reader of backtraces, which takes
    /// the agent above its size.
    fn best(workspace: &Workspace, target: &Target) -> Result<Self> {
        let sysroot = sysroot(workspace)?;
        let rustlib = sysroot.join("lib/rustlib");
        if rustlib.join("src/rust/library/Cargo.lock").is_file() {
            return Ok(Self::ToolchainSource);
        }
        match tools::ensure(&tools::DEBIAN_RUST) {
            Ok(()) => Ok(Self::DebianSource),
            Err(_) if has_std(&rustlib.join(&target.triple).join("lib")) => Ok(Self::ToolchainStd),
            Err(error) => Err(error).with_context(|| {
                format!(
                    "this Rust toolchain has no standard library for {}: `rustup component add rust-src` is one way, \
                     Debian's compiler another",
                    target.triple
                )
            }),
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::ToolchainStd => "standard library of the Rust toolchain, zig as linker",
            Self::ToolchainSource => {
                "standard library built from the toolchain's rust-src, zig as linker"
            }
            Self::DebianSource => {
                "standard library built from Debian's rust-web-src by /usr/bin/rustc, zig as linker"
            }
        }
    }

    fn command(self, place: &BuildFolder, bin: &Path) -> Result<Command> {
        let mut command = Command::new(bin.join("cargo-zigbuild"));
        command.current_dir(&place.root);
        workspace::forget_package(&mut command);
        match self {
            Self::ToolchainStd | Self::ToolchainSource => {
                // cargo-zigbuild finds zig through the python3 on PATH.
                command.env("PATH", tools::path_with(&[bin])?);
            }
            Self::DebianSource => {
                command
                    .env("PATH", tools::path_with(&[bin, Path::new("/usr/bin")])?)
                    .env("CARGO", "/usr/bin/cargo")
                    .env("RUSTC", "/usr/bin/rustc")
                    // What rustup set for us is of the other toolchain.
                    .env_remove("RUSTUP_TOOLCHAIN");
            }
        }
        Ok(command)
    }

    /// `includes`: what the C compiler reads first.
    fn add_flags(
        self,
        command: &mut Command,
        place: &BuildFolder,
        profile: &str,
        includes: &[PathBuf],
    ) -> Result<()> {
        let mut rustflags = Vec::new();
        let mut cflags = Vec::new();
        for include in includes {
            cflags.push("-include".to_owned());
            cflags.push(include.display().to_string());
        }
        // The same program comes out wherever it is built.
        // (What is compiled may lie within the sources: the last that fits counts.)
        for (from, to) in [
            (cargo_home()?, "/cargo"),
            (place.root.clone(), "/holdfast"),
            (place.cross.clone(), "/target"),
        ] {
            let from = from.display();
            rustflags.push(format!("--remap-path-prefix={from}={to}"));
            cflags.push(format!("-ffile-prefix-map={from}={to}"));
        }
        if [DEVICE, DEVICE_SYMBOLS].contains(&profile) {
            // Nothing unwinds there: the tables for it would be a seventh of the program.
            rustflags.push("-Cforce-unwind-tables=no".to_owned());
            cflags.push("-fno-unwind-tables".to_owned());
            cflags.push("-fno-asynchronous-unwind-tables".to_owned());
        }
        if self != Self::ToolchainStd {
            // A standard library from source has no start files beside it: zig brings them.
            rustflags.push("-Clink-self-contained=no".to_owned());
            command
                // Without std's backtrace support: the agent ships stripped, so a trace would hold no
                // names, and its reader costs a third of the binary.
                .args([
                    "-Z",
                    "build-std=std,panic_abort",
                    "-Z",
                    "build-std-features=",
                ])
                // `-Z` on a stable compiler: building the standard library is not stable yet.
                .env("RUSTC_BOOTSTRAP", "1");
        }
        command
            // The one form in which a path with a space is one flag.
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags.join("\x1f"))
            .env("CFLAGS", shell_words::join(&cflags))
            .env("CC_SHELL_ESCAPED_FLAGS", "1")
            .env("SOURCE_DATE_EPOCH", "0")
            .env_remove("RUSTFLAGS");
        Ok(())
    }
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = std::env::home_dir().context("no home folder to find cargo's in")?;
    Ok(home.join(".cargo"))
}

fn sysroot(workspace: &Workspace) -> Result<PathBuf> {
    let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut rustc = Command::new(program);
    rustc
        .args(["--print", "sysroot"])
        .current_dir(&workspace.root);
    Ok(PathBuf::from(process::capture(&mut rustc)?.trim()))
}

fn has_std(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
    })
}
