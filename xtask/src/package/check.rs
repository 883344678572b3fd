//! The packages in a Debian of their own: `packaging/check.sh` is run by a systemd that is booted for it, and
//! `packaging/check-openrc.sh`, where the agent installs itself, by an OpenRC. The relay's container image is made
//! and run by `packaging/check-container.sh`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use super::{DEBIAN_NAMES, agents, fresh_folder, relay, write};
use crate::build::{self, BuildFolder};
use crate::process;
use crate::tools;
use crate::workspace::Workspace;

/// The unit that the system in the box starts last. In any case the box goes off.
const UNIT: &str = "\
[Unit]
Description=Try the packages
Requires=multi-user.target
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
ExecStart=/packages/check.sh
StandardOutput=append:/packages/check.log
StandardError=inherit
TimeoutStartSec=300
";

pub(super) fn run(workspace: &Workspace, out: &Path) -> Result<ExitCode> {
    tools::ensure(&[tools::DEBOOTSTRAP, tools::NSPAWN, tools::LINTIAN])?;
    let debian = debian(workspace, "debian", INCLUDE)?;
    let mut dpkg = Command::new("dpkg");
    let architecture = process::capture(dpkg.arg("--print-architecture"))?;
    let known = |(_, name): &&(&str, &str)| *name == architecture.trim();
    let Some((triple, _)) = DEBIAN_NAMES.iter().find(known) else {
        bail!(
            "there is no package of the agent for {}",
            architecture.trim()
        );
    };
    let mut packages = agents(workspace, &[(*triple).to_owned()], out)?;
    packages.push(relay(workspace, out)?);
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));

    let mut lintian = Command::new("lintian");
    // Ours are no part of a distribution: there is no bug to close, and nothing to share a library with.
    lintian.args(["--fail-on", "error", "--suppress-tags"]);
    lintian.arg("initial-upload-closes-no-bugs,statically-linked-binary,no-copyright-file");
    process::run_aside(lintian.args(&packages))?;

    let shared = fresh_folder(workspace, "check")?;
    for package in &packages {
        let name = package.file_name().context("a package has a name")?;
        super::place(package, &shared.join(name), 0o644)?;
    }
    for script in ["check.sh", "check-openrc.sh", "check-common.sh"] {
        let from = workspace.root.join("packaging").join(script);
        super::place(&from, &shared.join(script), 0o755)?;
    }
    let unit = shared.join("check.service");
    write(&unit, UNIT, 0o644)?;

    let mut systemd = in_box(&debian, &shared);
    systemd
        .arg(format!(
            "--bind-ro={}:/etc/systemd/system/check.service",
            unit.display()
        ))
        .args(["--boot", "--", "--unit=check.service"]);
    check_boot(systemd, &shared.join("check.log"))?;
    let mut openrc = in_box(&debian, &shared);
    openrc.args(["--", "/packages/check-openrc.sh", "boot"]);
    check_boot(openrc, &shared.join("check-openrc.log"))?;
    container(workspace, triple)?;
    Ok(ExitCode::SUCCESS)
}

/// The relay's image, made and run where nothing is but the loopback.
fn container(workspace: &Workspace, triple: &str) -> Result<()> {
    if let Err(error) = tools::ensure(&[tools::PODMAN, tools::CRUN, tools::IP]) {
        println!("the container image was not tried: {error:#}");
        return Ok(());
    }
    let base = debian(workspace, "debian-slim", RELAY_NEEDS)?;
    let work = fresh_folder(workspace, "container")?;
    let mut check = Command::new("unshare");
    check
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child"])
        .args(["--mount-proc", "timeout", "300"])
        .arg(workspace.root.join("packaging/check-container.sh"))
        .args([&workspace.root, &base])
        .arg(codename()?)
        .arg(build::program(
            &BuildFolder::of(workspace),
            triple,
            build::DEVICE,
        ))
        .arg(&work);
    process::run(check.stdin(Stdio::null()))
        .context("the container image did not bear it: what is above says where")?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

/// A box with `debian` in it and `shared` at `/packages`; what else happens in it is forgotten.
fn in_box(debian: &Path, shared: &Path) -> Command {
    let mut boot = Command::new("systemd-nspawn");
    boot.args([
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--private-network",
    ])
    .arg("--volatile=overlay")
    .arg("--directory")
    .arg(debian)
    .arg(format!("--bind={}:/packages", shared.display()));
    boot
}

/// Boots the box and shows what its check wrote; an error unless that ends well.
fn check_boot(mut boot: Command, log: &Path) -> Result<()> {
    let booted = process::run_aside(boot.stdin(Stdio::null()));
    let log = fs::read_to_string(log).unwrap_or_default();
    print!("{log}");
    if !log.ends_with("\npassed\n") {
        booted?;
        bail!("the packages failed the check: see the log above");
    }
    Ok(())
}

/// The packages that the box needs besides: two inits, of which either can be booted, and what the checks run.
const INCLUDE: &str = "systemd-sysv,init-system-helpers,openrc,openssh-client,minisign";

/// The dependencies of the relay's package, which any Debian has.
const RELAY_NEEDS: &str = "libc6,libgcc-s1";

/// A small Debian with the packages of `include` besides, made once.
fn debian(workspace: &Workspace, name: &str, include: &str) -> Result<PathBuf> {
    let root = workspace.tool_dir(name);
    let done = root.join("etc/made-for-checks");
    if !fs::read_to_string(&done).is_ok_and(|made| made == include) {
        if root.exists() {
            fs::remove_dir_all(&root)
                .with_context(|| format!("cannot remove {}", root.display()))?;
        }
        let mut make = Command::new("debootstrap");
        make.arg("--variant=minbase")
            .arg(format!("--include={include}"))
            // The relay's package fits the release that it was built on.
            .arg(codename()?);
        process::run_aside(make.arg(&root))?;
        write(&done, include, 0o644)?;
    }
    Ok(root)
}

/// Returns what this machine's release is called.
fn codename() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.context("/etc/os-release names no release")?.to_owned())
}
