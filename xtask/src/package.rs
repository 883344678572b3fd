//! `cargo xtask package`: what is handed to people who install it.

mod check;
mod deb;
mod sbom;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::build::{self, BuildFolder};
use crate::process;
use crate::target::Target;
use crate::tools;
use crate::workspace::Workspace;
use deb::Deb;

/// Make Debian packages, tarballs and bills of materials
#[derive(clap::Args)]
#[command(
    after_help = "The paths of what was made are printed on stdout, SHA256SUMS last. The agent's packages need no
shared library and fit any Debian, Ubuntu or Raspberry Pi OS; the relay's fits the release it was built on.
For each program a CycloneDX file says what went into it.

Examples:
  cargo xtask package                                        all of it, into target/package
  cargo xtask package --target aarch64-unknown-linux-musl    the agent for one target
  cargo xtask package --relay --out /tmp/packages            the relay alone
  cargo xtask package --check                                those for this machine and the relay's container, tried"
)]
pub(crate) struct Args {
    /// Only the agent for this triple; may be given more than once
    #[arg(long, value_name = "TRIPLE")]
    target: Vec<String>,
    /// Only the relay, or the relay beside what --target names
    #[arg(long)]
    relay: bool,
    /// Install, start, upgrade, remove and purge them in a Debian with an init of its own, and run the relay's
    /// container; needs root
    #[arg(long, conflicts_with_all = ["target", "relay"])]
    check: bool,
    /// The folder to put them into
    #[arg(long, value_name = "DIR", default_value = "target/package")]
    out: PathBuf,
}

/// Debian's names for the processors of a triple. ARMv6 programs run on all that it calls armhf, Raspberry
/// Pi OS on the first Pi included.
const DEBIAN_NAMES: [(&str, &str); 3] = [
    ("aarch64-unknown-linux-musl", "arm64"),
    ("arm-unknown-linux-musleabihf", "armhf"),
    ("x86_64-unknown-linux-musl", "amd64"),
];

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    tools::ensure(&[tools::DPKG_DEB])?;
    let out = workspace.root.join(&args.out);
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    if args.check {
        return check::run(&workspace, &out);
    }
    let everything = args.target.is_empty() && !args.relay;

    let mut made = Vec::new();
    if everything || !args.target.is_empty() {
        made.extend(agents(&workspace, &args.target, &out)?);
    }
    if everything || args.relay {
        made.push(relay(&workspace, &out)?);
        let host = workspace.host()?;
        made.push(sbom::write(&workspace, "relay", &host, &out)?);
    }
    made.push(sums(&out, &made)?);
    for path in made {
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn agents(workspace: &Workspace, triples: &[String], out: &Path) -> Result<Vec<PathBuf>> {
    let targets = if triples.is_empty() {
        Target::all(workspace)?
    } else {
        let load = |triple: &String| Target::load(workspace, triple);
        triples.iter().map(load).collect::<Result<_>>()?
    };
    let members: Vec<&Target> = targets.iter().collect();
    let place = BuildFolder::of(workspace);
    let binaries = build::agents(workspace, &place, &members, build::DEVICE)?;
    let mut made = Vec::new();
    for (target, binary) in targets.iter().zip(&binaries) {
        let triple = target.triple.as_str();
        made.push(tarball(workspace, triple, binary, out)?);
        let debian = DEBIAN_NAMES.iter().find(|(known, _)| *known == triple);
        if let Some((_, architecture)) = debian {
            made.push(agent_package(workspace, architecture, binary)?.build(workspace, out)?);
        }
        made.push(sbom::write(workspace, "edge-agent", triple, out)?);
    }
    Ok(made)
}

/// The command of the packaged unit: flags go into a file of the administrator's.
const AGENT_COMMAND: &str = "/usr/bin/edge-agent run $AGENT_FLAGS
# AGENT_FLAGS=\"--keepalive 45s\"
EnvironmentFile=-/etc/default/edge-agent";

/// The command of the packaged unit before each start, if the previous version is there.
const AGENT_GUARD: &str = "/usr/bin/edge-agent.previous internal-guard --state /var/lib/edge-agent";

fn agent_package(workspace: &Workspace, architecture: &str, binary: &Path) -> Result<Deb> {
    let template = workspace
        .root
        .join("edge-agent/src/service/install/edge-agent.service");
    let unit = read(&template)?
        .replace("@MEMBERSHIP@", "/var/lib/edge-agent/membership")
        .replace("@GUARD@", AGENT_GUARD)
        .replace("@COMMAND@", AGENT_COMMAND);
    Ok(Deb {
        name: "edge-agent",
        program: "edge-agent",
        architecture: architecture.to_owned(),
        depends: None,
        summary: "reach this device behind NAT with a stock ssh",
        description: "The agent of Holdfast keeps a QUIC tunnel open to a relay, through which\n \
                      operators log in with a stock ssh. Sessions are recorded on the device and\n \
                      uploaded when the link has room.",
        binary: binary.to_owned(),
        manual: manual(workspace, "edge-agent")?,
        unit_name: "edge-agent.service",
        unit,
        state: "/var/lib/edge-agent",
    })
}

fn relay(workspace: &Workspace, out: &Path) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo.args([
        "build",
        "--release",
        "--locked",
        "--package",
        "relay",
        "--bin",
        "relay",
    ]);
    process::run_aside(&mut cargo)?;
    let mut dpkg = Command::new("dpkg");
    let architecture = process::capture(dpkg.arg("--print-architecture"))?;
    Deb {
        name: "holdfast-relay",
        program: "relay",
        architecture: architecture.trim().to_owned(),
        depends: Some("libc6, libgcc-s1"),
        summary: "relay between operators' ssh and devices behind NAT",
        description: "The relay of Holdfast takes operators' ssh connections on one side and devices'\n \
                      QUIC tunnels on the other, and decides who may do what, how much and for how\n \
                      long. It keeps the audit log and the recordings.",
        binary: workspace.target.join("release/relay"),
        manual: manual(workspace, "relay")?,
        unit_name: "holdfast-relay.service",
        unit: read(&workspace.root.join("packaging/holdfast-relay.service"))?,
        // What DynamicUser= makes of StateDirectory=.
        state: "/var/lib/private/holdfast /var/lib/holdfast",
    }
    .build(workspace, out)
}

