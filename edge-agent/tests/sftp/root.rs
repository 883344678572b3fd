//! A client that may not leave its folder, and tries to.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{RenameFlags, renameat_with};

use crate::AGENT;
use crate::client::{ok, sftp};
use crate::compare::listing;
use crate::peer::{Packet, Server};

/// A root beside a folder that must not be reached.
struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("root/sub")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        fs::set_permissions(folder.path(), mode).unwrap();
        fs::write(folder.path().join("outside/secret"), "outside").unwrap();
        fs::write(folder.path().join("root/file"), "inside").unwrap();
        Self { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn secret(&self) -> PathBuf {
        self.folder.path().join("outside/secret")
    }

    fn server(&self) -> Server {
        let root = self.root();
        let program = [AGENT, "internal-sftp", "--root", root.to_str().unwrap()];
        Server::start(&program, self.folder.path())
    }

    /// Nothing outside has changed.
    fn assert_untouched(&self) {
        assert_eq!(fs::read(self.secret()).unwrap(), b"outside");
        let outside = fs::read_dir(self.folder.path().join("outside")).unwrap();
        assert_eq!(outside.count(), 1);
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(self.secret()).unwrap());
        assert_ne!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_client_lives_in_its_root_as_if_it_were_all() {
    let fixture = Fixture::new();
    let server = format!("{AGENT} internal-sftp --root {}", fixture.root().display());
    let work = fixture.folder.path().join("work");
    fs::create_dir(&work).unwrap();
    fs::write(work.join("local"), "local").unwrap();
    let batch = "pwd\nput local /sub/one\nrename sub/one sub/two\nln -s /sub/two link\n\
        get link back\nchmod 600 link\nln sub/two sub/hard\ncd sub\npwd\nls -l\nls -la /\n\
        cd ../../..\npwd\nmkdir a\nrmdir a\ncopy link copied\nput -p local kept\ndf\nrm sub/hard\n";
    let out = ok(&server, &work, batch);
    assert!(
        !out.contains(fixture.folder.path().to_str().unwrap()),
        "{out}"
    );
    assert!(out.contains("Remote working directory: /sub\n"), "{out}");
    assert_eq!(fs::read(work.join("back")).unwrap(), b"local");
    assert_eq!(fs::read(fixture.root().join("copied")).unwrap(), b"local");
    let mode = std::os::unix::fs::MetadataExt::mode(
        &fs::metadata(fixture.root().join("sub/two")).unwrap(),
    );
    assert_eq!(mode & 0o777, 0o600);
    for out in [
        "get ../outside/secret",
        "get /etc/passwd",
        "cd /etc",
        "ls /../outside",
    ] {
        let refused = sftp(&server, &work, &format!("{out}\n"));
        assert!(!refused.status.success(), "{out}");
    }
    fixture.assert_untouched();
}

/// Every request that takes a path, by every path that would lead out.
#[test]
fn no_request_leads_out() {
    let fixture = Fixture::new();
    let mut server = fixture.server();
    symlink(fixture.secret(), fixture.root().join("absolute")).unwrap();
    symlink("../outside/secret", fixture.root().join("relative")).unwrap();
    symlink("../../outside", fixture.root().join("sub/folder")).unwrap();
    symlink("/proc/self/cwd/outside", fixture.root().join("magic")).unwrap();
    let secret = fixture.secret();
    for path in [
        "../outside/secret",
        "/../outside/secret",
        "sub/../../outside/secret",
        "absolute",
        "relative",
        "sub/folder/secret",
        "magic/secret",
        secret.to_str().unwrap(),
    ] {
        let string = path.as_bytes();
        // All these would follow the last name, or find it outside.
        for packet in [
            Packet::new(17, 1).string(string),
            Packet::new(3, 1).string(string).number(1).number(0),
            Packet::new(3, 1).string(string).number(2).number(0),
            Packet::new(3, 1).string(string).number(0x12).number(0),
            Packet::new(9, 1).string(string).number(4).number(0o600),
            Packet::new(9, 1).string(string).number(1).long(0),
            Packet::new(9, 1).string(string).number(8).long(0),
            Packet::new(9, 1).string(string).number(2).long(0),
            Packet::new(11, 1).string(string),
            Packet::extended("statvfs@openssh.com", 1).string(string),
        ] {
            let answer = server.ask(&packet);
            assert_eq!(answer.code(), 2, "{path}: {packet:?}");
        }
        if !path.ends_with("ve") && !path.ends_with("absolute") {
            for packet in [
                Packet::new(7, 1).string(string),
                Packet::new(13, 1).string(string),
                Packet::new(18, 1).string(string).string(b"stolen"),
                Packet::extended("posix-rename@openssh.com", 1)
                    .string(string)
                    .string(b"stolen"),
                Packet::extended("hardlink@openssh.com", 1)
                    .string(string)
                    .string(b"stolen"),
                Packet::extended("posix-rename@openssh.com", 1)
                    .string(b"file")
                    .string(string),
                Packet::extended("hardlink@openssh.com", 1)
                    .string(b"file")
                    .string(string),
                Packet::extended("lsetstat@openssh.com", 1)
                    .string(string)
                    .number(4)
                    .number(0o600),
                Packet::new(14, 1).string(string).number(0),
                Packet::new(20, 1).string(b"x").string(string),
                Packet::new(19, 1).string(string),
            ] {
                let answer = server.ask(&packet);
                assert_eq!(answer.code(), 2, "{path}: {packet:?}");
            }
        }
    }
    // A listing says nothing of what is above.
    let above = server.ask(&Packet::new(7, 1).string(b"/.."));
    let top = server.ask(&Packet::new(7, 1).string(b"/"));
    assert_eq!(above.fields, top.fields);
    let listed = listing(&mut server, "/");
    let attributes = |name: &[u8]| {
        let name = [&[0, 0, 0, u8::try_from(name.len()).unwrap()], name].concat();
        let entry = listed.iter().find(|entry| entry.starts_with(&name));
        entry.unwrap()[entry.unwrap().len() - 32..].to_vec()
    };
    assert_eq!(attributes(b".."), attributes(b"."));
    server.end();
    fixture.assert_untouched();
    assert!(!fixture.root().join("stolen").exists());
}

/// Tells a thread to stop, also where an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Another process swaps a folder and a link to the outside while the client works below it.
#[test]
fn no_race_leads_out() {
    let fixture = Fixture::new();
    let root = fixture.root();
    fs::create_dir(root.join("swap")).unwrap();
    fs::write(root.join("swap/secret"), "inside!").unwrap();
    symlink("../outside", root.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let folder = fs::File::open(&root).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let flags = RenameFlags::EXCHANGE;
                renameat_with(&folder, "swap", &folder, "link", flags).unwrap();
            }
        });
        let _stop = Stop(&stop);
        let mut server = fixture.server();
        let (mut well, mut refused) = (0, 0);
        for round in 0..20_000 {
            if well > 200 && refused > 200 && round > 2_000 {
                break;
            }
            let made = format!("swap/{round}");
            let open = Packet::new(3, 1).string(made.as_bytes()).number(0x0a);
            let opened = server.ask(&open.number(0));
            if opened.kind == 102 {
                well += 1;
                server.ask(&Packet::new(4, 2).string(opened.string()));
                server.ask(&Packet::new(13, 2).string(made.as_bytes()));
            } else {
                refused += 1;
            }
            let path: &[u8] = b"swap/../swap/secret";
            server.ask(&Packet::new(9, 3).string(path).number(4).number(0o600));
            let open = Packet::new(3, 4).string(path).number(1).number(0);
            let opened = server.ask(&open);
            if opened.kind == 102 {
                let handle = opened.string();
                let read = server.ask(&Packet::new(5, 5).string(handle).long(0).number(9));
                assert_eq!(read.string(), b"inside!");
                server.ask(&Packet::new(4, 6).string(handle));
            }
            server.ask(&Packet::new(13, 7).string(b"link/secret"));
        }
        assert!(well > 200 && refused > 200, "{well} and {refused}");
        server.end();
    });
    fixture.assert_untouched();
}

#[test]
fn without_its_root_it_does_not_start() {
    let missing = Path::new("/no/such/folder");
    let output = std::process::Command::new(AGENT)
        .args(["internal-sftp", "--root"])
        .arg(missing)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(
        err.contains("the root /no/such/folder can't be opened: No such file"),
        "{err}"
    );
}
