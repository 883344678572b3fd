//! How fast our SFTP server is beside OpenSSH's: the same client (`sftp -D`), the same files, in turns.
//! `cargo xtask bench sftp` runs it.
#![expect(
    clippy::unwrap_used,
    reason = "a measurement that cannot be made ends with a panic"
)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const OURS: &str = concat!(env!("CARGO_BIN_EXE_edge-agent"), " internal-sftp");
const OPENSSH: &str = "/usr/lib/openssh/sftp-server";

const LARGE: usize = 512 * 1024 * 1024;
const SMALL_FILES: usize = 2_000;
const SMALL: usize = 3_000;
const ROUNDS: usize = 9;

#[test]
#[ignore = "a measurement: `cargo xtask bench sftp`"]
fn beside_openssh() {
    if !Path::new(OPENSSH).exists() {
        println!("{OPENSSH} is not here: nothing to compare with");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("large"), vec![7; LARGE]).unwrap();
    fs::create_dir(folder.join("small")).unwrap();
    for number in 0..SMALL_FILES {
        let name = format!("small/file-{number:04}");
        fs::write(folder.join(name), vec![7; SMALL]).unwrap();
    }
    println!(
        "medians of {ROUNDS} in turns; ratio: OpenSSH's time by ours, over 1 is better\n\
         {:<24} {:>9} {:>9} {:>6}",
        "", "ours, s", "OpenSSH", "ratio"
    );
    for (what, batch) in [
        ("get, 512 MiB", "get large copy\n"),
        ("put, 512 MiB", "put large copy\n"),
        ("get -r, 2,000 of 3 kB", "get -r small copy\n"),
        ("put -r, 2,000 of 3 kB", "put -r small copy\n"),
        ("ls -l, 2,000 names", "ls -l small\n"),
    ] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(seconds(OURS, folder, batch));
            theirs.push(seconds(OPENSSH, folder, batch));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!(
            "{what:<24} {ours:>9.3} {theirs:>9.3} {:>6.2}",
            theirs / ours
        );
    }
}

fn seconds(server: &str, folder: &Path, batch: &str) -> f64 {
    let copy = folder.join("copy");
    let _ = fs::remove_file(&copy);
    let _ = fs::remove_dir_all(&copy);
    rustix::fs::sync();
    let mut sftp = Command::new("sftp")
        .args(["-q", "-b", "-", "-D", server])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let mut stdin = sftp.stdin.take().unwrap();
    stdin.write_all(batch.as_bytes()).unwrap();
    drop(stdin);
    assert!(sftp.wait().unwrap().success());
    began.elapsed().as_secs_f64()
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
