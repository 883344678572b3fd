//! Replacing the agent of a running device, with signatures of the real minisign. The new versions are copies of
//! the agent with something behind their end: another file, and the same program.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{
    Device, Output, Relay, Running, SOON, Terminal, User, Way, agent_program, command,
    needs_program, own_login, run, wait_until,
};

/// Keys of minisign's, and the versions that they sign.
struct Signer {
    folder: TempDir,
    /// The version that runs at first.
    base: PathBuf,
}

impl Signer {
    /// `None` where there is no minisign.
    #[track_caller]
    fn new() -> Option<Self> {
        if !needs_program("minisign", "Debian's package minisign") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("edge-agent");
        // What a debugger wants is three fourths of a build for tests, and is copied and hashed for nothing.
        run(command("strip").arg("-o").arg(&base).arg(agent_program())).ok();
        let signer = Self { folder, base };
        let mut generate = signer.minisign();
        run(generate.args(["-G", "-W", "-p", "minisign.pub", "-s", "minisign.key"])).ok();
        Some(signer)
    }

    fn minisign(&self) -> std::process::Command {
        let mut minisign = command("minisign");
        minisign.current_dir(self.folder.path());
        minisign
    }

    fn key(&self) -> String {
        let text = fs::read_to_string(self.folder.path().join("minisign.pub")).unwrap();
        text.lines().nth(1).unwrap().to_owned()
    }

    /// A version that differs from the others by `stamp`, signed.
    fn version(&self, stamp: &str) -> PathBuf {
        let path = self.copy(stamp);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(stamp.as_bytes()).unwrap();
        self.sign(&path);
        path
    }

    /// The program as it is, unsigned.
    fn copy(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::copy(&self.base, &path).unwrap();
        path
    }

    #[track_caller]
    fn sign(&self, path: &Path) {
        let mut sign = self.minisign();
        run(sign.args(["-S", "-s", "minisign.key", "-m"]).arg(path)).ok();
    }
}

/// A device with a program of its own, and a relay that gave it the release key.
struct Fleet {
    signer: Signer,
    program: PathBuf,
    alice: User,
    device: Device,
    relay: Relay,
}

impl Fleet {
    #[track_caller]
    fn new() -> Option<Self> {
        let signer = Signer::new()?;
        let config = signer.folder.path().join("relay.toml");
        fs::write(&config, format!("release_key = \"{}\"\n", signer.key())).unwrap();
        let relay = Relay::start_with(&["--config", config.to_str().unwrap()]);
        let mut device = Device::new("kitchen-cam");
        let program = device.folder().join("edge-agent");
        fs::copy(&signer.base, &program).unwrap();
        device = device.program(program.clone());
        device.join(&relay.token(&[]), &[]).ok();
        device.run_online(&relay);
        Some(Self {
            alice: relay.admin_user(),
            signer,
            program,
            device,
            relay,
        })
    }

    fn upgrade(&self, file: &Path, flags: &[&str]) -> Output {
        run(&mut self.upgrade_command(file, flags))
    }

    fn upgrade_command(&self, file: &Path, flags: &[&str]) -> std::process::Command {
        let words = [&["upgrade", file.to_str().unwrap()], flags].concat();
        self.device.command(&words)
    }

    /// From here on there is no tunnel for this device, and a handshake with the relay all the same.
    #[track_caller]
    fn revoke(&self) {
        let revoked = self.relay.admin(&["devices", "revoke", "kitchen-cam"]);
        revoked.ok();
        wait_until(SOON, "the device knows", || {
            self.device.log().contains("this device was revoked")
        });
    }

    /// Waits until it has begun its trial for the `count`th time.
    #[track_caller]
    fn wait_on_trial(&self, count: usize) {
        wait_until(SOON, "the new version's trial", || {
            self.device.log().matches("is on trial").count() == count
        });
    }

    #[track_caller]
    fn is(&self, file: &Path) {
        let same = fs::read(&self.program).unwrap() == fs::read(file).unwrap();
        assert!(same, "the program is not {}", file.display());
        for name in [".edge-agent.staged", ".edge-agent.spare"] {
            assert!(!self.device.folder().join(name).exists(), "{name} is left");
        }
    }
}

