//! Unix sockets, both ways: with the account's rights, under the rules of roles.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use super::policy::role;
use super::{Target, Tunnel, forwards, listed};
use crate::harness::{
    Accounts, Running, SOON, Site, User, Way, own_login, run, run_with_input, wait_for, wait_until,
};

/// A service of the device: reads to the end, and says how much it was and who has said it.
pub(super) fn service(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = rustix::net::sockopt::socket_peercred(&stream).unwrap();
            let mut all = Vec::new();
            if stream.read_to_end(&mut all).is_ok() {
                let text = format!("{} bytes of {}", all.len(), peer.uid.as_raw());
                let _ = stream.write_all(text.as_bytes());
            }
        }
    });
}

fn ask(mut stream: UnixStream, bytes: usize) -> String {
    stream.set_read_timeout(Some(SOON)).unwrap();
    // The other end may be gone before it has heard it.
    let _ = stream.write_all(&vec![7; bytes]);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// A short folder: a socket's path has 107 bytes at most.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::Builder::new().prefix("hf-s").tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    (folder, path)
}

/// Starts `ssh -N -R path:…` and waits for the socket.
#[track_caller]
fn listening(mut ssh: std::process::Command, path: &Path, target: &Target) -> Running {
    let spec = format!("{}:127.0.0.1:{}", path.display(), target.port());
    ssh.args(["-v", "-N", "-o", "ExitOnForwardFailure=yes", "-R", &spec]);
    let ssh = Running::start(&mut ssh);
    // The file is there a moment before it is listened on.
    ssh.wait_err("remote forward success");
    ssh
}

#[test]
fn a_service_in_a_file_is_reached_on_both_ways() {
    let site = Site::new();
    let (_folder, folder) = folder();
    let socket = folder.join("app.sock");
    service(&socket);
    let me = rustix::process::geteuid().as_raw();
    for way in Way::BOTH {
        let tunnel = Tunnel::start(site.ssh(way), site.alice.folder(), socket.to_str().unwrap());
        assert_eq!(
            ask(tunnel.connect(), 1_000_000),
            format!("1000000 bytes of {me}"),
            "{way:?}"
        );
    }
    let rows = wait_for(SOON, "both ends of both forwards in the log", || {
        Some(forwards(&site.relay)).filter(|rows| rows.len() == 4)
    });
    for row in &rows {
        assert_eq!(row["host"], socket.to_str().unwrap());
        assert_eq!(
            (&row["port"], &row["direction"]),
            (&0.into(), &"out".into())
        );
    }
    assert_eq!(rows[3]["bytes_in"], 1_000_000);
    // What can't be reached is said in words, here to the client's own log.
    for (path, why) in [
        (folder.join("missing"), "there is no such socket"),
        (folder.clone(), "it is not a socket"),
    ] {
        let mut ssh = site.ssh(Way::Direct);
        ssh.args(["-N", "-L"]);
        let local = folder.join("local");
        ssh.arg(format!("{}:{}", local.display(), path.display()));
        let ssh = Running::start(&mut ssh);
        let stream = wait_for(SOON, "the local end", || UnixStream::connect(&local).ok());
        assert_eq!(ask(stream, 1), "");
        let path = path.display();
        ssh.wait_err(&format!("kitchen-cam cannot reach {path}: {why}"));
        drop(ssh);
        fs::remove_file(local).unwrap();
    }
}

