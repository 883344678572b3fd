//! The same packets to our server and to OpenSSH's: the same answers, but for handles and texts.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use crate::peer::{Answer, Packet, Server};
use crate::{AGENT, OPENSSH};

/// Files of every kind.
fn fixture(folder: &Path) {
    fs::create_dir_all(folder.join("sub/deep")).unwrap();
    fs::write(folder.join("file"), "0123456789").unwrap();
    for (name, mode) in [("suid", 0o4755), ("sgid", 0o2644), ("none", 0)] {
        fs::write(folder.join(name), name).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(folder.join("sub"), fs::Permissions::from_mode(0o1777)).unwrap();
    let folders = fs::File::open(folder).unwrap();
    rustix::fs::mkfifoat(&folders, "fifo", rustix::fs::Mode::RUSR).unwrap();
    drop(std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap());
    for number in 0..1_000 {
        fs::write(folder.join(format!("sub/deep/{number}")), "").unwrap();
    }
    fs::write(folder.join("sub/deep").join("n".repeat(255)), "").unwrap();
    symlink("file", folder.join("link")).unwrap();
    symlink("nowhere", folder.join("dangling")).unwrap();
    symlink("loop", folder.join("loop")).unwrap();
    for (name, seconds) in [("suid", 981_173_106), ("sgid", 4_000_000_000), ("none", 0)] {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let file = fs::File::open(folder.join(name)).unwrap();
        let times = fs::FileTimes::new().set_modified(time).set_accessed(time);
        file.set_times(times).unwrap();
    }
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(folder.join("sgid"), Some(54_321), Some(1)).unwrap();
    }
}

/// A listing, sorted: each name with its line and attributes.
pub(crate) fn listing(server: &mut Server, path: &str) -> Vec<Vec<u8>> {
    let opened = server.ask(&Packet::new(11, 1).string(path.as_bytes()));
    let handle = opened.string().to_vec();
    let mut entries = Vec::new();
    loop {
        let answer = server.ask(&Packet::new(12, 2).string(&handle));
        if answer.kind == 101 {
            assert_eq!(answer.code(), 1);
            break;
        }
        let count = u32::from_be_bytes(answer.fields[..4].try_into().unwrap());
        let mut rest = &answer.fields[4..];
        for _ in 0..count {
            let mut length = 0;
            for _ in 0..2 {
                let string = rest[length..length + 4].try_into().unwrap();
                length += 4 + usize::try_from(u32::from_be_bytes(string)).unwrap();
            }
            // Flags, size, owner, permissions, times.
            let (entry, later) = rest.split_at(length + 4 + 8 + 8 + 4 + 8);
            entries.push(entry.to_vec());
            rest = later;
        }
        assert!(rest.is_empty());
    }
    assert_eq!(server.ask(&Packet::new(4, 3).string(&handle)).code(), 0);
    entries.sort();
    entries
}

/// Requests by path, and what of each answer must be the same.
fn answers(server: &mut Server) -> Vec<(String, Answer)> {
    let mut answers = Vec::new();
    let mut ask = |what: String, packet: Packet| {
        let mut answer = server.ask(&packet);
        if answer.kind == 101 {
            // Texts are our own.
            answer.fields.truncate(4);
        }
        answers.push((what, answer));
    };
    let paths = [
        "file",
        "./file",
        "sub",
        "sub/",
        "link",
        "dangling",
        "loop",
        "loop/x",
        "missing",
        "missing/x",
        "file/x",
        "suid",
        "sgid",
        "none",
        "",
        ".",
        "..",
        "/",
        "//",
        "sub/deep/../..",
        "/dev/null",
    ];
    for path in paths {
        let string = path.as_bytes();
        for kind in [7, 17, 19, 13, 15] {
            // What removes must fail, or the next would not be there.
            let fails = matches!(
                path,
                "sub" | "sub/" | "missing" | "missing/x" | "file/x" | "" | "."
            );
            if !(13..=15).contains(&kind) || fails {
                ask(
                    format!("{kind} {path}"),
                    Packet::new(kind, 9).string(string),
                );
            }
        }
        if !matches!(path, "" | "loop" | "loop/x" | "dangling") {
            ask(format!("real {path}"), Packet::new(16, 9).string(string));
        }
        let packet = Packet::new(18, 9).string(string).string(b"link");
        ask(format!("rename {path}"), packet);
        let packet = Packet::new(14, 9).string(b"file").number(0);
        ask(format!("mkdir {path}"), packet);
        let packet = Packet::extended("hardlink@openssh.com", 9);
        let packet = packet.string(string).string(b"file");
        ask(format!("hardlink {path}"), packet);
    }
    for (what, packet) in [
        ("unknown extension", Packet::extended("x@example.com", 9)),
        ("no handle", Packet::new(4, 9).string(b"12345678")),
        (
            "read of none",
            Packet::new(5, 9).string(b"1").long(0).number(1),
        ),
        (
            "set no mode",
            Packet::new(9, 9).string(b"missing").number(4).number(0o600),
        ),
        (
            "exclusive",
            Packet::new(3, 9).string(b"file").number(0x2a).number(0),
        ),
        (
            "folder for writing",
            Packet::new(3, 9).string(b"sub").number(2).number(0),
        ),
        ("no folder", Packet::new(11, 9).string(b"file")),
    ] {
        ask(what.to_owned(), packet);
    }
    answers
}

#[test]
fn answers_are_openssh_s() {
    if !Path::new(OPENSSH).exists() {
        println!("{OPENSSH} is not here: nothing to compare with");
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    // In a folder of its own: what others do beside it changes the parent.
    let folder = parent.path().join("folder");
    fs::create_dir(&folder).unwrap();
    fixture(&folder);
    let mut ours = Server::start(&[AGENT, "internal-sftp"], &folder);
    let mut theirs = Server::start(&[OPENSSH], &folder);
    for path in [".", "sub", "sub/deep"] {
        let (ours, theirs) = (listing(&mut ours, path), listing(&mut theirs, path));
        let text = |entries: &[Vec<u8>]| -> Vec<String> {
            let text = entries.iter().map(|entry| entry.escape_ascii().to_string());
            text.collect()
        };
        assert_eq!(text(&ours), text(&theirs), "{path}");
    }
    let (ours_said, theirs_said) = (answers(&mut ours), answers(&mut theirs));
    for (ours, theirs) in ours_said.iter().zip(&theirs_said) {
        assert_eq!(ours, theirs);
    }
    // Bytes, where both have them at the same offsets.
    for server in [&mut ours, &mut theirs] {
        let open = Packet::new(3, 1).string(b"file").number(3).number(0);
        let handle = server.ask(&open).string().to_vec();
        let write = Packet::new(6, 2).string(&handle).long(8).string(b"xyz");
        assert_eq!(server.ask(&write).code(), 0);
        let read = Packet::new(5, 3).string(&handle).long(7).number(100);
        assert_eq!(server.ask(&read).string(), b"7xyz");
        let behind = Packet::new(5, 4).string(&handle).long(11).number(1);
        assert_eq!(server.ask(&behind).code(), 1);
        let nothing = Packet::new(5, 5).string(&handle).long(0).number(0);
        assert_eq!(server.ask(&nothing).kind, 103);
        let size = Packet::new(10, 6).string(&handle).number(1).long(10);
        assert_eq!(server.ask(&size).code(), 0);
    }
    ours.end();
    theirs.end();
}
