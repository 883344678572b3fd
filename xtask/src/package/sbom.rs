//! The bill of materials of a program, in CycloneDX's JSON (ECMA-424).
//!
//! It is made of what `cargo tree` says of the one package. The tools that make such bills look at the
//! workspace as a whole, and would name the relay's cryptography among the agent's parts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{read, write as write_file};
use crate::process;
use crate::workspace::Workspace;

/// Writes the bill of `package` as it is built for `triple`, and gives its path.
pub(super) fn write(
    workspace: &Workspace,
    package: &str,
    triple: &str,
    out: &Path,
) -> Result<PathBuf> {
    let mut tree = workspace.cargo();
    tree.args(["tree", "--locked", "--package", package, "--target", triple])
        // Build scripts and macros leave nothing of themselves in the program.
        .args(["--edges", "normal,no-proc-macro", "--prefix", "none"])
        .args(["--format", "{p}|{l}"]);
    let tree = process::capture(&mut tree)?;
    let sums = checksums(&read(&workspace.root.join("Cargo.lock"))?)?;
    let bill = bill(package, &tree, &sums);
    let version = env!("CARGO_PKG_VERSION");
    let path = out.join(format!("{package}-{version}-{triple}.cdx.json"));
    write_file(&path, &format!("{bill:#}\n"), 0o644)?;
    Ok(path)
}

#[derive(Deserialize)]
struct CargoLock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    /// Of the file that it comes in; our own packages have none.
    checksum: Option<String>,
}

type Checksums = BTreeMap<(String, String), String>;

fn checksums(lock: &str) -> Result<Checksums> {
    let lock: CargoLock = toml::from_str(lock).context("cannot read Cargo.lock")?;
    let packages = lock.package.into_iter();
    Ok(packages
        .filter_map(|package| Some(((package.name, package.version), package.checksum?)))
        .collect())
}

/// Of lines like `NAME vVERSION (WHERE)|LICENCE`: the first is the program itself, and each may come again.
fn bill(package: &str, tree: &str, sums: &Checksums) -> Value {
    let parts: BTreeSet<(&str, &str, &str, bool)> = tree
        .lines()
        .filter_map(|line| {
            // A part that comes again is marked so.
            let line = line.strip_suffix(" (*)").unwrap_or(line);
            let (part, licence) = line.split_once('|')?;
            let mut words = part.split(' ');
            let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
            let is_vendored = part.ends_with(&format!("/vendor/{name})"));
            Some((name, version, licence, is_vendored))
        })
        .collect();
    let components: Vec<Value> = parts
        .iter()
        .filter(|(name, ..)| *name != package)
        .map(|(name, version, licence, is_vendored)| {
            let mut component = component(name, version, licence, sums);
            if *is_vendored {
                note_patch(&mut component, name, version);
            }
            component
        })
        .collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "name": package, "version": env!("CARGO_PKG_VERSION"),
        } },
        "components": components,
    })
}

fn component(name: &str, version: &str, licence: &str, sums: &Checksums) -> Value {
    let mut component = json!({ "type": "library", "name": name, "version": version });
    if !licence.is_empty() {
        // As it was written before SPDX had expressions.
        let expression = licence.replace('/', " OR ");
        component["licenses"] = json!([{ "expression": expression }]);
    }
    if let Some(sum) = sums.get(&(name.to_owned(), version.to_owned())) {
        component["purl"] = json!(format!("pkg:cargo/{name}@{version}"));
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    component
}

/// Notes of a crate in `vendor/` which one of the registry it is, for a look-up of its advisories, and that it has a
/// patch.
fn note_patch(component: &mut Value, name: &str, version: &str) {
    component["purl"] = json!(format!("pkg:cargo/{name}@{version}"));
    let diff = json!({ "url": format!("vendor/{name}.patch") });
    component["pedigree"] = json!({ "patches": [{ "type": "unofficial", "diff": diff }] });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_named_once_with_where_it_came_from() {
        let tree = "agent v0.1.0 (/src/agent)|\nring v0.17.14|Apache-2.0 AND ISC\n\
                    own v0.1.0 (/src/own)|\nring v0.17.14|Apache-2.0 AND ISC (*)\nold v1.0.0|MIT/Apache-2.0\n\
                    patched v2.0.0 (/src/vendor/patched)|MIT\n";
        let lock = "[[package]]\nname = \"ring\"\nversion = \"0.17.14\"\nchecksum = \"a4\"\n\
                    [[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
        let bill = bill("agent", tree, &checksums(lock).unwrap());
        assert_eq!(bill["metadata"]["component"]["name"], "agent");
        let names: Vec<&Value> = bill["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| &part["name"])
            .collect();
        assert_eq!(names, ["old", "own", "patched", "ring"]);
        let [old, own, patched, ring] = [0, 1, 2, 3].map(|at| &bill["components"][at]);
        assert_eq!(old["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(own.get("purl"), None);
        assert_eq!(patched["purl"], "pkg:cargo/patched@2.0.0");
        let diff = &patched["pedigree"]["patches"][0]["diff"];
        assert_eq!(diff["url"], "vendor/patched.patch");
        assert_eq!(own.get("pedigree"), None);
        assert_eq!(ring["purl"], "pkg:cargo/ring@0.17.14");
        assert_eq!(ring["hashes"][0]["content"], "a4");
    }
}
