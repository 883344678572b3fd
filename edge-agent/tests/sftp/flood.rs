//! Too much of everything.

use std::io::Write as _;

use crate::AGENT;
use crate::peer::{Packet, Server, answer};

/// Kilobytes that a process held at most.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().strip_suffix(" kB").unwrap();
    number.parse().unwrap()
}

#[test]
fn a_hundred_thousand_opens_are_answered() {
    const OPENS: u32 = 100_000;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "text").unwrap();
    let mut server = Server::start(&[AGENT, "internal-sftp"], folder.path());
    let mut stdout = server.stdout;
    let reader = std::thread::spawn(move || {
        let mut opened = 0;
        for id in 0..OPENS {
            let answer = answer(&mut stdout);
            assert_eq!(answer.id, id);
            if answer.kind == 102 {
                opened += 1;
            } else {
                assert_eq!(answer.code(), 4);
                assert_eq!(answer.string(), b"Too many open files");
            }
        }
        (opened, stdout)
    });
    let mut requests = std::io::BufWriter::new(&mut server.stdin);
    for id in 0..OPENS {
        let open = Packet::new(3, id).string(b"file").number(1).number(0);
        requests.write_all(&open.bytes()).unwrap();
    }
    requests.flush().unwrap();
    drop(requests);
    let (opened, stdout) = reader.join().unwrap();
    server.stdout = stdout;
    // Where the system allows as many descriptors.
    assert!((200..=1024).contains(&opened), "{opened}");
    // It lives, and needs little.
    assert_eq!(server.ask(&Packet::new(16, 7).string(b".")).kind, 104);
    assert!(peak(server.child.id()) < 24 * 1024);
    server.end();
}

#[test]
fn paths_that_no_file_has_are_refused_by_their_fault() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(&[AGENT, "internal-sftp"], folder.path());
    let long = vec![b'a'; 4096];
    let longer = vec![b'a'; 200_000];
    for kind in [7, 11, 13, 15, 16, 17, 19] {
        let nul = server.ask(&Packet::new(kind, 1).string(b"/etc/passwd\0.png"));
        assert_eq!(
            (nul.code(), nul.string()),
            (4, &b"the path holds a NUL byte"[..])
        );
        for long in [&long, &longer] {
            let answer = server.ask(&Packet::new(kind, 2).string(long));
            assert_eq!(
                (answer.code(), answer.string()),
                (5, &b"File name too long"[..])
            );
        }
    }
    // The longest path there can be: it is merely not there.
    let path = "./".repeat(2047) + "a";
    let answer = server.ask(&Packet::new(17, 3).string(path.as_bytes()));
    assert_eq!(answer.code(), 2);
    server.end();
}

#[test]
fn numbers_beyond_all_sense_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "text").unwrap();
    let mut server = Server::start(&[AGENT, "internal-sftp"], folder.path());
    let open = Packet::new(3, 1).string(b"file").number(3).number(0);
    let opened = server.ask(&open);
    let handle = opened.string();
    let most = u64::MAX;
    let read = server.ask(&Packet::new(5, 2).string(handle).long(0).number(u32::MAX));
    assert_eq!((read.kind, read.string()), (103, &b"text"[..]));
    for offset in [most, most >> 1, 1 << 62] {
        let read = Packet::new(5, 3).string(handle).long(offset).number(9);
        assert!([1, 4, 5].contains(&server.ask(&read).code()));
        let write = Packet::new(6, 4).string(handle).long(offset).string(b"x");
        assert!([4, 5].contains(&server.ask(&write).code()));
        let size = Packet::new(10, 5).string(handle).number(1).long(offset);
        assert!([4, 5].contains(&server.ask(&size).code()));
        let copy = Packet::extended("copy-data", 6).string(handle).long(offset);
        let copy = copy.long(most).string(handle).long(offset);
        assert_ne!(server.ask(&copy).code(), 0);
    }
    let ids = vec![0; 4 * 60_000];
    let names = Packet::extended("users-groups-by-id@openssh.com", 7);
    assert_eq!(server.ask(&names.string(&ids).string(b"")).code(), 4);
    let names = Packet::extended("users-groups-by-id@openssh.com", 8);
    assert_eq!(server.ask(&names.string(b"123").string(b"")).code(), 5);
    assert_eq!(std::fs::read(folder.path().join("file")).unwrap(), b"text");
    server.end();
}