/// The manual pages of a program, out of its own command tree.
fn manual(workspace: &Workspace, package: &str) -> Result<PathBuf> {
    let folder = fresh_folder(workspace, &format!("{package}-manual"))?;
    let mut man = workspace.cargo();
    man.args(["run", "--locked", "--package", package, "--example", "man"]);
    process::run_aside(man.arg("--").arg(&folder))?;
    Ok(folder)
}

/// The program and how to begin, for devices without Debian's packages.
fn tarball(workspace: &Workspace, triple: &str, binary: &Path, out: &Path) -> Result<PathBuf> {
    let name = format!("edge-agent-{}-{triple}", env!("CARGO_PKG_VERSION"));
    let folder = fresh_folder(workspace, &name)?;
    let inner = folder.join(&name);
    place(binary, &inner.join("edge-agent"), 0o755)?;
    let readme = "\
Copy edge-agent to the device, and then, on the device, as root:

    ./edge-agent join TOKEN --name NAME      TOKEN: what `relay token create` printed
    ./edge-agent install                     a service of systemd, OpenRC or procd

./edge-agent --help tells the rest.
";
    write(&inner.join("README"), readme, 0o644)?;
    let path = out.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    // The same bytes from the same program, wherever and whenever it is packed.
    tar.args([
        "--create",
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
    ])
    .args(["--mtime=@0", "--use-compress-program=gzip -9n", "--file"])
    .arg(&path)
    .arg("--directory")
    .arg(&folder)
    .arg(&name);
    process::run_aside(&mut tar)?;
    Ok(path)
}

fn sums(out: &Path, made: &[PathBuf]) -> Result<PathBuf> {
    let names: Vec<_> = made.iter().filter_map(|path| path.file_name()).collect();
    let mut sum = Command::new("sha256sum");
    let sums = process::capture(sum.current_dir(out).arg("--").args(names))?;
    let path = out.join("SHA256SUMS");
    write(&path, &sums, 0o644)?;
    Ok(path)
}

/// An empty folder of this name to put a package together in.
fn fresh_folder(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let folder = workspace.tool_dir("package").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    make_parent(path)?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    set_mode(path, mode)
}

fn place(from: &Path, to: &Path, mode: u32) -> Result<()> {
    make_parent(to)?;
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    set_mode(to, mode)
}

fn make_parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else {
        bail!("{} is in no folder", path.display());
    };
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot change the mode of {}", path.display()))
}
