//! Reads both programs' sources: text leaves them by the few places that escape it, and by no others.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set its stage must fail"
)]

use std::path::{Path, PathBuf};

/// The calls that write, and the files or folders that may hold them.
const WAYS: &[(&str, &[&str])] = &[
    // The text of people.
    ("println!(", &[]),
    ("print!(", &[]),
    ("dbg!(", &[]),
    // `output` is for commands, `log` for the log, `sink` for the audit log's lines of JSON; `fleet` asks whether it
    // is a terminal, and the helper of a session is not the agent any more.
    (
        "io::stdout()",
        &[
            "relay/src/entry/cli.rs",
            "relay/src/serve.rs",
            "relay/src/entry/cli/bulk.rs",
            "relay/src/audit/sink.rs",
            "edge-agent/src/os/output.rs",
        ],
    ),
    (
        "io::stderr()",
        &[
            "relay/src/output.rs",
            "relay/src/log.rs",
            "relay/src/entry/cli.rs",
            "relay/src/entry/cli/bulk.rs",
            "edge-agent/src/os/output.rs",
            "edge-agent/src/os/log.rs",
            "edge-agent/src/session/launch/helper.rs",
        ],
    ),
    ("tracing_subscriber::fmt()", &[]),
    ("tracing_subscriber::fmt::layer()", &["relay/src/log.rs"]),
    // JSON that leaves a program; the others write it into the store or a file, where it is data.
    (
        "serde_json::to_",
        &[
            "relay/src/json.rs",
            "relay/src/recording/objects/backend.rs",
            "relay/src/recording/verify/mod.rs",
            "relay/src/store/",
            "relay/src/commands/recordings/show.rs",
            "edge-agent/src/main.rs",
            "edge-agent/src/service/status_socket.rs",
            "edge-agent/src/service/upgrade/",
        ],
    ),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Returns what is compiled into the program: without tests at the end of a file, and without comments.
fn program(text: &str) -> String {
    let code = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text);
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn text_leaves_both_programs_by_the_ways_that_escape_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    for program in ["relay/src", "edge-agent/src"] {
        sources(&root.join(program), &mut found);
    }
    assert!(found.len() > 200, "{}", found.len());
    let mut wrong = Vec::new();
    let mut used = vec![0; WAYS.len()];
    for path in found {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap();
        if name.contains("/tests") || name.contains("src/figures") {
            continue;
        }
        let code = program(&std::fs::read_to_string(&path).unwrap());
        for ((way, allowed), used) in WAYS.iter().zip(&mut used) {
            if !code.contains(way) {
                continue;
            }
            *used += 1;
            if !allowed.iter().any(|file| name.starts_with(file)) {
                wrong.push(format!("{name}: {way}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // What is never found is spelt wrong here.
    for ((way, allowed), used) in WAYS.iter().zip(used) {
        assert!(used > 0 || allowed.is_empty(), "{way}");
    }
}
