//! Measures what recording costs, end to end: `cargo xtask bench recording` runs this.

use std::fs::File;
use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{
    Device, Echo, Relay, Running, SOON, Site, User, Way, memory, own_login, run, wait_until,
};

const MIB: u64 = 1 << 20;

/// The bytes that are copied in a round.
const BULK: u64 = 128 * MIB;
const ROUNDS: usize = 5;
const ECHOES: usize = 1_000;
/// Sessions that are open at once.
const SESSIONS: u64 = 12;

#[test]
#[ignore = "a measurement: `cargo xtask bench recording`"]
fn what_recording_costs() {
    throughput();
    echo_beside_an_upload();
    flash("text", "ls -lR /usr | head -c 8M");
    flash("noise", "head -c 32M /dev/urandom");
    memory_of_a_session();
}

/// A site whose device has room for all of it and uploads when it is asked; a user that is recorded, and one
/// that is not.
fn fixture() -> (Site, User, User) {
    let flags = ["--upload", "manual", "--spool-max", "2GiB"];
    let site = Site::with(Device::new("kitchen-cam").flags(&flags));
    let rule = "allow = { labels = { \"*\" = \"*\" }, logins = [\"*\"], abilities = [\"exec\"] }";
    let policy = format!(
        "[roles.recorded]\nrecording = \"strict\"\nrecord_content = \"unlimited\"\n{rule}\n[roles.plain]\nrecording = \"off\"\n{rule}\n"
    );
    let file = site.relay.folder().join("policy.toml");
    std::fs::write(&file, policy).unwrap();
    run(site.relay.command(&["apply", "-f"]).arg(&file)).ok();
    let recorded = site.relay.user("bob", &["recorded"]);
    let plain = site.relay.user("carol", &["plain"]);
    (site, recorded, plain)
}

fn exec(user: &User, line: &str) -> std::process::Command {
    let mut ssh = user.ssh(Way::Direct, &own_login(), "kitchen-cam");
    ssh.arg(line);
    ssh
}

fn throughput() {
    let (site, recorded, plain) = fixture();
    let file = site.device.folder().join("noise");
    let mut noise = io::Read::take(File::open("/dev/urandom").unwrap(), BULK);
    io::copy(&mut noise, &mut File::create(&file).unwrap()).unwrap();
    let rate = |user: &User| {
        let mut ssh = exec(user, &format!("cat {}", file.display()));
        ssh.stdin(Stdio::null()).stdout(Stdio::null());
        let began = Instant::now();
        assert!(ssh.status().unwrap().success());
        BULK as f64 / 1e6 / began.elapsed().as_secs_f64()
    };
    let mut rates = [vec![], vec![]];
    for _ in 0..ROUNDS {
        for (user, rates) in [&recorded, &plain].into_iter().zip(&mut rates) {
            rates.push(rate(user));
        }
        upload_all(&site.device);
    }
    let [recorded, plain] = rates.map(median);
    println!(
        "noise, {} MiB, median of {ROUNDS}: recorded {recorded:.1} MB/s, not recorded {plain:.1} MB/s, ratio {:.2} \
         (aim: 0.8 or more)",
        BULK / MIB,
        recorded / plain
    );
}

fn echo_beside_an_upload() {
    let (site, recorded, plain) = fixture();
    run(exec(&recorded, "head -c 256M /dev/urandom").stdout(Stdio::null())).ok();
    // An operator who types has a terminal: that is what uploads stand back behind.
    let mut ssh = plain.ssh(Way::Direct, &own_login(), "kitchen-cam");
    ssh.args(["-tt", "stty -echo -onlcr; exec cat"]);
    let mut echo = Echo::start(ssh);
    let calm = percentile(&mut echo);
    run(&mut site.device.command(&["upload"])).ok();
    let busy = percentile(&mut echo);
    let left = spool(&site.device)["waiting"].as_u64().unwrap();
    println!(
        "echo, p99 of {ECHOES}: {calm:.2} ms, with recordings waiting to go up {busy:.2} ms, ratio {:.2} (aim: 1.1 or \
         less); {left} segments waited at the end",
        busy / calm
    );
}

fn flash(name: &str, line: &str) {
    let (site, recorded, _) = fixture();
    run(exec(&recorded, line).stdout(Stdio::null())).ok();
    wait_until(SOON, "the recording is on the disk", || {
        spool(&site.device)["recording"] == 0
    });
    let spool = spool(&site.device);
    let aim = if name == "text" { 0.5 } else { 1.05 };
    println!(
        "{name}: {:.3} bytes written for each recorded one, of {:.1} MB (aim: {aim} or less)",
        spool["flash_per_byte"].as_f64().unwrap(),
        spool["recorded"].as_f64().unwrap() / 1e6
    );
}

fn memory_of_a_session() {
    let (site, recorded, plain) = fixture();
    // What the first sessions need once and for all is not counted.
    drop(sessions(&recorded));
    idle(&site.relay);
    let mut grown = [&plain, &recorded].into_iter().map(|user| {
        let before = memory(site.device.id());
        let held = sessions(user);
        let grown = memory(site.device.id()).saturating_sub(before) / SESSIONS / 1024;
        drop(held);
        idle(&site.relay);
        grown
    });
    let (plain, recorded) = (grown.next().unwrap(), grown.next().unwrap());
    println!(
        "the agent's memory: {plain} KiB for a session, {recorded} KiB for a recorded one: {} KiB more (aim: 256 KiB \
         or less)",
        recorded.saturating_sub(plain)
    );
}

/// Sessions that have written some text, and wait.
fn sessions(user: &User) -> Vec<Running> {
    (0..SESSIONS)
        .map(|_| {
            let session = Running::start(&mut exec(user, "seq 1 20000; echo st''op; cat"));
            session.wait_out("stop");
            session
        })
        .collect()
}

fn idle(relay: &Relay) {
    wait_until(SOON, "no session is left", || {
        relay.json(&["sessions", "--json"]) == Value::Array(vec![])
    });
}

fn spool(device: &Device) -> Value {
    let status = run(&mut device.command(&["status", "--json"])).ok().out();
    serde_json::from_str::<Value>(&status).unwrap()["spool"].clone()
}

fn upload_all(device: &Device) {
    run(&mut device.command(&["upload"])).ok();
    wait_until(SOON * 6, "all is uploaded", || {
        spool(device)["waiting"] == 0
    });
}

/// The 99th percentile of the echo, in milliseconds.
fn percentile(echo: &mut Echo) -> f64 {
    let mut times: Vec<Duration> = (0..ECHOES).map(|_| echo.round_trip()).collect();
    times.sort_unstable();
    times[ECHOES * 99 / 100].as_secs_f64() * 1e3
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}
