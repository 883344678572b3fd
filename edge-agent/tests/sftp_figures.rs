//! Measures the speed of our SFTP server beside OpenSSH's: the same client (`sftp -D`), the same files, in turns.
//! `cargo xtask bench sftp` runs it.
#![allow(clippy::disallowed_methods, reason = "it measures time")]
#![expect(
    clippy::unwrap_used,
    reason = "a measurement that cannot be made ends with a panic"
)]
#![expect(
    clippy::disallowed_macros,
    reason = "a test writes for who runs it, and may end when that fails"
)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const OURS: &str = concat!(env!("CARGO_BIN_EXE_edge-agent"), " internal-sftp");
const OPENSSH: &str = "/usr/lib/openssh/sftp-server";

const LARGE: usize = 128 * 1024 * 1024;
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
        "{ROUNDS} rounds in turns, in seconds: ours, OpenSSH's, and the ratio of theirs by ours (over 1 is \
         better). CPU is\nthat of the client and the server.\n{:<24} {:^22} {:^22} {:^22}",
        "", "median", "best", "CPU of all rounds"
    );
    for (what, batch) in [
        ("get, 128 MiB", "get large copy\n"),
        ("put, 128 MiB", "put large copy\n"),
        ("get -r, 2,000 of 3 kB", "get -r small copy\n"),
        ("put -r, 2,000 of 3 kB", "put -r small copy\n"),
        ("ls -l, 2,000 names", "ls -l small\n"),
    ] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(timed(OURS, folder, batch));
            theirs.push(timed(OPENSSH, folder, batch));
        }
        let (ours, theirs) = (Figures::of(ours), Figures::of(theirs));
        print!("{what:<24}");
        for (ours, theirs) in [
            (ours.median, theirs.median),
            (ours.best, theirs.best),
            (ours.cpu, theirs.cpu),
        ] {
            print!(" {ours:>7.3} {theirs:>7.3} {:>6.2}", theirs / ours);
        }
        println!();
    }
}

/// Of some rounds, in seconds.
struct Figures {
    median: f64,
    best: f64,
    /// Of all rounds: the kernel counts in steps of 10 ms.
    cpu: f64,
}

impl Figures {
    fn of(rounds: Vec<(f64, f64)>) -> Self {
        let (mut wall, cpu): (Vec<f64>, Vec<f64>) = rounds.into_iter().unzip();
        wall.sort_by(f64::total_cmp);
        Self {
            median: wall[wall.len() / 2],
            best: wall[0],
            cpu: cpu.iter().sum(),
        }
    }
}

/// Returns how long a batch takes, and the processor time of it.
fn timed(server: &str, folder: &Path, batch: &str) -> (f64, f64) {
    let copy = folder.join("copy");
    let _ = fs::remove_file(&copy);
    let _ = fs::remove_dir_all(&copy);
    let cpu = children_cpu();
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
    (began.elapsed().as_secs_f64(), children_cpu() - cpu)
}

/// Seconds that the processes have used whose end this one has seen, and theirs: `cutime` and `cstime` of
/// proc(5), in ticks of 10 ms.
fn children_cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(13).take(2);
    let ticks: u32 = ticks.map(|field| field.parse::<u32>().unwrap()).sum();
    f64::from(ticks) / 100.0
}