#[test]
fn a_signed_version_replaces_the_running_one() {
    let Some(mut fleet) = Fleet::new() else {
        return;
    };
    let notice = "[holdfast] closed: the agent on kitchen-cam starts again as another version";
    let ssh = || fleet.alice.ssh(Way::Direct, &own_login(), "kitchen-cam");
    let mut terminal = Terminal::start(&ssh(), 80, 24);
    terminal.send("echo in$((40 + 2))\r");
    terminal.expect("in42");
    let session = Running::start(ssh().arg("echo started; cat"));
    session.wait_out("started");

    let id = fleet.device.id();
    let new = fleet.signer.version("new");
    let upgraded = fleet.upgrade(&new, &[]).ok();
    let out = upgraded.out();
    assert!(
        out.contains("version 0.1.0 has a tunnel after "),
        "{upgraded}"
    );
    terminal.expect(notice);
    assert_eq!(terminal.wait(SOON).code(), Some(255));
    session.wait(SOON).exits(255).says(notice);

    fleet.is(&new);
    let previous = fs::read(fleet.program.with_extension("previous")).unwrap();
    assert!(previous == fs::read(&fleet.signer.base).unwrap());
    assert_eq!(fleet.device.id(), id, "another process");
    fleet.device.wait_online(&fleet.relay);
    fleet.alice.exec(Way::Direct, "kitchen-cam", "true").ok();

    // Once more, it changes nothing.
    let generation = || fleet.relay.device("kitchen-cam").unwrap()["generation"].clone();
    let before = generation();
    let again = fleet.upgrade(&new, &[]).ok();
    assert!(again.out().contains("nothing to do"), "{again}");
    assert_eq!(generation(), before);
    // And what is kept is on trial no more.
    let (relay, device) = (&fleet.relay, &mut fleet.device);
    device.restart(relay);
    assert_eq!(fleet.device.log().matches("is on trial").count(), 1);
    fleet.is(&new);

    let next = fleet.signer.version("next");
    fleet.upgrade(&next, &[]).ok();
    fleet.is(&next);
}

#[test]
fn a_version_that_gets_no_tunnel_is_taken_back_by_itself() {
    let Some(fleet) = Fleet::new() else {
        return;
    };
    fleet.revoke();
    let id = fleet.device.id();
    let refused = fleet.upgrade(&fleet.signer.version("new"), &["--trial", "1s"]);
    let refused = refused.exits(1);
    refused.says("version 0.1.0 was rolled back, and the previous one runs: it got no tunnel within 1 s (this device was revoked");
    fleet.is(&fleet.signer.base);
    let status = || run(&mut fleet.device.command(&["status"]));
    wait_until(SOON, "the old version's status", || {
        let status = status().exits(1).out();
        status.contains(": connecting") && status.contains("upgrade: version 0.1.0 was rolled back")
    });
    assert_eq!(fleet.device.id(), id, "another process");
}

/// A new version that gets no tunnel, for as long as its trial goes on, and what waits for how it ends.
#[track_caller]
fn on_trial(trial: &str) -> Option<(Fleet, PathBuf, Running)> {
    let fleet = Fleet::new()?;
    fleet.revoke();
    let new = fleet.signer.version("new");
    let upgrade = Running::start(&mut fleet.upgrade_command(&new, &["--trial", trial]));
    fleet.wait_on_trial(1);
    Some((fleet, new, upgrade))
}

#[test]
fn a_version_that_hangs_is_ended_by_the_one_before() {
    let Some((mut fleet, _, upgrade)) = on_trial("1s") else {
        return;
    };
    fleet.device.signal(Signal::STOP);
    fleet.device.wait(SOON);
    let refused = upgrade.wait(SOON).exits(1);
    refused.says("it got no tunnel in time, and did not say why");
    fleet.is(&fleet.signer.base);
    fleet.device.run();
    wait_until(SOON, "the old version runs", || {
        run(&mut fleet.device.command(&["status"]))
            .out()
            .contains(": connecting")
    });
}