#[test]
fn rules_are_held_against_what_a_path_really_is() {
    let site = Site::new();
    let (_folder, folder) = folder();
    let (open, closed) = (folder.join("open"), folder.join("closed"));
    fs::create_dir(&open).unwrap();
    fs::create_dir(&closed).unwrap();
    service(&open.join("app"));
    service(&closed.join("app"));
    symlink(closed.join("app"), open.join("link")).unwrap();
    symlink(&open, folder.join("other-name")).unwrap();
    let within = format!(
        "connect_paths = ['{0}/*'], listen_paths = ['{0}/*']",
        open.display()
    );
    role(&site.relay, &within, "");
    let bob = site.relay.user("bob", &["tech"]);
    let reach = |user: &User, way: Way, path: &Path| {
        let ssh = user.ssh(way, &own_login(), "kitchen-cam");
        let tunnel = Tunnel::start(ssh, user.folder(), path.to_str().unwrap());
        ask(tunnel.connect(), 3)
    };
    // Rows reach the log a moment later.
    let was_refused = |reason: &str| {
        let rows = forwards(&site.relay);
        let reasons = rows.iter().filter_map(|row| row["reason"].as_str());
        reasons.filter(|given| given.starts_with(reason)).count()
    };
    for way in Way::BOTH {
        assert!(reach(&bob, way, &open.join("app")).starts_with("3 bytes"));
        assert!(reach(&bob, way, &folder.join("other-name/app")).starts_with("3 bytes"));
        for path in [
            closed.join("app"),
            open.join("link"),
            open.join("../closed/app"),
        ] {
            assert_eq!(reach(&bob, way, &path), "", "{way:?}: {}", path.display());
            let reason = format!(
                "user \"bob\" may not forward to {} on kitchen-cam, which is {} there",
                path.display(),
                closed.join("app").display()
            );
            wait_until(SOON, "the refusal in the log", || was_refused(&reason) >= 1);
        }
        // Whether there is anything is not said where one may not go.
        assert_eq!(reach(&bob, way, &closed.join("missing")), "");
        let missing = closed.join("missing");
        let reason = format!("user \"bob\" may not forward to {}", missing.display());
        wait_until(SOON, "the refusal in the log", || was_refused(&reason) >= 1);
    }
    let mut ssh = bob.ssh(Way::Jump, &own_login(), "kitchen-cam");
    ssh.args(["-v", "-N", "-o", "ExitOnForwardFailure=yes", "-R"]);
    ssh.arg(format!("{}:localhost:1", closed.join("new").display()));
    run(&mut ssh).exits(255).says(&format!(
        "user \"bob\" may not have kitchen-cam listen on {0}, which is {0} there",
        closed.join("new").display()
    ));
    assert!(!closed.join("new").exists());
    // A role that names addresses alone means no paths, and one that says nothing means any.
    for (lists, reached) in [
        ("connect = ['*:*']", false),
        ("deny = ['*:*']", false),
        ("", true),
    ] {
        role(&site.relay, lists, "");
        let answer = reach(&bob, Way::Direct, &open.join("app"));
        assert_eq!(answer.starts_with("3 bytes"), reached, "{lists}: {answer}");
    }
    // Taken away under it.
    let ssh = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
    let tunnel = Tunnel::start(ssh, bob.folder(), open.join("app").to_str().unwrap());
    let mut stream = tunnel.connect();
    stream.write_all(b"x").unwrap();
    wait_until(SOON, "the forward in the live sessions", || {
        listed(&site.relay).len() == 1
    });
    role(&site.relay, &within, "");
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn a_device_has_a_socket_as_long_as_the_connection_lives() {
    let mut site = Site::new();
    let (_folder, folder) = folder();
    let target = Target::counting();
    let socket = folder.join("made");
    for way in Way::BOTH {
        let ssh = listening(site.ssh(way), &socket, &target);
        let made = fs::symlink_metadata(&socket).unwrap();
        assert!(made.file_type().is_socket());
        assert_eq!(made.mode() & 0o7777, 0o600);
        let all: Vec<_> = [0, 5, 300_000]
            .map(|n| {
                let stream = UnixStream::connect(&socket).unwrap();
                (n, thread::spawn(move || ask(stream, n)))
            })
            .into();
        for (n, answer) in all {
            assert_eq!(answer.join().unwrap(), format!("{n} bytes"), "{way:?}");
        }
        drop(ssh);
        wait_until(SOON, "the end of the socket", || !socket.exists());
    }
    // What a process left behind is replaced: nothing listens on it, and it is the account's own.
    drop(UnixListener::bind(&socket).unwrap());
    let ssh = listening(site.ssh(Way::Direct), &socket, &target);
    assert_eq!(ask(UnixStream::connect(&socket).unwrap(), 3), "3 bytes");
    drop(ssh);
    wait_until(SOON, "the end of the socket", || !socket.exists());
    // One that is listened on stays, and so does anything else.
    let alive = UnixListener::bind(&socket).unwrap();
    let mut ssh = site.ssh(Way::Direct);
    ssh.args(["-v", "-N", "-o", "ExitOnForwardFailure=yes", "-R"]);
    ssh.arg(format!("{}:localhost:1", socket.display()));
    run(&mut ssh).exits(255).says("something is there already");
    assert!(UnixStream::connect(&socket).is_ok());
    drop(alive);
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "mine").unwrap();
    let mut ssh = site.ssh(Way::Direct);
    ssh.args(["-v", "-N", "-o", "ExitOnForwardFailure=yes", "-R"]);
    ssh.arg(format!("{}:localhost:1", socket.display()));
    run(&mut ssh).exits(255).says(&format!(
        "kitchen-cam cannot listen on {}: something is there already",
        socket.display()
    ));
    assert_eq!(fs::read_to_string(&socket).unwrap(), "mine");
    fs::remove_file(&socket).unwrap();
    // Taken back, and asked for again.
    let control = folder.join("control");
    let spec = format!("{}:127.0.0.1:{}", socket.display(), target.port());
    let mut ssh = site.ssh(Way::Direct);
    ssh.arg("-vMN").arg("-S").arg(&control).args(["-R", &spec]);
    let master = Running::start(&mut ssh);
    wait_until(SOON, "the master", || control.exists());
    // A master that is to cancel a forward before the relay has answered to it frees what its answer still uses.
    master.wait_err("remote forward success");
    for what in ["cancel", "forward", "cancel", "forward"] {
        let mut ssh = site.ssh(Way::Direct);
        ssh.arg("-S").arg(&control);
        run(ssh.args(["-O", what, "-R", &spec])).ok();
    }
    let answer = ask(UnixStream::connect(&socket).unwrap(), 4);
    assert_eq!(answer, "4 bytes");
    // Whatever becomes of the agent.
    site.device.kill();
    wait_until(SOON, "the end of the socket", || !socket.exists());
}

#[test]
fn a_path_is_opened_with_the_rights_of_the_account() {
    if !Accounts::are_possible() {
        return;
    }
    let accounts = Accounts::new().add("hf-pi", 4001, "/bin/sh", "*");
    let site = Site::with(accounts.device("kitchen-cam"));
    let home = site.device.folder().join("homes/hf-pi");
    let home = home.canonicalize().unwrap();
    let (own, foreign) = (home.join("own"), home.join("foreign"));
    for path in [&own, &foreign] {
        service(path);
    }
    fs::set_permissions(&foreign, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&own, Some(4001), Some(4001)).unwrap();
    let target = Target::counting();
    for way in Way::BOTH {
        let ssh = || site.alice.ssh(way, "hf-pi", "kitchen-cam");
        let tunnel =
            |path: &Path| Tunnel::start(ssh(), site.alice.folder(), path.to_str().unwrap());
        assert_eq!(ask(tunnel(&own).connect(), 2), "2 bytes of 4001", "{way:?}");
        let refused = tunnel(&foreign);
        assert_eq!(ask(refused.connect(), 2), "", "{way:?}");
        refused.ssh.wait_err("the account may not open it");
        let made = home.join("made");
        let listening = listening(ssh(), &made, &target);
        let stat = fs::symlink_metadata(&made).unwrap();
        assert_eq!((stat.uid(), stat.mode() & 0o7777), (4001, 0o600));
        assert_eq!(ask(UnixStream::connect(&made).unwrap(), 6), "6 bytes");
        drop(listening);
        wait_until(SOON, "the end of the socket", || !made.exists());
        let mut ssh = ssh();
        ssh.args([
            "-v",
            "-N",
            "-o",
            "ExitOnForwardFailure=yes",
            "-R",
            "/etc/new:localhost:1",
        ]);
        run(&mut ssh)
            .exits(255)
            .says("kitchen-cam cannot listen on /etc/new: the account may not make it there");
        assert!(!Path::new("/etc/new").exists());
    }
}

#[test]
fn the_relay_has_no_sockets_for_anybody() {
    let site = Site::new();
    let mut ssh = site.alice.console();
    ssh.args(["-v", "-N", "-o", "ExitOnForwardFailure=yes"]);
    ssh.args(["-R", "/tmp/some.sock:localhost:1"]);
    let refused = run_with_input(&mut ssh, b"").exits(255);
    refused.says("the relay accepts no reverse forwards: name a device");
}