#[test]
fn a_version_that_ends_again_and_again_is_taken_back() {
    let Some((mut fleet, new, upgrade)) = on_trial("50s") else {
        return;
    };
    for start in 1..=3 {
        fleet.wait_on_trial(start);
        fleet.is(&new);
        fleet.device.kill();
        fleet.device.run();
    }
    let refused = upgrade.wait(SOON).exits(1);
    refused.says("it was started 3 times and never got a tunnel");
    fleet.is(&fleet.signer.base);
    let guarded = run(&mut fleet.device.command(&["internal-guard"]));
    guarded.ok();
    fleet.is(&fleet.signer.base);
}

/// OpenWrt's scripts hold a lock while they start a service, and each later call of them waits for it.
#[test]
fn who_watches_over_a_trial_keeps_no_lock_of_the_init() {
    let Some((mut fleet, _, _upgrade)) = on_trial("10m") else {
        return;
    };
    fleet.device.kill();
    let lock = fleet.device.folder().join("lock");
    let guard = fleet.device.command(&["internal-guard"]);
    let mut script = command("sh");
    script
        .args(["-c", r#"exec 9>"$0" && flock 9 && "$@" 2>/dev/null"#])
        .arg(&lock)
        .arg(guard.get_program())
        .args(guard.get_args());
    run(&mut script).ok();
    let lock = File::open(&lock).unwrap();
    wait_until(SOON, "the lock to be free", || {
        flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
    });
}

#[test]
fn what_is_no_signed_agent_for_this_device_is_refused() {
    let Some(fleet) = Fleet::new() else {
        return;
    };
    let refused = |file: &Path, flags: &[&str], why: &str| {
        fleet.upgrade(file, flags).exits(1).says(why);
        fleet.is(&fleet.signer.base);
    };
    refused(&fleet.signer.copy("unsigned"), &[], "is not signed");

    let tampered = fleet.signer.version("tampered");
    let mut file = File::options().append(true).open(&tampered).unwrap();
    file.write_all(b"!").unwrap();
    refused(&tampered, &[], "it does not match the file");

    let stranger = Signer::new().unwrap();
    let other_key = "it was made with another key than the one that this device pinned";
    refused(&stranger.version("stranger"), &[], other_key);

    let large = fleet.signer.version("large");
    File::options()
        .write(true)
        .open(&large)
        .unwrap()
        .set_len(129 << 20)
        .unwrap();
    refused(
        &large,
        &[],
        "is too large for an agent; the maximum is 128 MiB",
    );

    // The machine in an ELF header.
    let foreign = fleet.signer.version("foreign");
    let mut file = File::options().write(true).open(&foreign).unwrap();
    file.seek(SeekFrom::Start(18)).unwrap();
    file.write_all(&[0xf3, 0]).unwrap();
    fleet.signer.sign(&foreign);
    refused(&foreign, &[], "wrong architecture: expected a program for");

    let older = fleet.signer.copy("older");
    stamp_version(&older, b"0.1.0", b"0.0.9");
    fleet.signer.sign(&older);
    refused(
        &older,
        &[],
        "it is version 0.0.9, older than the running 0.1.0",
    );
    let taken = fleet.upgrade(&older, &["--allow-downgrade"]).ok();
    assert!(
        taken.out().contains("version 0.0.9 has a tunnel"),
        "{taken}"
    );
}

#[test]
fn a_device_that_joined_before_there_was_a_key_can_be_given_one() {
    let Some(signer) = Signer::new() else {
        return;
    };
    let relay = Relay::start();
    let device = Device::joined(&relay, "kitchen-cam");
    let new = signer.version("new");
    let upgrade = || run(&mut device.command(&["upgrade", new.to_str().unwrap()]));
    let refused = upgrade().exits(1);
    refused.says("Pin it: `edge-agent join --release-key KEY`");
    let pinned = run(&mut device.command(&["join", "--release-key", &signer.key()])).ok();
    assert!(pinned.out().contains(&signer.key()), "{pinned}");
    let refused = upgrade().exits(1);
    refused.says("no agent runs on ");
    let no_key = run(&mut device.command(&["join", "--release-key", "RWx"])).exits(2);
    no_key.says("a release key begins with RW");
}

/// Writes another version's number over the present one, wherever it is.
fn stamp_version(program: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = fs::read(program).unwrap();
    let mut at = 0;
    while let Some(found) = bytes[at..]
        .windows(from.len())
        .position(|part| part == from)
    {
        at += found;
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    fs::write(program, bytes).unwrap();
}
